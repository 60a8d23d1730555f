/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The short way between the ports of a tenant's namespace, and its link; and on the host between the link and an uplink
 * (lib/host.h).
 *
 * A conversation's packets take the whole way first: bridge, port lock, netfilter, connection tracking, translation,
 * route, and the rules at both ports. Where one leaves, it is compared with what came in; what has changed in its headers
 * is remembered, and for a while those behind it are changed so and sent there at once. Once in that while one takes the
 * whole way again: what has a record keeps it, and what is no longer let through stops. A change of rules ends all ways
 * at once.
 *
 * Devices have one number each on the whole host (src/ports/numbers.rs): a program cannot tell network namespaces
 * apart. Uplinks have those that the host gave them, and a bit that says so. */
#ifndef FIEF_WAYS_H
#define FIEF_WAYS_H

#include <linux/if_packet.h>

#include "judge.h"

/* How many numbers a tenant has, which of them is a device's, and from where on they are TAP devices';
 * src/ports/numbers.rs has them too. */
#define EACH 4096
#define WITHIN 0xfff
#define FIRST_TAP 3072
/* The number is that of an uplink (ifindex is an int). */
#define UPLINK 0x80000000

/* How long packets follow one that took the whole way, in nanoseconds: less than any timeout of a conversation. */
#define A_WHILE 1000000000ULL
/* FIN, SYN and RST (RFC 9293): connection tracking is to see how a connection begins and ends. */
#define TURNS 0x07

/* tc_index of a packet on the short way. Above: who takes the whole way, to be known again where it leaves. 0: nobody's. */
#define SHORT 1

/* Where a packet set out. */
#define INSIDE 0
#define AT_LINK 1
#define AT_UPLINK 2

/* What all packets of one direction of a conversation have in common, where they come in. */
struct talk4 {
	__u32 device;
	__u8 macs[12];  /* destination, source */
	__be32 source;
	__be32 destination;
	__u32 ports;    /* source and destination */
	__u32 protocol; /* and above it the class of service (DSCP, RFC 2474): rules and routes may ask for it */
};

struct talk6 {
	__u32 device;
	__u8 macs[12];
	__u32 addresses[8];
	__u32 ports;
	__u32 protocol;
};

/* What they have in common where they leave. An element of such a map may be given to another conversation while it is
 * read (bpf_lru_push_free); so it says whose it is, and that is looked at when all else has been read. */
struct way4 {
	struct talk4 begin;
	struct talk4 end;
	__u64 since;    /* when one of them took the whole way, */
	__u64 stamp;    /* and the rules that let it pass */
	__u32 hops;
	__u32 length;   /* how long it was, */
	__u32 mark;     /* and what the whole way had written beside it */
	__u32 priority;
};

struct way6 {
	struct talk6 begin;
	__u32 device;
	__u8 macs[12];
	__u64 since;
	__u64 stamp;
	__u64 hops;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct talk4);
	__type(value, struct way4);
} fief_ways4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct talk6);
	__type(value, struct way6);
} fief_ways6 SEC(".maps");

/* What tells a packet from others of its conversation, and is never translated. */
struct packet {
	__u32 length;   /* with the identification of IPv4, or the flow label of IPv6 */
	__u32 sequence; /* of TCP; of UDP the length */
	__u32 hops;
	__u32 carried;  /* bytes of IP in one piece */
	bool turns;     /* TCP begins or ends */
};

/* Who is on the whole way just now. A processor carries one packet from a device to the next before it takes another;
 * where it does not, token and packet do not fit, and nothing is learned. */
struct traveller {
	__u32 token;
	__u8 place;
	bool is_short;  /* it is on the short way, and nobody has anything to learn from it */
	struct packet packet;
	__u64 stamp;
	union {
		struct talk4 v4;
		struct talk6 v6;
	};
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct traveller);
} fief_travellers SEC(".maps");

/* The ports, and the length of the header. */
static __always_inline bool transport(void *at, void *end, __u32 protocol, __u32 *ports, struct packet *packet)
{
	__u8 *bytes = at;

	if (protocol == IPPROTO_UDP) {
		if (at + 8 > end)
			return false;
		packet->sequence = *(__u16 *)(at + 4);
		packet->carried = 8;
	} else if (protocol == IPPROTO_TCP) {
		if (at + 20 > end)
			return false;
		packet->sequence = *(__u32 *)(at + 4);
		packet->turns = bytes[13] & TURNS;
		packet->carried = bytes[12] >> 4 << 2;
	} else {
		return false;
	}
	*ports = *(__u32 *)at;
	return true;
}

static __always_inline bool is_group(const struct ethhdr *frame)
{
	return frame->h_dest[0] & 1;
}

static __always_inline bool read4(struct __sk_buff *skb, __u32 device, struct talk4 *talk, struct packet *packet)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *frame = (void *)(long)skb->data;
	struct iphdr *ip = (void *)(frame + 1);

	if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff) || is_group(frame))
		return false;
	talk->device = device;
	__builtin_memcpy(talk->macs, frame, sizeof(talk->macs));
	talk->source = ip->saddr;
	talk->destination = ip->daddr;
	talk->protocol = ip->protocol | (ip->tos & 0xfc) << 8;
	packet->length = (__u32)ip->tot_len << 16 | ip->id;
	packet->hops = ip->ttl;
	if (!transport(ip + 1, end, ip->protocol, &talk->ports, packet))
		return false;
	packet->carried = skb->gso_size ? sizeof(*ip) + packet->carried + skb->gso_size : bpf_ntohs(ip->tot_len);
	return true;
}

static __always_inline bool read6(struct __sk_buff *skb, struct talk6 *talk, struct packet *packet)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *frame = (void *)(long)skb->data;
	struct ipv6hdr *ip = (void *)(frame + 1);

	if ((void *)(ip + 1) > end || is_group(frame))
		return false;
	talk->device = skb->ifindex;
	__builtin_memcpy(talk->macs, frame, sizeof(talk->macs));
	__builtin_memcpy(talk->addresses, &ip->saddr, sizeof(talk->addresses));
	talk->protocol = ip->nexthdr;
	packet->length = (__u32)ip->payload_len << 16 | ip->flow_lbl[2] << 8 | ip->flow_lbl[1];
	packet->hops = ip->hop_limit;
	return transport(ip + 1, end, ip->nexthdr, &talk->ports, packet);
}

/* The sum of a header in which a 32-bit word changes (RFC 1624). */
static __always_inline __sum16 changed(__sum16 sum, __be32 from, __be32 to)
{
	__u32 total = (__u16)~sum;

	total += (__u16)~from + (__u32)(__u16)~(from >> 16) + (__u16)to + (to >> 16);
	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	return ~total;
}

/* Sends it there, as if it had just come from the other end where that is a pair of veth devices. */
static __always_inline int send(struct __sk_buff *skb, __u32 device)
{
	if (device & UPLINK)
		return bpf_redirect(device & ~UPLINK, 0);
	if ((device & WITHIN) >= FIRST_TAP) {
		skb->tc_index = SHORT;
		return bpf_redirect(device, 0);
	}
	bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect_peer(device, 0);
}

static __always_inline bool fits(struct __sk_buff *skb, __u32 device)
{
	__u32 length = 0;

	return !bpf_check_mtu(skb, device & ~UPLINK, &length, 0, BPF_MTU_CHK_SEGS);
}

static __always_inline long replace(struct __sk_buff *skb, __u32 protocol, __u32 from, __u32 to, __u64 flags)
{
	const __u32 transport = ETH_HLEN + sizeof(struct iphdr);

	if (from == to)
		return 0;
	/* The sum of TCP and that of UDP, where a zero means that there is none. */
	if ((protocol & 0xff) == IPPROTO_TCP)
		return bpf_l4_csum_replace(skb, transport + 16, from, to, flags | 4);
	return bpf_l4_csum_replace(skb, transport + 6, from, to, flags | BPF_F_MARK_MANGLED_0 | 4);
}

static __always_inline int follow4(struct __sk_buff *skb, const struct talk4 *talk, const struct way4 *way)
{
	const struct talk4 *to = &way->end;
	struct ethhdr *frame;
	struct iphdr *ip;
	__be32 from, hops;

	if (replace(skb, talk->protocol, talk->source, to->source, BPF_F_PSEUDO_HDR) ||
	    replace(skb, talk->protocol, talk->destination, to->destination, BPF_F_PSEUDO_HDR) ||
	    replace(skb, talk->protocol, talk->ports, to->ports, 0))
		return TC_ACT_SHOT;
	frame = (void *)(long)skb->data;
	ip = (void *)(frame + 1);
	if ((void *)ip + sizeof(*ip) + 4 > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	__builtin_memcpy(frame, to->macs, sizeof(to->macs));
	ip->check = changed(changed(ip->check, talk->source, to->source), talk->destination, to->destination);
	ip->saddr = to->source;
	ip->daddr = to->destination;
	*(__u32 *)(ip + 1) = to->ports;
	/* Time to live and protocol are one word of the header, with its sum. */
	from = bpf_htonl(ip->ttl << 24);
	ip->ttl -= way->hops;
	hops = bpf_htonl(ip->ttl << 24);
	ip->check = changed(ip->check, from, hops);
	return send(skb, to->device);
}

/* The rules that count where a device is. */
static __always_inline __u64 stamp_at(__u32 device)
{
	return fief_judges ? stamp_of(device / EACH - 1) : 0;
}

/* Has one taken the whole way a while ago, by the rules that count now? */
static __always_inline bool is_fresh(__u64 since, __u64 stamp, __u64 now)
{
	return bpf_ktime_get_coarse_ns() - since <= A_WHILE && (stamp == now || fief_teeth & TOOTH_WAYS);
}

/* The whole way, to be known again where it leaves. */
static __always_inline struct traveller *set_out(struct __sk_buff *skb, __u8 place, const struct packet *packet,
							__u64 stamp)
{
	__u32 here = 0;
	struct traveller *traveller = bpf_map_lookup_elem(&fief_travellers, &here);

	if (!traveller)
		return 0;
	traveller->token = traveller->token + 1 & 0xffff;
	if (traveller->token <= SHORT)
		traveller->token = SHORT + 1;
	traveller->place = place;
	traveller->is_short = false;
	traveller->packet = *packet;
	traveller->stamp = stamp;
	skb->tc_index = traveller->token;
	return traveller;
}

static __always_inline struct traveller *arrived(struct __sk_buff *skb)
{
	__u32 here = 0;
	struct traveller *traveller;

	if (skb->tc_index <= SHORT || skb->vlan_present)
		return 0;
	traveller = bpf_map_lookup_elem(&fief_travellers, &here);
	return traveller && traveller->token == skb->tc_index ? traveller : 0;
}

static __always_inline bool is_same(const struct packet *a, const struct packet *b)
{
	return a->length == b->length && a->sequence == b->sequence && a->hops - b->hops <= 1;
}

static __always_inline bool is_untranslated(const struct talk6 *a, const struct talk6 *b)
{
	__u32 differs = (a->ports ^ b->ports) | (a->protocol ^ b->protocol);

	for (int i = 0; i < 8; i++)
		differs |= a->addresses[i] ^ b->addresses[i];
	return !differs;
}

/* Is a way known for what was read, one that it may take? */
static __always_inline bool way_of(struct __sk_buff *skb, const struct talk4 *talk, const struct packet *packet,
				   __u64 stamp, struct way4 *way)
{
	struct way4 *there;

	if (packet->turns)
		return false;
	there = bpf_map_lookup_elem(&fief_ways4, talk);
	if (!there)
		return false;
	*way = *there;
	return is_still(talk, &there->begin, sizeof(*talk)) && is_fresh(way->since, way->stamp, stamp) &&
	       packet->hops > 1 && (!way->hops || fits(skb, way->end.device));
}

static __always_inline int short4(struct __sk_buff *skb, __u64 stamp)
{
	struct talk4 talk = {};
	struct packet packet = {};
	struct way4 way;

	if (!read4(skb, skb->ifindex, &talk, &packet) || !way_of(skb, &talk, &packet, stamp, &way))
		return TC_ACT_UNSPEC;
	return follow4(skb, &talk, &way);
}

static __always_inline int short6(struct __sk_buff *skb, __u64 stamp)
{
	struct talk6 talk = {};
	struct packet packet = {};
	struct ethhdr *frame;
	struct ipv6hdr *ip;
	struct way6 *there, way;

	if (!read6(skb, &talk, &packet) || packet.turns)
		return TC_ACT_UNSPEC;
	there = bpf_map_lookup_elem(&fief_ways6, &talk);
	if (!there)
		return TC_ACT_UNSPEC;
	way = *there;
	if (!is_still(&talk, &there->begin, sizeof(talk)) || !is_fresh(way.since, way.stamp, stamp) ||
	    packet.hops <= 1 || (way.hops && !fits(skb, way.device)))
		return TC_ACT_UNSPEC;
	frame = (void *)(long)skb->data;
	ip = (void *)(frame + 1);
	if ((void *)(ip + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	__builtin_memcpy(frame, way.macs, sizeof(way.macs));
	ip->hop_limit -= way.hops;
	return send(skb, way.device);
}

/* The short way, if one is known: TC_ACT_UNSPEC otherwise. */
static __noinline int take_short_way(struct __sk_buff *skb, __u64 stamp)
{
	/* A workload that passes packets on may have left one. */
	skb->tc_index = 0;
	if (skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return short4(skb, stamp);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return short6(skb, stamp);
	return TC_ACT_UNSPEC;
}

/* The whole way, by rules that counted before the packet was judged. */
static __noinline int take_whole_way(struct __sk_buff *skb, __u64 stamp)
{
	struct packet packet = {};
	struct traveller *traveller;

	if (skb->vlan_present)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct talk4 talk = {};

		if (read4(skb, skb->ifindex, &talk, &packet) && !packet.turns &&
		    (traveller = set_out(skb, INSIDE, &packet, stamp)))
			traveller->v4 = talk;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct talk6 talk = {};

		if (read6(skb, &talk, &packet) && !packet.turns &&
		    (traveller = set_out(skb, INSIDE, &packet, stamp)))
			traveller->v6 = talk;
	}
	return 0;
}

/* Remembers the way of one that has arrived. */
static __noinline int learn_way(struct __sk_buff *skb)
{
	struct traveller *traveller = arrived(skb);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct packet packet = {};

	/* What is behind this device has other uses for it, and a packet may go round again. */
	skb->tc_index = 0;
	if (!traveller || traveller->place != INSIDE)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct way4 way = { .begin = traveller->v4, .since = now, .stamp = traveller->stamp };

		if (!read4(skb, skb->ifindex, &way.end, &packet) || !is_same(&traveller->packet, &packet) ||
		    traveller->v4.protocol != way.end.protocol)
			return 0;
		way.hops = traveller->packet.hops - packet.hops;
		bpf_map_update_elem(&fief_ways4, &way.begin, &way, BPF_ANY);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct talk6 end = {};
		struct way6 way = { .begin = traveller->v6, .since = now, .stamp = traveller->stamp };

		/* Addresses of IPv6 are not translated; what is, by somebody else, takes the whole way. */
		if (!read6(skb, &end, &packet) || !is_same(&traveller->packet, &packet) ||
		    !is_untranslated(&traveller->v6, &end))
			return 0;
		way.device = end.device;
		__builtin_memcpy(way.macs, end.macs, sizeof(way.macs));
		way.hops = traveller->packet.hops - packet.hops;
		bpf_map_update_elem(&fief_ways6, &way.begin, &way, BPF_ANY);
	}
	return 0;
}

#endif
