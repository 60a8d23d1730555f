/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The maps of the overlay's programs. src/overlay/maps.rs says the same in Rust; both change together. Another text
 * means other maps. */

#pragma once

/* Goodbyes of one peer that come closer together are forged: who has gone has no more to say. */
#define GOODBYES_APART (10 * 1000000000ULL)
/* How often an entry in use is renewed. */
#define REFRESH 1000000000ULL
/* Ports of a segment on one host, and peers of the configuration. */
#define MEMBERS 64
#define PEERS 256
/* Ethernet addresses of all segments together. */
#define STATIONS 262144
/* Among so many slots a new address has its choice. */
#define WAYS 4

/* IPv4 as ::ffff:0:0/96. */
struct address {
	__be32 words[4];
};

/* The one element of fief_ov_settings. */
struct settings {
	struct address own4;    /* addresses of the underlay's device */
	struct address own6;
	struct address alias4;  /* whose sockets and tunnel of this host are to each other */
	struct address alias6;
	__u32 vxlan4;           /* numbers in the namespace of the overlay */
	__u32 vxlan6;
	__u32 gate_inside;      /* the gate's, if there is one */
	__u32 gate;             /* its other end, in the namespace of the underlay */
	__u32 card;             /* the underlay's device, there, */
	__u32 mtu;              /* and what passes it in one piece */
	__be16 port;            /* of groups */
	__be16 own_port4;       /* of the vxlan device of IPv4 */
	__be16 own_port6;
	__be16 dual_port;       /* own_port6 of a host that sends by IPv4 too */
	__u8 mac[6];            /* of the underlay's device */
	__u8 ttl;
	__u8 pad;
};

/* What a port, by its number, is for. */
struct port {
	__u32 vni;
	__u32 macs;             /* how many addresses behind it are remembered */
	__u64 interval;         /* nanoseconds that a frame to everybody costs */
	__u64 burst;            /* and how far ahead of the time it may get */
	__u64 next;
	__u64 flooded;
	__u64 limited;
	__u64 last_seen;        /* when its last address was learned, and which that was */
	__u8 last_mac[6];
	__u16 pad;
};

#define SEGMENT_GROUP4 1
#define SEGMENT_GROUP6 2

struct segment {
	__u32 flags;
	__u32 macs;             /* of other hosts */
	struct address group4;
	struct address group6;
	__u32 count;
	__u32 members[MEMBERS];
	__u32 pad;
	__u64 last_seen;        /* when its last address was learned, which that was, and of whom */
	__u8 last_mac[6];
	__be16 last_port;
	struct address last_address;
};

struct station {
	__u32 vni;
	__u8 mac[6];
	__u16 pad;
};

/* Where a station is: at a port, or behind a peer. */
struct place {
	__u64 seen;
	__u32 device;
	__be16 port;
	__u16 is_sure;          /* that it is the port where the peer hears */
	struct address address;
};

/* Owners are ports by their number, and with this bit all peers of a segment. */
#define REMOTE 0x80000000U

struct slot_key {
	__u32 owner;
	__u32 slot;
};

/* An Ethernet address as one word, so that one of several processors wins the slot. */
struct slot {
	__u64 mac;
};

struct endpoint {
	__u32 vni;
	__be16 port;
	__u16 pad;
	struct address address;
};

struct peer {
	struct address address;
	__be16 port;
	__u16 pad;
};

/* From Ethernet's header to UDP's. The number that IP's packets are told apart by comes first, so that all lie even. */
struct headers {
	__u16 id;
	struct ethhdr ethernet;
	struct iphdr ip;
	struct udphdr udp;
};

/* How the kernel sends to a peer. */
struct way {
	__u64 seen;
	struct headers headers;
	__u32 pad;
};

#define COUNT_MALFORMED 0
#define COUNT_EVICTED 1
#define COUNT_GOODBYES 2
#define COUNT_IGNORED 3
#define COUNTS 4

/* A datagram of UDP at the underlay. */
struct datagram {
	struct address source;
	struct address destination;
	__u32 udp;              /* where its header is */
	__u32 length;
	__be16 from;
	__be16 to;
	__u16 sum;
	bool is_v4;
	bool is_first;          /* the first fragment, or whole */
	bool is_plain;          /* whole, of IPv4 without options */
};

#define FIEF_OV_MAP(type_, name, key_, value_, most, flags)                                                           \
	struct {                                                                                                       \
		__uint(type, type_);                                                                                   \
		__uint(max_entries, most);                                                                             \
		__type(key, key_);                                                                                     \
		__type(value, value_);                                                                                 \
		__uint(map_flags, flags);                                                                              \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                                                   \
	} name SEC(".maps")

FIEF_OV_MAP(BPF_MAP_TYPE_ARRAY, fief_ov_settings, __u32, struct settings, 1, 0);
FIEF_OV_MAP(BPF_MAP_TYPE_HASH, fief_ov_groups, struct address, __u32, 4096, BPF_F_NO_PREALLOC);
FIEF_OV_MAP(BPF_MAP_TYPE_HASH, fief_ov_ports, __u32, struct port, 4096, BPF_F_NO_PREALLOC);
FIEF_OV_MAP(BPF_MAP_TYPE_HASH, fief_ov_segments, __u32, struct segment, 4096, BPF_F_NO_PREALLOC);
FIEF_OV_MAP(BPF_MAP_TYPE_HASH, fief_ov_stations, struct station, struct place, STATIONS, BPF_F_NO_PREALLOC);
FIEF_OV_MAP(BPF_MAP_TYPE_HASH, fief_ov_slots, struct slot_key, struct slot, STATIONS, BPF_F_NO_PREALLOC);
FIEF_OV_MAP(BPF_MAP_TYPE_LRU_HASH, fief_ov_gone, struct endpoint, __u64, 4096, 0);
FIEF_OV_MAP(BPF_MAP_TYPE_LRU_HASH, fief_ov_sure, struct endpoint, __u32, 16384, 0);
FIEF_OV_MAP(BPF_MAP_TYPE_LRU_HASH, fief_ov_ways, __be32, struct way, 4096, 0);
FIEF_OV_MAP(BPF_MAP_TYPE_LRU_HASH, fief_ov_let_in, __be32, __u64, 4096, 0);
FIEF_OV_MAP(BPF_MAP_TYPE_ARRAY, fief_ov_last, __u32, __u64, 1, 0);
FIEF_OV_MAP(BPF_MAP_TYPE_ARRAY, fief_ov_peers, __u32, struct peer, PEERS, 0);
FIEF_OV_MAP(BPF_MAP_TYPE_PERCPU_ARRAY, fief_ov_counts, __u32, __u64, COUNTS, 0);
