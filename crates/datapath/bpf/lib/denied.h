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

#endif
