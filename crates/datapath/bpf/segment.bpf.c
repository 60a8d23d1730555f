/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The guard of segments' sockets: a UDP socket in a user's hands that speaks of his group's segment only.
 *
 * A socket belongs to the control group it was made in, whoever holds it later (cgroup_sk_alloc in kernel/cgroup/cgroup.c).
 * The daemon makes it in one that has these programs, says whose it is in a storage of the socket, and hands it over.
 *
 * Fail closed: until the storage says whose a socket is nothing leaves and nothing comes; afterwards nobody binds it,
 * connects it or sets an option that is not listed here. docs/overlay.md has the attacks, one by one.
 *
 * Many datagrams in one packet (UDP_SEGMENT) are looked at one by one. All of them lie in pages, which may be the sender's
 * memory and change after a look, so there is a second one at the card, behind all that the sender can do: on a copy. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/segment.h"

/* Where options are numbered; the headers of libc that say so cannot be had here. */
#define SOL_SOCKET 1
#define SO_TYPE 3
#define SO_ERROR 4
#define SO_SNDBUF 7
#define SO_RCVBUF 8
#define SO_RCVTIMEO_OLD 20
#define SO_SNDTIMEO_OLD 21
#define SO_PROTOCOL 38
#define SO_DOMAIN 39
#define SO_RCVTIMEO_NEW 66
#define SO_SNDTIMEO_NEW 67
#define IP_PKTINFO 8
#define UDP_GRO 104
#define IPV6_RECVPKTINFO 49

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What a datagram says of itself: read from the packet, where no other thread can change it any more. */
struct datagram {
	__u32 from[4];
	__u32 to[4];
	__u16 source;
	__u16 destination;
	__u32 header[2];
	__u32 payload; /* where it begins */
	__u8 hops;
};

#define IN_PLACE(type, at) ((void *)((at) + sizeof(type)) <= (void *)(long)skb->data_end ? (type *)(at) : 0)

/* Headers of a datagram that leaves, all in the packet's linear part: that is the kernel's own copy, while what lies in
 * pages may be the sender's memory, or a file's (MSG_ZEROCOPY, splice(2)), and change after this look. */
static __always_inline int read_out(struct __sk_buff *skb, const struct segment *segment, struct datagram *read)
{
	void *at = (void *)(long)skb->data;
	struct udphdr *udp;
	__u32 *header;

	if (segment->family == 4) {
		struct iphdr *ip = IN_PLACE(struct iphdr, at);

		if (!ip || skb->protocol != bpf_htons(0x0800))
			return WRONG_PACKET;
		if ((ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_UDP) && !OFF(8))
			return WRONG_PACKET;
		read->from[0] = ip->saddr;
		read->to[0] = ip->daddr;
		read->hops = ip->ttl;
		/* Only with the rule above off is there anything between. */
		at += OFF(8) ? (ip->ihl & 0xf) * 4 : sizeof(*ip);
	} else {
		struct ipv6hdr *ip = IN_PLACE(struct ipv6hdr, at);

		if (!ip || skb->protocol != bpf_htons(0x86dd) || ip->version != 6 || ip->nexthdr != IPPROTO_UDP)
			return WRONG_PACKET;
		for (int i = 0; i < 4; i++) {
			read->from[i] = ip->saddr.in6_u.u6_addr32[i];
			read->to[i] = ip->daddr.in6_u.u6_addr32[i];
		}
		read->hops = ip->hop_limit;
		at += sizeof(*ip);
	}
	udp = IN_PLACE(struct udphdr, at);
	if (!udp)
		return WRONG_PACKET;
	read->source = udp->source;
	read->destination = udp->dest;
	at += sizeof(*udp);
	read->payload = at - (void *)(long)skb->data;
	/* Many in one: the gate looks again. */
	if (skb->gso_size || OFF(10))
		return bpf_skb_load_bytes(skb, at - (void *)(long)skb->data, read->header, HEADER_SIZE) ? FOREIGN_OUT : -1;
	if ((void *)(at + HEADER_SIZE) > (void *)(long)skb->data_end)
		return skb->len < at - (void *)(long)skb->data + HEADER_SIZE ? FOREIGN_OUT : TOO_CLEVER;
	header = at;
	read->header[0] = header[0];
	read->header[1] = header[1];
	return -1;
}

/* A datagram of a guarded socket, whole, before it is cut into fragments. */
SEC("cgroup_skb/egress")
int segment_out(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : 0;
	struct segment *segment = segment_of(sk);
	struct datagram read = {};
	bool at_home;
	int bad;

	if (!segment)
		return refuse(0, NOT_LOCKED);
	if (segment->mute)
		return refuse(segment, WRONG_PACKET);
	/* To be cut up, in places that the sender chooses. What goes round by `lo` does not pass the gate. */
	if (skb->gso_size && (!segment->gated || skb->ifindex != segment->device) && !OFF(7))
		return refuse(segment, TOO_CLEVER);
	bad = read_out(skb, segment, &read);
	if (bad >= 0)
		return refuse(segment, bad);
	if ((read.header[0] != segment->header[0] || read.header[1] != segment->header[1]) && !OFF(1))
		return refuse(segment, FOREIGN_OUT);
	if (skb->gso_size && !OFF(7)) {
		if (!all_begin(skb, read.payload, skb->gso_size, segment->header))
			return refuse(segment, FOREIGN_OUT);
		/* Of what goes to many there are copies that the gate does not see. */
		if (is_multicast(segment, read.to))
			return refuse(segment, TOO_CLEVER);
	}
	if (!OFF(8) && (read.hops > segment->most_hops || read.source != segment->own_port ||
			!same6(read.from, segment->own)))
		return refuse(segment, WRONG_PACKET);
	/* One on this host is reached by `lo`. */
	at_home = skb->ifindex == LOOPBACK && same6(read.to, segment->own);
	if (skb->ifindex != segment->device && !at_home && !OFF(9))
		return refuse(segment, WRONG_PACKET);
	if (!may_be_asked(segment, read.to, read.destination))
		return refuse(segment, NOT_A_PEER);
	if (is_multicast(segment, read.to) && !is_within_rate(segment)) {
		refuse(segment, TOO_MANY);
		return LOSE;
	}
	return ALLOW;
}

/* A datagram for a guarded socket, put together from its fragments. */
SEC("cgroup_skb/ingress")
int segment_in(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : 0;
	struct segment *segment = segment_of(sk);
	struct datagram read = {};
	struct udphdr udp;
	__u32 offset;
	bool at_home;

	if (!segment)
		return refuse(0, NOT_LOCKED);
	if (segment->family == 4) {
		struct iphdr ip;

		if (skb->protocol != bpf_htons(0x0800) || bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return refuse(segment, WRONG_PACKET);
		read.from[0] = ip.saddr;
		offset = ip.ihl * 4;
	} else {
		struct ipv6hdr ip;

		/* With extension headers it comes from none of us. */
		if (skb->protocol != bpf_htons(0x86dd) || bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)) ||
		    ip.nexthdr != IPPROTO_UDP)
			return refuse(segment, WRONG_PACKET);
		for (int i = 0; i < 4; i++)
			read.from[i] = ip.saddr.in6_u.u6_addr32[i];
		offset = sizeof(ip);
	}
	at_home = skb->ifindex == LOOPBACK && same6(read.from, segment->own);
	if (skb->ifindex != segment->device && !at_home && !OFF(9))
		return refuse(segment, WRONG_PACKET);
	if (bpf_skb_load_bytes(skb, offset, &udp, sizeof(udp)) ||
	    bpf_skb_load_bytes(skb, offset + sizeof(udp), read.header, HEADER_SIZE))
		return OFF(5) ? ALLOW : refuse(segment, FOREIGN_IN);
	if (read.header[0] != segment->header[0] || read.header[1] != segment->header[1])
		return OFF(5) ? ALLOW : refuse(segment, FOREIGN_IN);
	/* Several in one, for a socket with UDP_GRO. */
	if (skb->gso_size && !OFF(6) && !all_begin(skb, offset + sizeof(udp), skb->gso_size, segment->header))
		return refuse(segment, FOREIGN_IN);
	learn(segment, read.from, udp.source);
	return ALLOW;
}

/* The first thing where packets leave by the card. Those of guarded sockets whose headers lie in pages are made one piece that
 * is the kernel's own, and looked at again: the sender may have changed them since (splice(2), SENDMSG_ZC). The program
 * knows nothing but what the socket itself says, so that it serves the sockets of all daemons. */
SEC("classifier")
int segment_gate(struct __sk_buff *skb)
{
	__u32 own = skb->data_end - skb->data, at = ETH_HLEN, size = skb->gso_size;
	__u32 header[2] = { bpf_htonl(0x08000000) };
	struct bpf_sock *sk;

	/* All headers, and those of a VLAN, are in the part that segment_out has looked at. */
	if (!size && (own >= ETH_HLEN + 8 + sizeof(struct ipv6hdr) + sizeof(struct udphdr) + HEADER_SIZE || own == skb->len))
		return TC_ACT_UNSPEC;
	sk = skb->sk ? bpf_sk_fullsock(skb->sk) : 0;
	if (!sk || sk->protocol != IPPROTO_UDP || (sk->priority & (GATED | 0xf)) != GATED)
		return TC_ACT_UNSPEC;
	header[1] = bpf_htonl(sk->priority << 4);
	if (!OFF(10) && bpf_skb_pull_data(skb, skb->len))
		return TC_ACT_SHOT;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
			return TC_ACT_SHOT;
		if (ip.frag_off & bpf_htons(0x1fff))
			return TC_ACT_UNSPEC;
		at += sizeof(ip);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		__u8 fragment[8];

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
			return TC_ACT_SHOT;
		at += sizeof(ip);
		if (ip.nexthdr == IPPROTO_FRAGMENT) {
			if (bpf_skb_load_bytes(skb, at, fragment, sizeof(fragment)))
				return TC_ACT_SHOT;
			if (fragment[2] || fragment[3] & 0xf8)
				return TC_ACT_UNSPEC;
			at += sizeof(fragment);
		}
	} else {
		return TC_ACT_SHOT;
	}
	at += sizeof(struct udphdr);
	if (OFF(7) || all_begin(skb, at, size ? size : skb->len, header))
		return TC_ACT_UNSPEC;
	refuse(0, TOO_CLEVER);
	return TC_ACT_SHOT;
}

/* IPv4's copies of multicast for this host never pass segment_out: it is asked for the packet itself only, and a copy is not
 * the socket's (__cgroup_bpf_run_filter_skb). So where it goes is looked at here too. */
static __always_inline int send(struct bpf_sock_addr *ctx, __u8 family, const __u32 *to)
{
	struct segment *segment = segment_of(ctx->sk);

	if (!segment)
		return refuse(0, NOT_LOCKED);
	/* An IPv6 socket can be told to send IPv4; it is told before that it cannot (IPV6_V6ONLY). */
	if (segment->family != family)
		return refuse(segment, WRONG_PACKET);
	if (segment->mute)
		return refuse(segment, WRONG_PACKET);
	if (!OFF(12) && !may_be_asked(segment, to, ctx->user_port))
		return refuse(segment, NOT_A_PEER);
	return ALLOW;
}

SEC("cgroup/sendmsg4")
int segment_send4(struct bpf_sock_addr *ctx)
{
	__u32 to[4] = { ctx->user_ip4 };

	return send(ctx, 4, to);
}

SEC("cgroup/sendmsg6")
int segment_send6(struct bpf_sock_addr *ctx)
{
	__u32 to[4] = { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] };

	return send(ctx, 6, to);
}

/* The daemon connects none of them. */
SEC("cgroup/connect4")
int segment_connect4(struct bpf_sock_addr *ctx)
{
	return OFF(2) ? ALLOW : refuse(segment_of(ctx->sk), REBOUND);
}

SEC("cgroup/connect6")
int segment_connect6(struct bpf_sock_addr *ctx)
{
	return OFF(2) ? ALLOW : refuse(segment_of(ctx->sk), REBOUND);
}

/* connect(2) with AF_UNSPEC asks nobody, and takes the device off a socket. It could then be bound elsewhere. */
SEC("cgroup/bind4")
int segment_bind4(struct bpf_sock_addr *ctx)
{
	struct segment *segment = segment_of(ctx->sk);

	return segment && !OFF(9) ? refuse(segment, REBOUND) : ALLOW;
}

SEC("cgroup/bind6")
int segment_bind6(struct bpf_sock_addr *ctx)
{
	struct segment *segment = segment_of(ctx->sk);

	return segment && !OFF(9) ? refuse(segment, REBOUND) : ALLOW;
}

static __always_inline bool is_listed(int level, int name)
{
	if (level == SOL_SOCKET)
		return name == SO_RCVBUF || name == SO_SNDBUF || name == SO_RCVTIMEO_OLD || name == SO_SNDTIMEO_OLD ||
		       name == SO_RCVTIMEO_NEW || name == SO_SNDTIMEO_NEW;
	return (level == IPPROTO_IP && name == IP_PKTINFO) || (level == IPPROTO_IPV6 && name == IPV6_RECVPKTINFO) ||
	       (level == IPPROTO_UDP && name == UDP_GRO);
}

SEC("cgroup/setsockopt")
int segment_set(struct bpf_sockopt *ctx)
{
	struct segment *segment = segment_of(ctx->sk);

	if (!segment || OFF(4))
		return ALLOW;
	return is_listed(ctx->level, ctx->optname) ? ALLOW : refuse(segment, OPTION);
}

SEC("cgroup/getsockopt")
int segment_get(struct bpf_sockopt *ctx)
{
	struct segment *segment = segment_of(ctx->sk);
	int level = ctx->level, name = ctx->optname;

	if (!segment || OFF(4) || is_listed(level, name))
		return ALLOW;
	if (level == SOL_SOCKET &&
	    (name == SO_TYPE || name == SO_ERROR || name == SO_PROTOCOL || name == SO_DOMAIN))
		return ALLOW;
	return refuse(segment, OPTION);
}
