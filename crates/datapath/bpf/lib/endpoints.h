/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whose port a device is, and whose an address. The Rust side is src/ports/entries.rs; both change together.
 *
 * Entries of maps that are not allocated beforehand may be another's as soon as they are replaced or taken out
 * (bpf_mem_alloc, kernel/bpf/hashtab.c). So they say whose they are, which is read last: the kernel copies from the
 * front. One that says another's name has been replaced, and its successor is where it was found. */
#ifndef FIEF_ENDPOINTS_H
#define FIEF_ENDPOINTS_H

#include "flow.h"

/* src/ports/mod.rs sets the sizes when it loads; these are for whoever loads the object otherwise. */
#define TABLE(name, kind, key_type, value_type) \
	struct { \
		__uint(type, kind); \
		__uint(map_flags, BPF_F_NO_PREALLOC); \
		__uint(max_entries, 65536); \
		__type(key, key_type); \
		__type(value, value_type); \
	} name SEC(".maps")

/* The endpoint must not say that it is somebody else, a router or a DHCP server. */
#define PORT_GUARDED 1
/* What policies forbid is written down and passes. */
#define PORT_AUDITED 2

struct port {
	__u32 space;    /* the slot whose addresses are spoken here */
	__u32 slot;     /* the endpoint's tenant */
	__u32 identity; /* the endpoint's, among its tenant's */
	__u32 owner;    /* which endpoint it is; one may have several ports */
	__u32 flags;
	__u32 device;   /* the key once more */
};

struct address {
	__u32 slot;
	__u32 family;
	__u32 address[4]; /* as flow has it */
};

struct holder {
	__u32 device; /* 0: the network itself */
	struct address whose; /* the key once more */
};

TABLE(fief_port, BPF_MAP_TYPE_HASH, __u32, struct port);
TABLE(fief_address, BPF_MAP_TYPE_HASH, struct address, struct holder);

static __always_inline bool port_of(__u32 device, struct port *port)
{
	for (int i = 0; i < 2; i++) {
		volatile struct port *found = bpf_map_lookup_elem(&fief_port, &device);

		if (!found)
			return false;
		port->space = found->space;
		port->slot = found->slot;
		port->identity = found->identity;
		port->owner = found->owner;
		port->flags = found->flags;
		port->device = device;
		if (found->device == device)
			return true;
	}
	return false;
}

static __always_inline bool is_address(const volatile struct address *a, const struct address *b)
{
	return a->slot == b->slot && a->family == b->family && a->address[0] == b->address[0] &&
	       a->address[1] == b->address[1] && a->address[2] == b->address[2] && a->address[3] == b->address[3];
}

#define NOBODY 0xffffffff

/* The port of whoever has an address; 0 if it is the network's own. */
static __always_inline __u32 device_of(const struct address *address)
{
	for (int i = 0; i < 2; i++) {
		volatile struct holder *found = bpf_map_lookup_elem(&fief_address, address);
		__u32 device;

		if (!found)
			return NOBODY;
		device = found->device;
		if (is_address(&found->whose, address))
			return device;
	}
	return NOBODY;
}

#endif
