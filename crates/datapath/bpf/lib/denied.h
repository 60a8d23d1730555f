/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What was not let through, and why: a record for each kind of packet, with how many there were. Bounded, and each port
 * has so many new records in a second; the rest are counted. Nobody is woken. The Rust side is src/ports/entries.rs. */
#ifndef FIEF_DENIED_H
#define FIEF_DENIED_H

#include "track.h"

#define NEW_IN_A_SECOND 32

enum reason {
	DENIED_BY_RULE,
	DENIED_UNKNOWN,    /* whose the port is is not known, or a table lacks what another one names */
	DENIED_UNREADABLE, /* neither IP nor ARP, a VLAN's tag, or cut off */
	DENIED_LIE,        /* it says that it is somebody else: guarded.h */
	ONLY_AUDITED,      /* a rule forbids it and it passed */
};

struct denied {
	__u32 device;
	__u8 direction;
	__u8 reason;
	__u8 protocol;
	__u8 family;
	__u32 own[4];
	__u32 other[4];
	__u16 port;
	__u16 reserved;
	__u32 rule;
};

struct denials {
	__u64 count;
	__u64 first; /* coarse time since boot, in nanoseconds */
	__u64 last;
	__u32 slot;
	__u32 subject;
	__u32 peer;
	__u32 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct denied);
	__type(value, struct denials);
} fief_denied SEC(".maps");

static __always_inline void deny(const struct port *port, const struct flow *flow, int direction, __u8 reason,
				 const struct policy_result *result, __u64 now, struct denied *key, struct denials *value)
{
	bool sends = direction == POLICY_EGRESS;
	__u32 second = now / SECOND, device = port->device;
	struct denials *known;
	struct usage *usage;

	key->device = port->device;
	key->direction = direction;
	key->reason = reason;
	key->protocol = flow->protocol;
	key->family = flow->family;
	__builtin_memcpy(key->own, sends ? flow->source : flow->destination, sizeof(key->own));
	__builtin_memcpy(key->other, sends ? flow->destination : flow->source, sizeof(key->other));
	key->port = is_icmp(flow) ? flow->icmp_type : flow->port;
	key->reserved = 0;
	key->rule = reason == DENIED_BY_RULE || reason == ONLY_AUDITED ? result->rule : 0;
	known = bpf_map_lookup_elem(&fief_denied, key);
	if (known) {
		__sync_fetch_and_add(&known->count, 1);
		known->last = now;
		return;
	}
	usage = bpf_map_lookup_elem(&fief_usage, &device);
	if (!usage)
		return;
	if (usage->second != second) {
		usage->second = second;
		usage->new = 0;
	}
	if (usage->new >= NEW_IN_A_SECOND) {
		__sync_fetch_and_add(&usage->unlisted, 1);
		return;
	}
	usage->new++;
	value->count = 1;
	value->first = now;
	value->last = now;
	value->slot = port->slot;
	value->subject = result->subject;
	value->peer = result->peer;
	value->reserved = 0;
	bpf_map_update_elem(&fief_denied, key, value, BPF_NOEXIST);
}

#endif
