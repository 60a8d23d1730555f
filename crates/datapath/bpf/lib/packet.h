/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reading packets. Everything is read relative to the network header, so that devices without an Ethernet header
 * (tun, wireguard) need no case of their own. */
#ifndef FIEF_PACKET_H
#define FIEF_PACKET_H

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/in.h>

#include <stdbool.h>
#include <stddef.h>

#include "abi.h"

/* enum tcx_action_base (linux/bpf.h of Linux 6.6); the headers of Debian 12 are older. */
#define TCX_NEXT (-1)
#define TCX_DROP 2

#define ICMP_REDIRECT 5
#define ND_REDIRECT 137

/* An ARP body for IPv4 over Ethernet (RFC 826). */
struct arp_body {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__be32 sender __attribute__((packed));
	__u8 target_mac[6];
	__be32 target __attribute__((packed));
} __attribute__((packed));

static __always_inline long read_net(struct __sk_buff *skb, __u32 offset, void *to, __u32 length)
{
	return bpf_skb_load_bytes_relative(skb, offset, to, length, BPF_HDR_START_NET);
}

/* The network header in place, of this length, where a frame has an Ethernet header that says what the stack thinks:
 * a helper for each packet costs more than all the rest of reading it. */
static __always_inline void *header_in_place(struct __sk_buff *skb, __u32 length)
{
	struct ethhdr *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) + length > (void *)(long)skb->data_end || frame->h_proto != skb->protocol)
		return 0;
	return is_device(skb->ifindex, FIEF_ETHERNET) ? frame + 1 : 0;
}

/* Typed, or the compiler would copy byte by byte. */
static __always_inline long read_ip4(struct __sk_buff *skb, struct iphdr *to)
{
	struct iphdr *ip = header_in_place(skb, sizeof(*ip));

	if (!ip)
		return read_net(skb, 0, to, sizeof(*to));
	*to = *ip;
	return 0;
}

static __always_inline long read_ip6(struct __sk_buff *skb, struct ipv6hdr *to)
{
	struct ipv6hdr *ip = header_in_place(skb, sizeof(*ip));

	if (!ip)
		return read_net(skb, 0, to, sizeof(*to));
	*to = *ip;
	return 0;
}

/* A frame for a VLAN goes on to that VLAN's own device, where it is looked at; tag 0 is only a priority. */
static __always_inline bool is_for_a_vlan(struct __sk_buff *skb)
{
	if (skb->vlan_present)
		return skb->vlan_tci & 0xfff;
	return skb->protocol == bpf_htons(ETH_P_8021Q) || skb->protocol == bpf_htons(ETH_P_8021AD);
}

static __always_inline bool is_redirect4(struct __sk_buff *skb, const struct iphdr *ip)
{
	__u8 type;

	if (ip->protocol != IPPROTO_ICMP || ip->frag_off & bpf_htons(0x1fff))
		return false;
	return !read_net(skb, ip->ihl * 4, &type, 1) && type == ICMP_REDIRECT;
}

/* The kernel takes a redirect behind extension headers too (net/ipv6/ndisc.c), so they are walked: four at most,
 * and a packet with more of them is treated as a redirect. */
static __always_inline bool is_redirect6(struct __sk_buff *skb, const struct ipv6hdr *ip)
{
	__u8 next = ip->nexthdr;
	__u32 offset = sizeof(*ip);

#pragma unroll
	for (int i = 0; i < 5; i++) {
		struct { __u8 next, length; } extension;
		__u8 type;

		switch (next) {
		case IPPROTO_ICMPV6:
			return !read_net(skb, offset, &type, 1) && type == ND_REDIRECT;
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if (read_net(skb, offset, &extension, sizeof(extension)))
				return false;
			next = extension.next;
			offset += (extension.length + 1) * 8;
			break;
		default:
			/* A fragmented redirect is refused by the kernel (RFC 6980). */
			return false;
		}
	}
	return true;
}

static __always_inline bool is_unicast6(const struct in6 *a)
{
	__u32 top = bpf_ntohl(a->w[0]);

	return top >> 24 != 0xff && (top & 0xffc00000) != 0xfe800000;
}

#endif
