/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the daemon and the programs share: settings, maps, counters. The Rust side is src/maps.rs; both change together. */
#ifndef FIEF_ABI_H
#define FIEF_ABI_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "fief_marks.h" /* made by build.rs */

/* Set by the loader before the programs are verified, so that they are constants to the verifier. */
const volatile __u32 fief_local_moved = 0;     /* is the `local` rule behind the tree? */
const volatile __u32 fief_foreign_accepted = 0; /* did the host itself want accepted sockets to have their SYN's mark? */
const volatile __u64 fief_netns_cookie = 0;    /* our network namespace: cgroups reach into others */
const volatile __u32 fief_follows_tasks = 1;   /* may programs of control groups ask for task storage? */

const volatile __u32 fief_alias_base = 0xf0000000; /* the IPv4 range of aliases (alias.h) */
const volatile __u32 fief_alias_size = 0x07ffffff; /* the bits of it that are a number */
const volatile __u32 fief_alias_net[2] = {};       /* the IPv6 /64 of aliases, in network byte order */

/* Which protections are off. Always 0, but for the builds of scripts/test-teeth.sh, which ask whether a test notices. */
const volatile __u32 fief_teeth = 0;

#define TOOTH_LO 0x1
#define TOOTH_CONNECT 0x2
#define TOOTH_SENDMSG 0x4
#define TOOTH_DEVICE_OUT 0x8
#define TOOTH_DEVICE_IN 0x10
#define TOOTH_NEIGHBOURS 0x20
#define TOOTH_SPOOF_IN 0x40
#define TOOTH_SPOOF_OUT 0x80
#define TOOTH_LISTENER 0x100
#define TOOTH_REDIRECT 0x200
#define TOOTH_REDUCE 0x400
#define TOOTH_LOOPED 0x800
#define TOOTH_GUARD_IN 0x1000
#define TOOTH_GUARD_OUT 0x2000
#define TOOTH_GUARD_SOURCE 0x4000
#define TOOTH_MEMBERS 0x8000
#define TOOTH_MARK 0x10000
#define TOOTH_MESSAGE 0x20000
#define TOOTH_BIND 0x40000
#define TOOTH_ALIAS 0x80000
#define TOOTH_STEER 0x100000
#define TOOTH_LISTED 0x200000
#define TOOTH_SELECT 0x400000
#define TOOTH_TAKEN_OVER 0x800000
#define TOOTH_VRF_BIND 0x1000000
#define TOOTH_VRF_OUT 0x2000000
#define TOOTH_VRF_IN 0x4000000

#define FIEF_NEIGHBOURS 1   /* only listed source MACs bring packets */
#define FIEF_HOST_ACCESS 2  /* may reach the host's own addresses */
#define FIEF_UDP_ALIAS 4    /* servers that do not ask which address was called get aliases for senders */
#define FIEF_UDP_REFUSE 8   /* such servers get no datagram */
#define FIEF_ALONE 16       /* of a default: the device has no other tenant (isolation vrf) */

#define FIEF_LOOPBACK 1     /* the index of `lo` in every network namespace */

#define FIEF_NAMED 1        /* some tenant names this device: our programs sit there */
#define FIEF_ETHERNET 2     /* its frames have an Ethernet header */
#define FIEF_ALONE_SHIFT 16 /* above: the slot of the tenant whose alone it is (isolation vrf), or 0 */

/* A local address of this host: slot 0 is the host's own. */
struct owner {
	__u32 slot;
	__u32 ifindex;
	__u32 flags;
};

struct exit_key {
	__u32 slot;
	__u32 ifindex;
};

struct neighbour_key {
	__u32 slot;
	__u32 ifindex;
	__u8 mac[6];
	__u8 pad[2];
};

struct counters {
	__u64 rx_packets;
	__u64 rx_bytes;
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 drop_device_in;
	__u64 drop_neighbour;
	__u64 drop_crossing;
	__u64 drop_device_out;
	__u64 drop_spoof;
	__u64 drop_listener;
	__u64 drop_redirect;
	__u64 drop_unmarked;
	__u64 drop_alias;
	__u64 refused;
};

struct in6 {
	__u32 w[4];
};

/* Every local address of this namespace, IPv4 then IPv6, in network byte order. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 131072);
	__type(key, __be32);
	__type(value, struct owner);
} fief_own4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 131072);
	__type(key, struct in6);
	__type(value, struct owner);
} fief_own6 SEC(".maps");

/* Whose is a packet that arrives on a device for an address that is nobody's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct owner);
} fief_defaults SEC(".maps");

/* Local addresses of tenants with a VRF, which are not in the maps above: others may have the same. IPv4 addresses are
 * IPv4-mapped ones (RFC 4291, 2.5.5.2). */
struct vrf_address {
	__u32 slot;
	struct in6 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 131072);
	__type(key, struct vrf_address);
	__type(value, __u32);
} fief_vrf_own SEC(".maps");

/* Slot -> the index of its VRF. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} fief_vrfs SEC(".maps");

#define DEVICE_NAME_SIZE 16

union device_name {
	char text[DEVICE_NAME_SIZE];
	__u64 words[DEVICE_NAME_SIZE / 8];
};

/* The names of VRFs and of the devices under them -> the slot. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 131072);
	__type(key, union device_name);
	__type(value, __u32);
} fief_vrf_devices SEC(".maps");

/* By which devices a tenant's packets may leave and arrive. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 131072);
	__type(key, struct exit_key);
	__type(value, __u32);
} fief_exits SEC(".maps");

/* Devices that tenants name, by index: FIEF_NAMED, FIEF_ETHERNET. An array, since every packet asks; a device whose
 * index is beyond it is only asked about in slower ways. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u32);
} fief_devices SEC(".maps");

/* Which source MACs bring packets for a tenant that has FIEF_NEIGHBOURS. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 131072);
	__type(key, struct neighbour_key);
	__type(value, __u32);
} fief_neighbours SEC(".maps");

/* Slot -> flags: FIEF_HOST_ACCESS. A slot that is not here has no tenant. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32);
} fief_tenants SEC(".maps");

/* Slot -> counters; slot 0 counts what concerns no tenant. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct counters);
} fief_counters SEC(".maps");

static __always_inline bool is_off(__u32 tooth)
{
	return fief_teeth & tooth;
}

static __always_inline bool is_device(__u32 ifindex, __u32 flag)
{
	__u32 *flags = bpf_map_lookup_elem(&fief_devices, &ifindex);

	return flags && *flags & flag;
}

/* The tenant whose alone a device is: a VRF, or a device under one. 0 for the others. */
static __always_inline __u32 alone_on(__u32 ifindex)
{
	__u32 *flags = bpf_map_lookup_elem(&fief_devices, &ifindex);
	struct owner *owner;

	if (flags)
		return *flags >> FIEF_ALONE_SHIFT;
	owner = bpf_map_lookup_elem(&fief_defaults, &ifindex);
	return owner && owner->flags & FIEF_ALONE ? owner->slot : 0;
}

static __always_inline __u32 vrf_of(__u32 slot)
{
	__u32 *ifindex = slot ? bpf_map_lookup_elem(&fief_vrfs, &slot) : 0;

	return ifindex ? *ifindex : 0;
}

static __always_inline bool is_in_vrf(__u32 slot, const struct in6 *address)
{
	struct vrf_address key = { .slot = slot, .address = *address };

	return bpf_map_lookup_elem(&fief_vrf_own, &key);
}

static __always_inline bool is_in_vrf4(__u32 slot, __be32 address)
{
	struct in6 mapped = { { 0, 0, bpf_htonl(0xffff), address } };

	return is_in_vrf(slot, &mapped);
}

#define COUNT(slot_, field)                                                     \
	do {                                                                    \
		__u32 key_ = (slot_);                                           \
		struct counters *c_ = bpf_map_lookup_elem(&fief_counters, &key_); \
		if (c_)                                                         \
			c_->field++;                                            \
	} while (0)

#endif
