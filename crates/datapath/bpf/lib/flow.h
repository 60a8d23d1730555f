/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What policies and connection tracking must know of a packet. Nothing here asks a map. */
#ifndef FIEF_FLOW_H
#define FIEF_FLOW_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FAMILY_4 4
#define FAMILY_6 6
/* A packet with more extension headers than this is unreadable. */
#define EXTENSIONS 8

/* Where the next header of an IPv6 fragment stands, and its offset (RFC 8200, 4.5). */
struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset; /* in units of eight, above three bits of flags */
	__be32 id;
};

struct flow {
	__u32 family;
	/* As they travel; of IPv4 the first word, the others zero. */
	__u32 source[4];
	__u32 destination[4];
	__u32 protocol;
	/* Behind the headers of IP. */
	__u32 transport;
	__u32 identification; /* of fragments */
	/* As the host has them; 0 where there are none. */
	__u16 source_port;
	__u16 port;
	__be16 echo; /* which echo of ICMP a request or reply belongs to */
	__u8 icmp_type;
	__u8 turns; /* the flags of TCP */
	__u8 hops;
	bool is_fragment;
	bool is_later_fragment;
};

/* ICMP types (RFC 792, RFC 4443). */
#define ECHO_REPLY 0
#define ECHO 8
#define ECHO6 128
#define ECHO_REPLY6 129

static __always_inline bool is_icmp(const struct flow *flow)
{
	return flow->protocol == (flow->family == FAMILY_4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static __always_inline bool is_request(const struct flow *flow)
{
	return flow->icmp_type == (flow->family == FAMILY_4 ? ECHO : ECHO6);
}

static __always_inline bool is_reply(const struct flow *flow)
{
	return flow->icmp_type == (flow->family == FAMILY_4 ? ECHO_REPLY : ECHO_REPLY6);
}

static __always_inline bool read_transport(struct __sk_buff *skb, struct flow *flow)
{
	__be16 ports[2];

	/* Only the first fragment has the header. */
	if (flow->is_later_fragment)
		return true;
	switch (flow->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		/* A first fragment that ends before the ports is nothing that honest senders make (RFC 1858). */
		if (bpf_skb_load_bytes(skb, flow->transport, ports, sizeof(ports)))
			return false;
		flow->source_port = bpf_ntohs(ports[0]);
		flow->port = bpf_ntohs(ports[1]);
		/* Errors of ICMP quote less than this; what travels as such a fragment hides how it begins. */
		if (flow->protocol == IPPROTO_TCP &&
		    bpf_skb_load_bytes(skb, flow->transport + 13, &flow->turns, 1))
			return !flow->is_fragment;
		return true;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (bpf_skb_load_bytes(skb, flow->transport, &flow->icmp_type, 1))
			return false;
		if (is_icmp(flow) && (is_request(flow) || is_reply(flow)))
			bpf_skb_load_bytes(skb, flow->transport + 4, &flow->echo, sizeof(flow->echo));
		return true;
	default:
		return true;
	}
}

/* Functions with a name of their own are verified once, and not again wherever they are called: what is behind a
 * packet's headers would be multiplied with all the ways through them. They may be given no pointer at all. */
#define ONCE __attribute__((noinline))

/* The packet that begins at an offset. */
ONCE int read_flow4(struct __sk_buff *skb, __u32 offset, struct flow *flow)
{
	struct iphdr ip;

	if (!flow || bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return false;
	flow->family = FAMILY_4;
	flow->source[0] = ip.saddr;
	flow->destination[0] = ip.daddr;
	flow->protocol = ip.protocol;
	flow->hops = ip.ttl;
	flow->is_fragment = ip.frag_off & bpf_htons(0x3fff);
	flow->is_later_fragment = ip.frag_off & bpf_htons(0x1fff);
	flow->identification = ip.id;
	flow->transport = offset + ip.ihl * 4;
	return read_transport(skb, flow);
}

ONCE int read_flow6(struct __sk_buff *skb, __u32 offset, struct flow *flow)
{
	struct fragment_header header;
	struct ipv6hdr ip;
	__u8 next;

	if (!flow || bpf_skb_load_bytes(skb, offset, &ip, sizeof(ip)) || ip.version != 6)
		return false;
	offset += sizeof(ip);
	flow->family = FAMILY_6;
	__builtin_memcpy(flow->source, &ip.saddr, sizeof(flow->source));
	__builtin_memcpy(flow->destination, &ip.daddr, sizeof(flow->destination));
	flow->hops = ip.hop_limit;
	next = ip.nexthdr;
	for (int i = 0; i <= EXTENSIONS; i++) {
		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_AH:
		case IPPROTO_FRAGMENT:
			break;
		default:
			flow->protocol = next;
			flow->transport = offset;
			return read_transport(skb, flow);
		}
		if (bpf_skb_load_bytes(skb, offset, &header, sizeof(header)))
			return false;
		if (next == IPPROTO_FRAGMENT) {
			offset += sizeof(header);
			flow->is_fragment = header.offset & bpf_htons(0xfff9);
			flow->identification = header.id;
			/* What follows is the middle of something. */
			if (header.offset & bpf_htons(0xfff8)) {
				flow->protocol = header.next;
				flow->is_later_fragment = true;
				return true;
			}
		} else if (next == IPPROTO_AH) {
			/* In units of four, less two (RFC 4302, 2.2). */
			offset += (header.reserved + 2) * 4;
		} else {
			offset += (header.reserved + 1) * 8;
		}
		next = header.next;
	}
	return false;
}

#endif
