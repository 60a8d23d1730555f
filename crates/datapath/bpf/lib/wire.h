/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Packets on the devices that tenants name (tcx), and on lo. */
#ifndef FIEF_WIRE_H
#define FIEF_WIRE_H

#include "translate.h"

/* To whom a packet belongs that came in on a device. */
struct belongs {
	__u32 slot;
	__u32 flags;
	__u32 called; /* the flags of the address called, 0 if it is nobody's */
	bool refused;
};

static __always_inline bool may_use(__u32 slot, __u32 ifindex)
{
	struct exit_key key = { .slot = slot, .ifindex = ifindex };

	return bpf_map_lookup_elem(&fief_exits, &key);
}

/* May a packet of `from` be delivered to a local address of `to`? Slot 0, the host, counts as a slot. */
static __always_inline bool may_reach(__u32 from, __u32 to)
{
	__u32 *flags;

	if (from == to)
		return true;
	if (!from || to)
		return false;
	flags = bpf_map_lookup_elem(&fief_tenants, &from);
	return flags && *flags & FIEF_HOST_ACCESS;
}

/* Destination address, else the interface's default, else nobody. */
static __always_inline struct belongs owner_on(__u32 ifindex, const struct owner *called)
{
	struct belongs b = {};

	if (!called) {
		called = bpf_map_lookup_elem(&fief_defaults, &ifindex);
		if (called) {
			b.slot = called->slot;
			b.flags = called->flags;
		}
		return b;
	}
	b.slot = called->slot;
	b.flags = called->flags;
	b.called = called->flags;
	b.refused = called->slot && called->ifindex != ifindex && !may_use(called->slot, ifindex);
	return b;
}

/* All that arrives on a device under a VRF is its tenant's. What is local to others is found before its table is asked
 * (rule 0), unless `local` moved. */
static __always_inline struct belongs owner_alone(__u32 ifindex, __u32 slot, const struct owner *called)
{
	struct owner *own = bpf_map_lookup_elem(&fief_defaults, &ifindex);
	struct belongs b = { .slot = slot };

	if (own)
		b.flags = own->flags;
	b.refused = called && !fief_local_moved && !may_reach(slot, called->slot);
	return b;
}

static __always_inline bool from_a_neighbour(struct __sk_buff *skb, __u32 slot)
{
	struct neighbour_key key = { .slot = slot, .ifindex = skb->ifindex };

	if (bpf_skb_load_bytes(skb, ETH_ALEN, key.mac, ETH_ALEN))
		return false;
	return bpf_map_lookup_elem(&fief_neighbours, &key);
}

/* The checks that every kind of packet for a tenant goes through; counts what it refuses. */
static __always_inline bool is_admitted(struct __sk_buff *skb, const struct belongs *b)
{
	if (b->refused && !is_off(TOOTH_DEVICE_IN)) {
		COUNT(b->slot, drop_device_in);
		return false;
	}
	if (b->flags & FIEF_NEIGHBOURS && !is_off(TOOTH_NEIGHBOURS) && !from_a_neighbour(skb, b->slot)) {
		COUNT(b->slot, drop_neighbour);
		return false;
	}
	return true;
}

static __always_inline int to_tenant(struct __sk_buff *skb, __u32 slot)
{
	struct counters *c = bpf_map_lookup_elem(&fief_counters, &slot);

	skb->mark = with_slot(skb->mark, slot);
	if (c) {
		c->rx_packets++;
		c->rx_bytes += skb->len - ETH_HLEN;
	}
	return TCX_NEXT;
}

/* A copy of our own multicast, looped back to the sender's host (dev_loopback_xmit): its mark is still the sender's. */
static __always_inline int looped_back(struct __sk_buff *skb)
{
	__u32 ifindex = skb->ifindex, slot = slot_of(skb->mark);
	struct owner *d = bpf_map_lookup_elem(&fief_defaults, &ifindex);

	if (slot == (d ? d->slot : 0) || is_off(TOOTH_LOOPED))
		return TCX_NEXT;
	COUNT(slot, drop_crossing);
	return TCX_DROP;
}

/* Whoever claims an address of this host is not on the wire. IPv6 never asks that by itself, and IPv4 does it with a
 * whole routing decision a packet, which `accept_local` on our devices saves (fib_validate_source). With `local` behind
 * the tree another tenant's address is a remote one. */
static __always_inline bool is_spoofed(const struct owner *source, __u32 slot)
{
	if (!source || is_off(TOOTH_SPOOF_IN) || (fief_local_moved && source->slot != slot))
		return false;
	COUNT(slot, drop_spoof);
	return true;
}

/* The same of a tenant with a VRF. */
static __always_inline bool is_spoofed_alone(__u32 slot, bool is_its_own)
{
	if (!is_its_own || is_off(TOOTH_SPOOF_IN))
		return false;
	COUNT(slot, drop_spoof);
	return true;
}

/* Aliases are given here; whoever comes with one wants to be answered as somebody else. */
static __always_inline bool claims_alias(__u32 slot, bool is_alias)
{
	if (!is_alias || is_off(TOOTH_SPOOF_IN))
		return false;
	COUNT(slot, drop_spoof);
	return true;
}

/* May a datagram, or an error that quotes one, go on to a server? Its sender may be an alias from here on. */
static __always_inline bool for_server4(struct __sk_buff *skb, const struct iphdr *ip, __u32 slot, __u32 flags)
{
	if (!(flags & (FIEF_UDP_ALIAS | FIEF_UDP_REFUSE)) || is_off(TOOTH_ALIAS))
		return true;
	if (ip->protocol == IPPROTO_UDP)
		return to_server4(skb, ip, slot, flags);
	if (ip->protocol == IPPROTO_ICMP)
		quoted4(skb, ip, slot);
	return true;
}

static __always_inline bool for_server6(struct __sk_buff *skb, const struct ipv6hdr *ip, __u32 slot, __u32 flags)
{
	if (!(flags & (FIEF_UDP_ALIAS | FIEF_UDP_REFUSE)) || is_off(TOOTH_ALIAS))
		return true;
	if (ip->nexthdr == IPPROTO_ICMPV6) {
		quoted6(skb, ip, slot);
		return true;
	}
	return ip->nexthdr == IPPROTO_TCP || to_server6(skb, ip, slot, flags);
}

static __always_inline int ingress4(struct __sk_buff *skb)
{
	__u32 alone = alone_on(skb->ifindex);
	struct owner *called;
	struct belongs b;
	struct iphdr ip;

	if (read_ip4(skb, &ip))
		return TCX_DROP;
	called = bpf_map_lookup_elem(&fief_own4, &ip.daddr);
	b = alone ? owner_alone(skb->ifindex, alone, called) : owner_on(skb->ifindex, called);
	if (!is_admitted(skb, &b))
		return TCX_DROP;
	if (alone && is_spoofed_alone(alone, is_in_vrf4(alone, ip.saddr)))
		return TCX_DROP;
	if (is_spoofed(bpf_map_lookup_elem(&fief_own4, &ip.saddr), b.slot) || claims_alias(b.slot, is_alias4(ip.saddr)))
		return TCX_DROP;
	/* A tenant's routes come from its documents; no neighbour changes them. */
	if (b.slot && !is_off(TOOTH_REDIRECT) && is_redirect4(skb, &ip)) {
		COUNT(b.slot, drop_redirect);
		return TCX_DROP;
	}
	if (!b.slot) {
		skb->mark = with_slot(skb->mark, 0);
		return TCX_NEXT;
	}
	if (!for_server4(skb, &ip, b.slot, b.called))
		return TCX_DROP;
	return to_tenant(skb, b.slot);
}

static __always_inline int ingress6(struct __sk_buff *skb)
{
	__u32 alone = alone_on(skb->ifindex);
	struct owner *called;
	struct belongs b;
	struct ipv6hdr ip;
	struct in6 *from = (struct in6 *)&ip.saddr;

	if (read_ip6(skb, &ip))
		return TCX_DROP;
	called = bpf_map_lookup_elem(&fief_own6, &ip.daddr);
	b = alone ? owner_alone(skb->ifindex, alone, called) : owner_on(skb->ifindex, called);
	if (!is_admitted(skb, &b))
		return TCX_DROP;
	if (alone && is_spoofed_alone(alone, is_in_vrf(alone, from)))
		return TCX_DROP;
	if ((is_unicast6(from) && is_spoofed(bpf_map_lookup_elem(&fief_own6, from), b.slot)) ||
	    claims_alias(b.slot, is_alias6(from)))
		return TCX_DROP;
	if (b.slot && !is_off(TOOTH_REDIRECT) && is_redirect6(skb, &ip)) {
		COUNT(b.slot, drop_redirect);
		return TCX_DROP;
	}
	if (!b.slot) {
		skb->mark = with_slot(skb->mark, 0);
		return TCX_NEXT;
	}
	if (!for_server6(skb, &ip, b.slot, b.called))
		return TCX_DROP;
	return to_tenant(skb, b.slot);
}

/* ARP has no route and needs no mark; but who may not bring packets may not ask either. */
static __always_inline int ingress_arp(struct __sk_buff *skb)
{
	struct arp_body arp;
	struct owner *called;
	struct belongs b;
	__be32 target;
	__u32 alone;

	if (read_net(skb, 0, &arp, sizeof(arp)))
		return TCX_NEXT;
	target = arp.target;
	called = bpf_map_lookup_elem(&fief_own4, &target);
	alone = alone_on(skb->ifindex);
	if (!called && !alone)
		return TCX_NEXT;
	b = alone ? owner_alone(skb->ifindex, alone, called) : owner_on(skb->ifindex, called);
	return is_admitted(skb, &b) ? TCX_NEXT : TCX_DROP;
}

/* IGMPv3 and MLDv2 reports are the kernel's own, and it writes them with a length where the mark should be
 * (reserved_tailroom shares its place in struct sk_buff): their mark says nothing. */
static __always_inline bool is_membership_report(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		return !read_net(skb, 0, &ip, sizeof(ip)) && ip.protocol == IPPROTO_IGMP &&
		       ip.daddr == bpf_htonl(0xe0000016);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		struct in6 *to = (struct in6 *)&ip.daddr;

		/* The router alert stands in a hop-by-hop header, which only a raw socket could imitate. */
		return !read_net(skb, 0, &ip, sizeof(ip)) && ip.nexthdr == IPPROTO_HOPOPTS &&
		       to->w[0] == bpf_htonl(0xff020000) && !to->w[1] && !to->w[2] && to->w[3] == bpf_htonl(0x16);
	}
	return false;
}

static __always_inline bool leaves_rightly(struct __sk_buff *skb, __u32 slot, const struct owner *source)
{
	__u32 ifindex = skb->ifindex;

	/* The common case is one lookup: our own address on the device that carries it. */
	if (source && source->slot == slot && source->ifindex == ifindex)
		return true;
	/* With `local` behind the tree a remote host may have another tenant's address, and be forwarded by this one;
	 * what was made here never comes from there. */
	if (source && source->slot != slot && (!fief_local_moved || !skb->ingress_ifindex) &&
	    !is_off(TOOTH_SPOOF_OUT) && !is_membership_report(skb)) {
		COUNT(slot, drop_spoof);
		return false;
	}
	if (may_use(slot, ifindex) || is_off(TOOTH_DEVICE_OUT) || is_membership_report(skb))
		return true;
	COUNT(slot, drop_device_out);
	return false;
}

/* An answer to an alias that nothing has translated. */
static __always_inline bool is_stray(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		return !read_ip4(skb, &ip) && is_alias4(ip.daddr);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		return !read_ip6(skb, &ip) && is_alias6((struct in6 *)&ip.daddr);
	}
	return false;
}

static __always_inline int egress(struct __sk_buff *skb)
{
	__u32 slot = slot_of(skb->mark);
	struct owner *source = 0;
	struct counters *c;

	if (!slot)
		return is_stray(skb) ? TCX_DROP : TCX_NEXT;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (read_ip4(skb, &ip))
			return TCX_DROP;
		source = bpf_map_lookup_elem(&fief_own4, &ip.saddr);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (read_ip6(skb, &ip))
			return TCX_DROP;
		source = bpf_map_lookup_elem(&fief_own6, (struct in6 *)&ip.saddr);
	}
	if (!leaves_rightly(skb, slot, source))
		return TCX_DROP;
	c = bpf_map_lookup_elem(&fief_counters, &slot);
	if (c) {
		c->tx_packets++;
		c->tx_bytes += skb->len - ETH_HLEN;
	}
	return TCX_NEXT;
}

/* A tenant's own client on this host. */
static __always_inline bool served_here(struct __sk_buff *skb, __u32 slot, __u32 flags)
{
	struct ipv6hdr ip6;
	struct iphdr ip4;

	if (skb->protocol == bpf_htons(ETH_P_IP))
		return read_net(skb, 0, &ip4, sizeof(ip4)) || for_server4(skb, &ip4, slot, flags);
	return read_net(skb, 0, &ip6, sizeof(ip6)) || for_server6(skb, &ip6, slot, flags);
}

static __always_inline int loopback(struct __sk_buff *skb)
{
	__u32 from = slot_of(skb->mark), to = 0;
	struct owner *called = 0;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__be32 address;

		if (read_net(skb, offsetof(struct iphdr, daddr), &address, sizeof(address)))
			return TCX_DROP;
		called = bpf_map_lookup_elem(&fief_own4, &address);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct in6 address;

		if (read_net(skb, offsetof(struct ipv6hdr, daddr), &address, sizeof(address)))
			return TCX_DROP;
		called = bpf_map_lookup_elem(&fief_own6, &address);
	}
	if (called)
		to = called->slot;
	if (may_reach(from, to) || is_off(TOOTH_LO))
		return !to || served_here(skb, to, called->flags) ? TCX_NEXT : TCX_DROP;
	COUNT(from ? from : to, drop_crossing);
	return TCX_DROP;
}

#endif
