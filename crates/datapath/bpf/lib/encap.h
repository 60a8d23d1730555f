/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The short way out: a frame is packed at its port and leaves through the gate, as decap.h has it for the way in.
 *
 * The headers before it are those of the last datagram that the kernel itself has sent to this peer: at the underlay's device
 * they are noted, and they count for a second. So one frame a second goes the long way, and routes, neighbours and what the
 * host's filters say of it are the kernel's to know and no older than that. What it does not send, or cuts up, or sends by
 * another device, is never noted. */
#ifndef FIEF_ENCAP_H
#define FIEF_ENCAP_H

#include "plain.h"
#include "stations.h"

/* What the program at the outer end of the gate wants to see. */
#define OUTWARD 1

/* Bytes of IP that a frame's packets have when the card has cut them up (TCP), or it itself. None if that cannot be told. */
static __always_inline __u32 largest_packet(struct __sk_buff *skb)
{
	const void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct ethhdr *ethernet = data;
	const struct iphdr *ip = data + ETH_HLEN;
	const struct tcphdr *tcp;
	__u32 length;

	if (!skb->gso_size)
		return skb->len - ETH_HLEN;
	if ((void *)(ip + 1) > end)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		length = (*(const __u8 *)ip & 0xf) * 4;
		if (ip->protocol != IPPROTO_TCP)
			return 0;
	} else {
		length = sizeof(struct ipv6hdr);
		if (((const __u8 *)ip)[offsetof(struct ipv6hdr, nexthdr)] != IPPROTO_TCP)
			return 0;
	}
	tcp = data + ETH_HLEN + length;
	if ((void *)(tcp + 1) > end)
		return 0;
	return length + tcp->doff * 4 + skb->gso_size;
}

/* Notes the headers of a datagram of ours that the kernel sends: what there is has been routed, and is whole. */
static __always_inline void note_way(struct __sk_buff *skb, __be32 to)
{
	struct way *way = bpf_map_lookup_elem(&fief_ov_ways, &to), new = {};
	__u64 now = bpf_ktime_get_coarse_ns();

	if (way && now - way->seen < REFRESH)
		return;
	if (bpf_skb_load_bytes(skb, 0, &new.headers.ethernet, AT_VXLAN))
		return;
	new.headers.id = way ? way->headers.id : bpf_get_prandom_u32();
	new.seen = now;
	bpf_map_update_elem(&fief_ov_ways, &to, &new, BPF_ANY);
}

/* Is this, on its way out, a frame that was packed at its port? Nothing is left to do with it; the kernel's own have a port to
 * be changed into (tc_index), or had one in the piece before. */
static __always_inline bool is_packed(struct __sk_buff *skb, const struct settings *settings)
{
	const void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const struct ethhdr *ethernet = data;
	const struct iphdr *ip = data + AT_IP;
	const struct udphdr *udp = data + AT_UDP;

	return !skb->tc_index && data + AT_VXLAN <= end && ethernet->h_proto == bpf_htons(ETH_P_IP) &&
	       *(const __u8 *)ip == 0x45 && ip->protocol == IPPROTO_UDP && !(ip->frag_off & bpf_htons(0x3fff)) &&
	       udp->source == settings->own_port4 && (*(const __u8 *)&ip->daddr & 0xf0) != 0xe0;
}

/* Packs a frame for this peer, and gives whether it did. */
static __always_inline bool pack(struct __sk_buff *skb, const struct settings *settings, __u32 vni,
				 const struct ethhdr *frame, __be32 to, __be16 port, __u64 now)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 |
		      BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN);
	struct {
		struct headers outer;
		__be32 vxlan[2];
		struct ethhdr frame;
	} packed;
	struct iphdr *ip = &packed.outer.ip;
	struct udphdr *udp = &packed.outer.udp;
	__u32 length, largest;
	struct way *way;

	if (!settings->gate_inside || skb->vlan_present ||
	    (frame->h_proto != bpf_htons(ETH_P_IP) && frame->h_proto != bpf_htons(ETH_P_IPV6)))
		return false;
	way = bpf_map_lookup_elem(&fief_ov_ways, &to);
	if (!way || (now - way->seen > REFRESH && !is_off(TOOTH_FILTER)))
		return false;
	largest = largest_packet(skb);
	if (!largest || largest + PACKING > settings->mtu)
		return false;
	length = skb->len + PACKING - ETH_HLEN;
	packed.outer = way->headers;
	ip->tot_len = bpf_htons(length);
	/* Packets that a router cuts up are told apart by it (RFC 6864); two processors may give the same one. */
	ip->id = bpf_htons(++way->headers.id);
	ip->check = 0;
	ip->check = ~ip_sum(ip);
	udp->dest = port;
	udp->len = bpf_htons(length - sizeof(*ip));
	udp->check = 0;
	packed.vxlan[0] = bpf_htonl(0x08000000);
	packed.vxlan[1] = bpf_htonl(vni << 8);
	packed.frame = *frame;
	if (bpf_skb_adjust_room(skb, PACKING, BPF_ADJ_ROOM_MAC, flags))
		return false;
	bpf_skb_store_bytes(skb, 0, &packed.outer.ethernet, AT_END, 0);
	skb->mark = OUTWARD;
	return true;
}

#endif
