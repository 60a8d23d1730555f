/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* UDP servers with one socket for everybody.
 *
 * UDP has no accept: a server reads a datagram and answers to the address it came from, and two tenants' clients may
 * have the same. A server that asks for the address that was called (IP_PKTINFO) answers from it, and that says whose
 * client is meant. One that asks nothing is told an alias instead of the sender: an address of a range of our own, one
 * for each (tenant, sender, address called, port called), by which the answer finds its way back.
 *
 *   in    tcx: the socket is looked up; if it is nobody's and asks nothing, the sender becomes an alias
 *   out   sendmsg4/6: the alias's address called becomes the source; an answer with a tenant's source, to whomever,
 *         gets an alias for destination
 *   out   a route for the range leads to send_by_alias (an lwt_xmit program): the alias becomes the sender again, the
 *         mark is the tenant's, and the packet is routed anew
 *   out   connect4/6: a socket that is connected to an alias becomes the tenant's, and connected to the sender
 *
 * A number is never given twice while it is in the table, and comes back only when the whole range has been through;
 * the daemon takes out what was idle. What finds no room is dropped and counted. */
#ifndef FIEF_ALIAS_H
#define FIEF_ALIAS_H

#include "packet.h"

/* include/net/tcp_states.h */
#define TCP_ESTABLISHED 1
/* Aliases that one tenant may have, so that it does not use up everybody's. */
#define ALIASES_EACH 16384
/* A tenth of a second to a whole one, as CONFIG_HZ has it. */
#define TICKS 100

/* Whom an alias stands for. IPv4 addresses are IPv4-mapped ones (RFC 4291, 2.5.5.2). */
struct correspondent {
	__u32 slot;
	__be16 port;
	__u16 pad;
	struct in6 remote;
	struct in6 local;
};

struct alias {
	__u64 number;
	__u64 used;  /* bpf_ktime_get_coarse_ns() when a datagram last came, a moment more or less */
	__u64 ticks; /* bpf_jiffies64() then, which costs nothing to ask */
};

struct answered {
	struct correspondent to;
	__u32 pad;
	__u64 used;  /* when one was last sent */
	__u64 ticks;
};

struct fragment {
	__u32 slot;
	__u32 id;
	struct in6 from;
	struct in6 to;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 32768);
	__type(key, struct correspondent);
	__type(value, struct alias);
} fief_aliases SEC(".maps");

/* Twice as many: the daemon takes a number out some time after its alias, when no datagram is under way any more. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct answered);
} fief_answers SEC(".maps");

/* Slot -> how many aliases; slot 0: the number that was given last. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, __u64);
} fief_numbers SEC(".maps");

/* What was decided of a datagram's first fragment: a number, or 0 for the sender's own address. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 4096);
	__type(key, struct fragment);
	__type(value, __u64);
} fief_fragments SEC(".maps");

/* What a UDP socket is, to those who send to its port. */
#define NOBODY 0 /* not bound, or to an address of the host's */
#define PLAIN 1  /* for everybody, and does not ask which address was called */
#define OTHER 2  /* one that asks, a tenant's, or a connected one */

struct asking {
	__u8 asks;
	__u8 is_owned; /* a tenant's */
	__u8 counts_as;
	__u8 pad;
	__u16 port; /* in the host's order, where it counts */
	__u16 pad2;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct asking);
} fief_asking SEC(".maps");

/* Port -> its sockets, so that a datagram costs a look at its socket only where both kinds are. */
struct users {
	__u32 plain;
	__u32 other;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct users);
} fief_ports SEC(".maps");

/* Something for the daemon to wake up for: there are aliases again. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 4096);
} fief_news SEC(".maps");

static __always_inline struct in6 mapped(__be32 address)
{
	return (struct in6){ { 0, 0, bpf_htonl(0xffff), address } };
}

static __always_inline bool is_mapped(const struct in6 *a)
{
	return !a->w[0] && !a->w[1] && a->w[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_alias4(__be32 address)
{
	return (bpf_ntohl(address) & ~fief_alias_size) == fief_alias_base;
}

static __always_inline bool is_alias6(const struct in6 *a)
{
	return a->w[0] == fief_alias_net[0] && a->w[1] == fief_alias_net[1];
}

static __always_inline __be32 alias4(__u64 number)
{
	return bpf_htonl(fief_alias_base | (__u32)number);
}

static __always_inline struct in6 alias6(__u64 number)
{
	return (struct in6){ { fief_alias_net[0], fief_alias_net[1], bpf_htonl(number >> 32), bpf_htonl(number) } };
}

/* The alias of a number, in the correspondent's family. */
static __always_inline struct in6 alias_for(const struct in6 *remote, __u64 number)
{
	return is_mapped(remote) ? mapped(alias4(number)) : alias6(number);
}

/* The number of an alias; 0 if it is none. */
static __always_inline __u64 number_of(const struct in6 *a)
{
	if (is_mapped(a))
		return is_alias4(a->w[3]) ? bpf_ntohl(a->w[3]) & fief_alias_size : 0;
	return is_alias6(a) ? (__u64)bpf_ntohl(a->w[2]) << 32 | bpf_ntohl(a->w[3]) : 0;
}

static __always_inline void touch(__u64 *used, __u64 *ticks)
{
	__u64 now = bpf_jiffies64();

	if (now - *ticks > TICKS) {
		*ticks = now;
		*used = bpf_ktime_get_coarse_ns();
	}
}

static __always_inline __u64 next_number(const struct correspondent *who)
{
	struct answered answered = { .to = *who };
	__u32 last = 0;
	__u64 *given = bpf_map_lookup_elem(&fief_numbers, &last), number;

	if (!given)
		return 0;
	answered.used = bpf_ktime_get_coarse_ns();
	/* A number may still be in the table when the range has been through. */
#pragma unroll
	for (int i = 0; i < 4; i++) {
		number = (__sync_fetch_and_add(given, 1) & (fief_alias_size >> 1)) + 1;
		if (!bpf_map_update_elem(&fief_answers, &number, &answered, BPF_NOEXIST))
			return number;
	}
	return 0;
}

/* The number that stands for a correspondent; 0 if there is no room. */
static __always_inline __u64 number_for(const struct correspondent *who)
{
	struct alias *known = bpf_map_lookup_elem(&fief_aliases, who), fresh = {};
	__u64 *count, one = 1;
	__u32 slot = who->slot;

	if (known) {
		touch(&known->used, &known->ticks);
		return known->number;
	}
	count = bpf_map_lookup_elem(&fief_numbers, &slot);
	if (count && *count >= ALIASES_EACH)
		goto full;
	fresh.number = next_number(who);
	fresh.used = bpf_ktime_get_coarse_ns();
	if (!fresh.number)
		goto full;
	if (bpf_map_update_elem(&fief_aliases, who, &fresh, BPF_NOEXIST)) {
		bpf_map_delete_elem(&fief_answers, &fresh.number);
		/* Another processor was quicker, or there is no room. */
		known = bpf_map_lookup_elem(&fief_aliases, who);
		if (!known)
			goto full;
		return known->number;
	}
	if (count)
		__sync_fetch_and_add(count, 1);
	else
		bpf_map_update_elem(&fief_numbers, &slot, &one, BPF_NOEXIST);
	bpf_ringbuf_output(&fief_news, &slot, sizeof(slot), 0);
	return fresh.number;
full:
	COUNT(slot, drop_alias);
	return 0;
}

#endif
