/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Packets whose addresses become aliases on the way in, and no longer are on the way out: see alias.h. */
#ifndef FIEF_TRANSLATE_H
#define FIEF_TRANSLATE_H

#include "alias.h"

/* enum bpf_ret_code (linux/bpf.h of Linux 5.0). */
#define LWT_DROP 2
#define LWT_REROUTE 128

/* BPF_F_IPV6 of Linux 6.16: a checksum over an IPv6 pseudo header. */
#define CHECKSUM_OF_IPV6 (1ULL << 7)

#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP_HEADER 8
#define ICMP6_ERRORS 4
#define FRAGMENT_HEADER 8

/* How a socket is to see a datagram. */
#define AS_IT_IS 0
#define BY_ALIAS 1
#define NOT_AT_ALL 2

static __always_inline int seen_by(struct __sk_buff *skb, struct bpf_sock_tuple *tuple, __u32 size, __u32 flags)
{
	__u32 port = bpf_ntohs(size == sizeof(tuple->ipv4) ? tuple->ipv4.dport : tuple->ipv6.dport);
	struct users *users = bpf_map_lookup_elem(&fief_ports, &port);
	struct bpf_sock *sk;
	int seen = AS_IT_IS;

	if (!users || !users->plain)
		return AS_IT_IS;
	if (!users->other)
		return flags & FIEF_UDP_REFUSE ? NOT_AT_ALL : BY_ALIAS;
	sk = bpf_sk_lookup_udp(skb, tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return AS_IT_IS;
	if (!slot_of(sk->mark) && sk->state != TCP_ESTABLISHED) {
		struct asking *asking = bpf_sk_storage_get(&fief_asking, sk, 0, 0);

		if (!asking || !asking->asks)
			seen = flags & FIEF_UDP_REFUSE ? NOT_AT_ALL : BY_ALIAS;
	}
	bpf_sk_release(sk);
	return seen;
}

/* Where the network header begins in a frame. */
static __always_inline __u32 network_offset(struct __sk_buff *skb)
{
	return skb->ifindex == FIEF_LOOPBACK || is_device(skb->ifindex, FIEF_ETHERNET) ? ETH_HLEN : 0;
}

/* Puts another address of either family into a packet: `at` is where it stands, `check` where a UDP checksum stands
 * that covers it, or 0. Nobody else holds the packet's first bytes then. */
static __always_inline void put4(struct __sk_buff *skb, __u32 ip, __u32 at, __u32 check, __be32 old, __be32 new)
{
	if (check)
		bpf_l4_csum_replace(skb, check, old, new, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | sizeof(new));
	bpf_l3_csum_replace(skb, ip + offsetof(struct iphdr, check), old, new, sizeof(new));
	bpf_skb_store_bytes(skb, at, &new, sizeof(new), 0);
}

/* The sender's address, in the usual case that the header lies in one piece. `offset` is where UDP is, 0 if it is not. */
static __always_inline void put_sender4(struct __sk_buff *skb, __u32 at, __u32 udp, __be32 old, __be32 new)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + (at ? ETH_HLEN : 0);
	__u32 sum;

	if ((void *)(ip + 1) > end) {
		put4(skb, at, at + offsetof(struct iphdr, saddr), udp ? at + udp + 6 : 0, old, new);
		return;
	}
	/* RFC 1624: HC' = ~(~HC + ~m + m'), in 16 bits. */
	sum = (__u16)~ip->check + (__u16)~old + (__u16)~(old >> 16) + (__u16)new + (__u16)(new >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->check = ~sum;
	ip->saddr = new;
	if (udp)
		bpf_l4_csum_replace(skb, at + udp + 6, old, new, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0 | sizeof(new));
}

static __always_inline void put_sender6(struct __sk_buff *skb, __u32 at, const struct in6 *new)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + (at ? ETH_HLEN : 0);

	if ((void *)(ip + 1) > end)
		bpf_skb_store_bytes(skb, at + offsetof(struct ipv6hdr, saddr), new, sizeof(*new), 0);
	else
		*(struct in6 *)&ip->saddr = *new;
}

static __always_inline void sum6(struct __sk_buff *skb, __u32 check, __u64 flags, const struct in6 *old,
				 const struct in6 *new)
{
	/* What bpf_csum_diff() would say: ~old + new, in 32 bits with the carries. */
	__u64 sum = (__u64)(__u32)~old->w[0] + (__u32)~old->w[1] + (__u32)~old->w[2] + (__u32)~old->w[3] + new->w[0] +
		    new->w[1] + new->w[2] + new->w[3];
	__u32 change;

	sum = (sum & 0xffffffff) + (sum >> 32);
	change = sum + (sum >> 32);
	if (bpf_l4_csum_replace(skb, check, 0, change, flags | (flags ? CHECKSUM_OF_IPV6 : 0)) && flags)
		bpf_l4_csum_replace(skb, check, 0, change, flags);
}

static __always_inline void put6(struct __sk_buff *skb, __u32 at, __u32 check, __u64 flags, const struct in6 *old,
				 const struct in6 *new)
{
	if (check)
		sum6(skb, check, flags, old, new);
	bpf_skb_store_bytes(skb, at, new, sizeof(*new), 0);
}

/* The ports, in place where that goes. */
static __always_inline long read_ports(struct __sk_buff *skb, __u32 offset, void *ports)
{
	void *ip = offset < 128 ? header_in_place(skb, sizeof(struct iphdr)) : 0;

	if (!ip || ip + offset + 4 > (void *)(long)skb->data_end)
		return read_net(skb, offset, ports, 4);
	*(__u32 *)ports = *(__u32 *)(ip + offset);
	return 0;
}

/* A datagram, or what is known of it. */
struct datagram {
	struct in6 from, to;
	__be16 sport, dport;
	__u32 id;      /* of its fragments */
	__u32 payload; /* where the UDP header is, from the network header */
	bool is_part, is_later;
};

/* The number by which a datagram's sender is known to whom it is for; 0: by its address. Negative: dropped. */
static __always_inline __s64 decide(struct __sk_buff *skb, const struct datagram *d, __u32 slot, __u32 flags, int seen)
{
	__u64 number = 0, *decided;

	if (d->is_later) {
		struct fragment part = { .slot = slot, .id = d->id, .from = d->from, .to = d->to };

		decided = bpf_map_lookup_elem(&fief_fragments, &part);
		if (decided)
			return *decided;
		/* It has overtaken the first: nobody can say whom it is for. */
		COUNT(slot, drop_alias);
		return -1;
	}
	if (seen == NOT_AT_ALL) {
		COUNT(slot, drop_alias);
		return -1;
	}
	if (seen == BY_ALIAS) {
		struct correspondent who = { .slot = slot, .port = d->dport, .remote = d->from, .local = d->to };

		number = number_for(&who);
		if (!number)
			return -1;
	}
	if (d->is_part) {
		struct fragment part = { .slot = slot, .id = d->id, .from = d->from, .to = d->to };

		bpf_map_update_elem(&fief_fragments, &part, &number, BPF_ANY);
	}
	return number;
}

static __always_inline bool to_server4(struct __sk_buff *skb, const struct iphdr *ip, __u32 slot, __u32 flags)
{
	struct datagram d = { .from = mapped(ip->saddr), .to = mapped(ip->daddr), .payload = ip->ihl * 4 };
	__u16 part = bpf_ntohs(ip->frag_off);
	__u32 at = network_offset(skb);
	int seen = AS_IT_IS;
	__s64 number;

	d.id = ip->id;
	d.is_part = part & 0x3fff;
	d.is_later = part & 0x1fff;
	if (!d.is_later) {
		struct bpf_sock_tuple tuple = { .ipv4 = { .saddr = ip->saddr, .daddr = ip->daddr } };

		if (read_ports(skb, d.payload, &tuple.ipv4.sport))
			return true;
		d.dport = tuple.ipv4.dport;
		seen = seen_by(skb, &tuple, sizeof(tuple.ipv4), flags);
		if (seen == AS_IT_IS && !d.is_part)
			return true;
	}
	number = decide(skb, &d, slot, flags, seen);
	if (number > 0)
		put_sender4(skb, at, d.is_later ? 0 : d.payload, ip->saddr, alias4(number));
	return number >= 0;
}

/* Where UDP is, behind the headers that may stand before it (RFC 8200, 4); false if it is not there. */
static __always_inline bool find_udp6(struct __sk_buff *skb, __u8 next, struct datagram *d)
{
	struct { __u8 next, length; __be16 offset; __be32 id; } extension;

	d->payload = sizeof(struct ipv6hdr);
#pragma unroll
	for (int i = 0; i < 5; i++) {
		if (next == IPPROTO_UDP)
			return true;
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    next != IPPROTO_FRAGMENT)
			return false;
		if (read_net(skb, d->payload, &extension, sizeof(extension)))
			return false;
		d->payload += next == IPPROTO_FRAGMENT ? FRAGMENT_HEADER : (extension.length + 1) * 8;
		if (next == IPPROTO_FRAGMENT) {
			d->id = extension.id;
			d->is_part = true;
			d->is_later = bpf_ntohs(extension.offset) & 0xfff8;
			if (d->is_later)
				return extension.next == IPPROTO_UDP;
		}
		next = extension.next;
	}
	return false;
}

static __always_inline bool to_server6(struct __sk_buff *skb, const struct ipv6hdr *ip, __u32 slot, __u32 flags)
{
	struct datagram d = { .from = *(struct in6 *)&ip->saddr, .to = *(struct in6 *)&ip->daddr };
	__u32 at = network_offset(skb);
	int seen = AS_IT_IS;
	__s64 number;

	if (!find_udp6(skb, ip->nexthdr, &d))
		return true;
	if (!d.is_later) {
		struct bpf_sock_tuple tuple = {};

		__builtin_memcpy(tuple.ipv6.saddr, &d.from, sizeof(d.from));
		__builtin_memcpy(tuple.ipv6.daddr, &d.to, sizeof(d.to));
		if (read_ports(skb, d.payload, &tuple.ipv6.sport))
			return true;
		d.dport = tuple.ipv6.dport;
		seen = seen_by(skb, &tuple, sizeof(tuple.ipv6), flags);
		if (seen == AS_IT_IS && !d.is_part)
			return true;
	}
	number = decide(skb, &d, slot, flags, seen);
	if (number > 0) {
		struct in6 alias = alias6(number);

		put_sender6(skb, at, &alias);
		if (!d.is_later)
			sum6(skb, at + d.payload + 6, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0, &d.from, &alias);
	}
	return number >= 0;
}

/* An ICMP error that quotes an answer of such a server: it shall know the address it answered to. */
static __always_inline void quoted4(struct __sk_buff *skb, const struct iphdr *ip, __u32 slot)
{
	__u32 quote = ip->ihl * 4 + ICMP_HEADER, at = network_offset(skb) + quote;
	struct correspondent who = { .slot = slot };
	struct bpf_sock_tuple tuple = {};
	struct alias *known;
	struct iphdr inner;
	__u8 type;

	if (ip->frag_off & bpf_htons(0x1fff) || read_net(skb, ip->ihl * 4, &type, 1))
		return;
	if (type != ICMP_UNREACHABLE && type != ICMP_TIME_EXCEEDED && type != ICMP_PARAMETER)
		return;
	if (read_net(skb, quote, &inner, sizeof(inner)) || inner.protocol != IPPROTO_UDP ||
	    inner.frag_off & bpf_htons(0x1fff))
		return;
	/* Seen from the other side: the quote's source is ours. */
	if (read_net(skb, quote + inner.ihl * 4, &tuple.ipv4.dport, 2) ||
	    read_net(skb, quote + inner.ihl * 4 + 2, &tuple.ipv4.sport, 2))
		return;
	tuple.ipv4.saddr = inner.daddr;
	tuple.ipv4.daddr = inner.saddr;
	who.port = tuple.ipv4.dport;
	who.remote = mapped(inner.daddr);
	who.local = mapped(inner.saddr);
	known = bpf_map_lookup_elem(&fief_aliases, &who);
	if (!known || seen_by(skb, &tuple, sizeof(tuple.ipv4), 0) != BY_ALIAS)
		return;
	/* The quoted header's checksum makes up for its address, so that of the error stays as it is. */
	put4(skb, at, at + offsetof(struct iphdr, daddr), 0, inner.daddr, alias4(known->number));
}

static __always_inline void quoted6(struct __sk_buff *skb, const struct ipv6hdr *ip, __u32 slot)
{
	__u32 quote = sizeof(*ip) + ICMP_HEADER, at = network_offset(skb);
	struct correspondent who = { .slot = slot };
	struct bpf_sock_tuple tuple = {};
	struct ipv6hdr inner;
	struct alias *known;
	struct in6 alias;
	__u8 type;

	if (read_net(skb, sizeof(*ip), &type, 1) || !type || type > ICMP6_ERRORS)
		return;
	if (read_net(skb, quote, &inner, sizeof(inner)) || inner.nexthdr != IPPROTO_UDP)
		return;
	if (read_net(skb, quote + sizeof(inner), &tuple.ipv6.dport, 2) ||
	    read_net(skb, quote + sizeof(inner) + 2, &tuple.ipv6.sport, 2))
		return;
	who.port = tuple.ipv6.dport;
	who.remote = *(struct in6 *)&inner.daddr;
	who.local = *(struct in6 *)&inner.saddr;
	__builtin_memcpy(tuple.ipv6.saddr, &who.remote, sizeof(who.remote));
	__builtin_memcpy(tuple.ipv6.daddr, &who.local, sizeof(who.local));
	known = bpf_map_lookup_elem(&fief_aliases, &who);
	if (!known || seen_by(skb, &tuple, sizeof(tuple.ipv6), 0) != BY_ALIAS)
		return;
	alias = alias6(known->number);
	put6(skb, at + quote + offsetof(struct ipv6hdr, daddr), at + sizeof(*ip) + 2, 0, &who.remote, &alias);
}

/* The way back: an lwt_xmit program of the routes of our ranges. Its packets begin with the network header. */
static __always_inline int send_by_alias4(struct __sk_buff *skb)
{
	struct answered *answered;
	__be32 alias, local;
	struct iphdr ip;
	bool is_later;
	__u64 number;

	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP || !is_alias4(ip.daddr))
		return LWT_DROP;
	alias = ip.daddr;
	number = bpf_ntohl(alias) & fief_alias_size;
	answered = bpf_map_lookup_elem(&fief_answers, &number);
	if (!answered || !is_mapped(&answered->to.remote))
		return LWT_DROP;
	local = answered->to.local.w[3];
	if (ip.saddr != local)
		return LWT_DROP;
	touch(&answered->used, &answered->ticks);
	skb->mark = with_slot(skb->mark, answered->to.slot);
	is_later = ip.frag_off & bpf_htons(0x1fff);
	put4(skb, 0, offsetof(struct iphdr, daddr), is_later ? 0 : ip.ihl * 4 + 6, alias, answered->to.remote.w[3]);
	return LWT_REROUTE;
}

static __always_inline int send_by_alias6(struct __sk_buff *skb)
{
	struct in6 alias, remote, local;
	struct answered *answered;
	struct ipv6hdr ip;
	__u64 number;

	/* Fragments are made after this. */
	if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_UDP)
		return LWT_DROP;
	alias = *(struct in6 *)&ip.daddr;
	local = *(struct in6 *)&ip.saddr;
	number = number_of(&alias);
	answered = bpf_map_lookup_elem(&fief_answers, &number);
	if (!answered || is_mapped(&answered->to.remote))
		return LWT_DROP;
	remote = answered->to.local;
	if (remote.w[0] != local.w[0] || remote.w[1] != local.w[1] || remote.w[2] != local.w[2] ||
	    remote.w[3] != local.w[3])
		return LWT_DROP;
	touch(&answered->used, &answered->ticks);
	remote = answered->to.remote;
	skb->mark = with_slot(skb->mark, answered->to.slot);
	put6(skb, offsetof(struct ipv6hdr, daddr), sizeof(ip) + 6, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0, &alias,
	     &remote);
	return LWT_REROUTE;
}

#endif
