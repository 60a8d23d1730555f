/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the guard of segments' sockets knows: whose a socket is, who was heard, what was refused. The Rust side is
 * src/segment.rs; both change together. */
#ifndef FIEF_SEGMENT_H
#define FIEF_SEGMENT_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Which rules are off. Always 0, but for the builds of scripts/test-teeth.sh. Bit n - 1 is attack n of docs/overlay.md. */
const volatile __u32 segment_teeth = 0;
#define OFF(attack) (segment_teeth & (1u << ((attack)-1)))

#define ALLOW 1
#define REFUSE 0
/* Of a packet that leaves: lost, as in a full queue (NET_XMIT_DROP), which is no error for who sends. */
#define LOSE 2

#define LOOPBACK 1          /* the index of `lo` in every network namespace */
#define HEADER_SIZE 8
#define A_SECOND 1000000000ULL
/* A peer that was silent for so long is none: longer than anybody remembers an Ethernet address. */
#define SILENCE (600 * A_SECOND)

/* Whose a socket is. Written once, by the daemon (src/segment.rs), but for `left` and what is behind it; addresses and ports as they stand in
 * packets. */
struct segment {
	__u32 header[2];  /* what stands before every frame */
	__u32 group[4];   /* the multicast group; IPv4's in the first */
	__u32 own[4];     /* the address it is bound to */
	__u16 group_port;
	__u16 own_port;
	__u32 device;
	__u8 family;      /* 4 or 6 */
	__u8 most_hops;
	__u8 mute;        /* the group's socket only hears */
	__u8 locked;
	__u32 gated;      /* is there a gate at the device (segment_gate)? */
	__u32 rate;       /* datagrams a second to the group */
	__u32 left;       /* so many now */
	__u32 pad;
	__u64 counted;    /* up to this time */
	__u64 asked;      /* the peer of IPv4 who was looked for last, and found: address, port, about when */
	__u64 asked_at;   /* and when */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct segment);
} segment_socks SEC(".maps");

/* Guarded sockets are claimed: a socket in such a map has its sk_user_data taken (sk_psock_init in net/core/skmsg.c), and what
 * else in the kernel would drive a UDP socket given by its descriptor, past all programs here, finds it taken: GTP, L2TP and
 * OpenVPN answer EBUSY. A socket leaves the map when it is closed. No program uses the map; src/segment.rs ties it to one. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, __u64);   /* its cookie */
	__type(value, __u64); /* its descriptor, in whoever puts it in */
} segment_claimed SEC(".maps");

/* Who has sent something of a segment, and when he was last heard: he may be answered. */
struct peer {
	__u32 vni;        /* the header's second half */
	__u16 family;
	__u16 port;
	__u32 address[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct peer);
	__type(value, __u64);
} segment_peers SEC(".maps");

/* What was refused, by reason; src/segment.rs has the names. */
enum reason {
	NOT_LOCKED,
	FOREIGN_OUT,      /* another header, or none */
	FOREIGN_IN,
	NOT_A_PEER,       /* to nobody of the segment */
	WRONG_PACKET,     /* hops, IP options, source, device */
	TOO_CLEVER,       /* to be cut up where nobody looks, or a header that could change after it was looked at */
	OPTION,
	REBOUND,
	TOO_MANY,         /* to the group in a second */
	REASONS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} segment_refused SEC(".maps");

/* Each reason is told once; then it is only counted. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32);
	__type(value, __u64);
} segment_told SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} segment_news SEC(".maps");

static __always_inline int refuse(const struct segment *segment, __u32 reason)
{
	__u64 *count = bpf_map_lookup_elem(&segment_refused, &reason);
	__u64 *told = bpf_map_lookup_elem(&segment_told, &reason);

	if (count)
		*count += 1;
	if (told && !*told && !__sync_lock_test_and_set(told, 1)) {
		__u32 news[2] = { reason, segment ? segment->header[1] : 0 };

		bpf_ringbuf_output(&segment_news, news, sizeof(news), 0);
	}
	return REFUSE;
}

static __always_inline struct segment *segment_of(struct bpf_sock *sk)
{
	struct segment *segment = sk ? bpf_sk_storage_get(&segment_socks, sk, 0, 0) : 0;

	return segment && segment->locked ? segment : 0;
}

/* Whose a socket is, where no storage says it: SO_PRIORITY, which nobody else than the daemon sets (segment_set), and which is
 * no queue's number, the lowest bits being 0 (sch_generic.c, sch_prio.c). Above the VNI's 24 bits: */
#define GATED 0xf0000000

/* The most that is cut out of one packet (UDP_MAX_SEGMENTS in linux/udp.h, and less in older kernels). */
#define MOST_CUT 128

/* Does each datagram of those that lie in a packet from `at` on, `size` bytes each, begin with this header? */
static __always_inline bool all_begin(struct __sk_buff *skb, __u32 at, __u32 size, const __u32 *header)
{
	__u32 found[2];

	for (int i = 0; i < MOST_CUT; i++) {
		if (at >= skb->len)
			return i > 0;
		if (bpf_skb_load_bytes(skb, at, found, HEADER_SIZE) || found[0] != header[0] || found[1] != header[1])
			return false;
		at += size;
	}
	return at >= skb->len;
}

static __always_inline bool same6(const __u32 *a, const __u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline bool is_multicast(const struct segment *segment, const __u32 *to)
{
	__u32 first = bpf_ntohl(to[0]);

	return segment->family == 4 ? first >> 28 == 0xe || first == 0xffffffff : first >> 24 == 0xff;
}

static __always_inline bool is_peer(const struct segment *segment, const __u32 *to, __u16 port)
{
	struct peer peer = {
		.vni = segment->header[1],
		.family = segment->family,
		.port = port,
		.address = { to[0], to[1], to[2], to[3] },
	};
	__u64 *heard = bpf_map_lookup_elem(&segment_peers, &peer);

	return heard && bpf_ktime_get_coarse_ns() - *heard < SILENCE;
}

static __always_inline bool may_be_sent_to(const struct segment *segment, const __u32 *to, __u16 port)
{
	if (port == segment->group_port && same6(to, segment->group))
		return true;
	if (is_multicast(segment, to))
		return OFF(2);
	return OFF(3) || is_peer(segment, to, port);
}

/* Who was looked for within this second is not looked for again: most datagrams are for whom the one before was for. The word is
 * whole, so that no processor sees one peer's address with another's port; the second word is behind it in time. */
static __always_inline bool may_be_asked(struct segment *segment, const __u32 *to, __u16 port)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 word = (__u64)to[0] << 32 | (__u64)port << 16 | (now >> 30 & 0xffff);

	if (segment->family != 4)
		return may_be_sent_to(segment, to, port);
	if (segment->asked == word && now - segment->asked_at < A_SECOND)
		return true;
	if (!may_be_sent_to(segment, to, port))
		return false;
	*(volatile __u64 *)&segment->asked = word;
	*(volatile __u64 *)&segment->asked_at = now;
	return true;
}

/* Everybody whom one may answer is heard of first. */
static __always_inline void learn(const struct segment *segment, const __u32 *from, __u16 port)
{
	struct peer peer = {
		.vni = segment->header[1],
		.family = segment->family,
		.port = port,
		.address = { from[0], from[1], from[2], from[3] },
	};
	__u64 now = bpf_ktime_get_coarse_ns();
	__u64 *heard = bpf_map_lookup_elem(&segment_peers, &peer);

	if (!heard)
		bpf_map_update_elem(&segment_peers, &peer, &now, BPF_ANY);
	else if (now - *heard > A_SECOND)
		*heard = now;
}

/* A second's worth at once, and then as many as a second has. Two processors that count at the same time may lose one. */
static __always_inline bool is_within_rate(struct segment *segment)
{
	__u64 now = bpf_ktime_get_ns(), since = now - segment->counted, more;

	if (since >= A_SECOND) {
		segment->left = segment->rate;
		segment->counted = now;
	} else {
		more = since * segment->rate / A_SECOND;
		if (more) {
			more += segment->left;
			segment->left = more < segment->rate ? more : segment->rate;
			segment->counted = now;
		}
	}
	if (!segment->left)
		return false;
	segment->left--;
	return true;
}

#endif
