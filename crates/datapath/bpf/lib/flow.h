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
	__u32 slot;
	__u32 family;
	/* As they travel; of IPv4 the first word, the others zero. */
	__u32 source[4];
	__u32 destination[4];
	__u32 protocol;
	/* As the host has them; 0 where there are none. */
	__u16 source_port;
	__u16 port;
	__u8 icmp_type;
	__u8 hops;
	bool is_later_fragment;
};

static __always_inline bool read_transport(struct __sk_buff *skb, __u32 offset, struct flow *flow)
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
		if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
			return false;
		flow->source_port = bpf_ntohs(ports[0]);
		flow->port = bpf_ntohs(ports[1]);
		return true;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return !bpf_skb_load_bytes(skb, offset, &flow->icmp_type, 1);
	default:
		return true;
	}
}

static __always_inline bool read_flow4(struct __sk_buff *skb, struct flow *flow)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return false;
	flow->family = FAMILY_4;
	flow->source[0] = ip.saddr;
	flow->destination[0] = ip.daddr;
	flow->protocol = ip.protocol;
	flow->hops = ip.ttl;
	flow->is_later_fragment = ip.frag_off & bpf_htons(0x1fff);
	return read_transport(skb, ETH_HLEN + ip.ihl * 4, flow);
}

static __always_inline bool read_flow6(struct __sk_buff *skb, struct flow *flow)
{
	__u32 offset = ETH_HLEN + sizeof(struct ipv6hdr);
	struct fragment_header header;
	struct ipv6hdr ip;
	__u8 next;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 6)
		return false;
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
			return read_transport(skb, offset, flow);
		}
		if (bpf_skb_load_bytes(skb, offset, &header, sizeof(header)))
			return false;
		if (next == IPPROTO_FRAGMENT) {
			offset += sizeof(header);
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
