/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Datagrams of the underlay: what they say, whose they are, and how they are led to the vxlan device or past it. */
#ifndef FIEF_UNDERLAY_H
#define FIEF_UNDERLAY_H

#include "stations.h"

/* Fills in what there is; false if it is no datagram of UDP, or lies in a VLAN of the device. */
static __always_inline bool read_datagram(struct __sk_buff *skb, struct datagram *d)
{
	struct udphdr udp;

	if (skb->vlan_present || skb->pkt_type == PACKET_LOOPBACK)
		return false;
	d->is_first = true;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP || ip.ihl < 5)
			return false;
		d->is_v4 = true;
		d->source.words[2] = d->destination.words[2] = bpf_htonl(0xffff);
		d->source.words[3] = ip.saddr;
		d->destination.words[3] = ip.daddr;
		d->is_first = !(ip.frag_off & bpf_htons(0x1fff));
		d->is_plain = !(ip.frag_off & bpf_htons(0x3fff)) && ip.ihl == 5;
		d->udp = ETH_HLEN + ip.ihl * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		__u8 next;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return false;
		__builtin_memcpy(&d->source, &ip.saddr, sizeof(d->source));
		__builtin_memcpy(&d->destination, &ip.daddr, sizeof(d->destination));
		d->udp = ETH_HLEN + sizeof(ip);
		next = ip.nexthdr;
		if (next == IPPROTO_FRAGMENT) {
			__u8 fragment[8];

			if (bpf_skb_load_bytes(skb, d->udp, fragment, sizeof(fragment)))
				return false;
			next = fragment[0];
			d->is_first = !(fragment[2] || fragment[3] & 0xf8);
			d->udp += sizeof(fragment);
		}
		if (next != IPPROTO_UDP)
			return false;
	} else {
		return false;
	}
	if (!d->is_first)
		return true;
	if (bpf_skb_load_bytes(skb, d->udp, &udp, sizeof(udp)))
		return false;
	d->from = udp.source;
	d->to = udp.dest;
	d->length = bpf_ntohs(udp.len);
	d->sum = udp.check;
	return true;
}

static __always_inline void set_port(struct __sk_buff *skb, struct datagram *d, __be16 port)
{
	if (d->to == port)
		return;
	if (d->sum)
		bpf_l4_csum_replace(skb, d->udp + offsetof(struct udphdr, check), d->to, port,
				    BPF_F_MARK_MANGLED_0 | sizeof(port));
	bpf_skb_store_bytes(skb, d->udp + offsetof(struct udphdr, dest), &port, sizeof(port), 0);
	d->to = port;
}

/* Puts another address in the place of one; `at` is the last of its words for IPv4, its first for IPv6. */
static __always_inline void set_address(struct __sk_buff *skb, const struct datagram *d, __u32 at4, __u32 at6,
					struct address *from, const struct address *to)
{
	__s64 change = bpf_csum_diff((__be32 *)from->words, sizeof(*from), (__be32 *)to->words, sizeof(*to), 0);

	if (d->is_first && d->sum)
		bpf_l4_csum_replace(skb, d->udp + offsetof(struct udphdr, check), 0, change,
				    BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
	if (d->is_v4) {
		bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), 0, change, 0);
		bpf_skb_store_bytes(skb, ETH_HLEN + at4, &to->words[3], 4, 0);
	} else {
		bpf_skb_store_bytes(skb, ETH_HLEN + at6, to->words, sizeof(*to), 0);
	}
	*from = *to;
}

static __always_inline void set_source(struct __sk_buff *skb, struct datagram *d, const struct address *to)
{
	set_address(skb, d, offsetof(struct iphdr, saddr), offsetof(struct ipv6hdr, saddr), &d->source, to);
}

static __always_inline void set_destination(struct __sk_buff *skb, struct datagram *d, const struct address *to)
{
	set_address(skb, d, offsetof(struct iphdr, daddr), offsetof(struct ipv6hdr, daddr), &d->destination, to);
}

static __always_inline void set_mac(struct __sk_buff *skb, const __u8 *mac)
{
	bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), mac, ETH_ALEN, 0);
}

static __always_inline __be16 own_port(const struct settings *settings, const struct datagram *d)
{
	return d->is_v4 ? settings->own_port4 : settings->own_port6;
}

/* Where a peer hears. One of vxvde does where it sends from, as another fast path does, and a kernel's tunnel at the
 * group's port only, whatever flow-dependent port it sends from. A datagram without a sum is such a tunnel's. */
static __always_inline __be16 answered_at(const struct settings *settings, const struct datagram *d)
{
	if (is_off(TOOTH_PORT) || is_fast(settings, d->from))
		return d->from;
	return d->sum ? d->from : settings->port;
}

/* Has a datagram this header, or one of a segment at all? Of fragments only the first says it. */
static __always_inline bool is_of(struct __sk_buff *skb, const struct datagram *d, const __u32 *wanted)
{
	__be32 header[2];
	__u32 vni;

	if (!d->is_first || is_off(TOOTH_HEADER))
		return true;
	if (bpf_skb_load_bytes(skb, d->udp + sizeof(struct udphdr), header, sizeof(header)) ||
	    header[0] != bpf_htonl(0x08000000) || header[1] & bpf_htonl(0xff))
		return false;
	vni = bpf_ntohl(header[1]) >> 8;
	return wanted ? vni == *wanted : bpf_map_lookup_elem(&fief_ov_segments, &vni) != NULL;
}

/* The source that copies for the vxlan device have: what has it was not sent to it alone. */
static const __u8 of_copies[ETH_ALEN] = { 0x06, 0xf1, 0xef, 0x0e, 0x56, 0xde };

/* A peer that sends to our own port has learned it, and so hears where it sends from. One that sends to the group's port
 * is a tunnel. Who was only heard in a group may be either: both ports get what is for it, and one hears. */
static __always_inline __be16 learn_kind(struct __sk_buff *skb, const struct settings *settings,
					 const struct datagram *d)
{
	struct endpoint peer = { .port = answered_at(settings, d), .address = d->source };
	__u8 mac[ETH_ALEN];
	__u32 one = 1;

	if (is_fast(settings, peer.port))
		return peer.port;
	if (peer.port == settings->port || (d->to == settings->port && !is_off(TOOTH_PORT)))
		return settings->port;
	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), mac, sizeof(mac)))
		return peer.port;
	if (!is_same_mac(mac, of_copies) && !bpf_map_lookup_elem(&fief_ov_sure, &peer) && is_of(skb, d, NULL))
		bpf_map_update_elem(&fief_ov_sure, &peer, &one, BPF_ANY);
	return peer.port;
}

/* A header and nothing behind it: the peer forgets us, and we forget it. Gives whether it was that. */
static __always_inline bool note_goodbye(struct __sk_buff *skb, const struct settings *settings,
					 const struct datagram *d, const struct address *who)
{
	__u64 now = bpf_ktime_get_coarse_ns(), *before;
	struct endpoint peer = { .address = *who, .port = answered_at(settings, d) };
	struct segment *segment;
	__be32 header[2];
	__u32 zero = 0;

	if (!d->is_first || d->length != sizeof(struct udphdr) + sizeof(header))
		return false;
	if (bpf_skb_load_bytes(skb, d->udp + sizeof(struct udphdr), header, sizeof(header)))
		return true;
	if (header[0] != bpf_htonl(0x08000000) || header[1] & bpf_htonl(0xff))
		return true;
	peer.vni = bpf_ntohl(header[1]) >> 8;
	segment = bpf_map_lookup_elem(&fief_ov_segments, &peer.vni);
	if (!segment)
		return true;
	before = bpf_map_lookup_elem(&fief_ov_gone, &peer);
	if (before && now - *before < GOODBYES_APART && !is_off(TOOTH_GOODBYES)) {
		count(COUNT_IGNORED);
		return true;
	}
	bpf_map_update_elem(&fief_ov_gone, &peer, &now, BPF_ANY);
	bpf_map_update_elem(&fief_ov_last, &zero, &now, BPF_ANY);
	/* Had he not gone, his next frame says so. */
	segment->last_seen = 0;
	count(COUNT_GOODBYES);
	return true;
}

/* Is there a socket for a datagram to a group? What is no segment's ends here otherwise: the IP stack's looking at it costs as
 * much again as all before. */
static __always_inline bool is_heard(struct __sk_buff *skb, const struct datagram *d)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;

	if (!d->is_first || is_off(TOOTH_UNHEARD))
		return true;
	if (d->is_v4) {
		tuple.ipv4.saddr = d->source.words[3];
		tuple.ipv4.daddr = d->destination.words[3];
		tuple.ipv4.sport = d->from;
		tuple.ipv4.dport = d->to;
		socket = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, d->source.words, sizeof(d->source));
		__builtin_memcpy(tuple.ipv6.daddr, d->destination.words, sizeof(d->destination));
		tuple.ipv6.sport = d->from;
		tuple.ipv6.dport = d->to;
		socket = bpf_sk_lookup_udp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (socket)
		bpf_sk_release(socket);
	return socket;
}

/* A copy for the vxlan device, as if it had been sent to it alone, if it is of the group's segment. The datagram is as it was
 * afterwards. */
static __always_inline bool copy_in(struct __sk_buff *skb, struct settings *settings, struct datagram *d,
				    const struct address *source)
{
	const struct address *own = d->is_v4 ? &settings->own4 : &settings->own6;
	struct address from = d->source, to = d->destination;
	__u8 macs[2 * ETH_ALEN];
	__be16 port = d->to;

	/* Before a copy is made: it costs most of what garbage costs. */
	if (!is_of(skb, d, bpf_map_lookup_elem(&fief_ov_groups, &d->destination))) {
		count(COUNT_MALFORMED);
		return false;
	}
	if (!own->words[3] || bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)))
		return true;
	if (source)
		set_source(skb, d, source);
	set_destination(skb, d, own);
	set_mac(skb, settings->mac);
	bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), of_copies, sizeof(of_copies), 0);
	if (d->is_first)
		set_port(skb, d, own_port(settings, d));
	bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
	set_destination(skb, d, &to);
	if (source)
		set_source(skb, d, &from);
	if (d->is_first)
		set_port(skb, d, port);
	return true;
}

static __always_inline bool is_to_group(const struct datagram *d)
{
	__u8 first = d->is_v4 ? *(__u8 *)&d->destination.words[3] : *(__u8 *)d->destination.words;

	if (d->is_v4 ? (first & 0xf0) != 0xe0 : first != 0xff)
		return false;
	return bpf_map_lookup_elem(&fief_ov_groups, &d->destination);
}

#endif
