/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Two doors beside the devices that tenants name (netfilter programs, Linux 6.4). Programs on devices see only their
 * own device; these hooks belong to the network namespace and see every packet that is delivered or leaves, whatever
 * the device and whatever the cgroup of a process.
 *
 * The kernel's structures are named in part; the loader finds the fields (CO-RE). The packet itself is read with
 * bpf_probe_read_kernel: the helpers that read packets elsewhere are not there for this kind of program. */
#ifndef FIEF_GUARD_H
#define FIEF_GUARD_H

#include "kernel.h"
#include "wire.h"

#define NF_DROP 0
#define NF_ACCEPT 1

#ifndef IPPROTO_IGMP
#define IPPROTO_IGMP 2
#endif

/* A control message with SO_MARK gives one packet another mark than its socket has. A socket that is a tenant's sends
 * that tenant's packets only; one for everybody may say with each answer whose it is. */
static __always_inline bool has_another_mark(struct bpf_nf_ctx *ctx, __u32 slot)
{
	struct sock *sk = ctx->skb->sk;
	unsigned char state;
	__u32 own;

	if (!sk || is_off(TOOTH_MESSAGE))
		return false;
	state = sk->__sk_common.skc_state;
	if (state == SS_TIME_WAIT || state == SS_NEW_SYN_RECV)
		return false;
	own = slot_of(sk->sk_mark);
	if (!own || own == slot)
		return false;
	COUNT(own, refused);
	return true;
}

static __always_inline long read_packet(struct bpf_nf_ctx *ctx, __u32 offset, void *to, __u32 length)
{
	const unsigned char *head = ctx->skb->head;

	return bpf_probe_read_kernel(to, length, head + ctx->skb->network_header + offset);
}

/* A device in the VRF of a tenant with networks, by its group (links.rs of the daemon): addresses there may be anybody's,
 * and are none of the host's stack's. */
static __always_inline bool is_of_networks(const struct net_device *device)
{
	__u32 kind = device->group >> 16;

	return kind == 0xf1 || kind == 0xf2;
}

/* An address of a tenant is called on that tenant's devices, or not at all. */
static __always_inline int guard_delivery(struct bpf_nf_ctx *ctx, const struct owner *called)
{
	if (!called || !called->slot || ctx->state->in->ifindex == FIEF_LOOPBACK || is_off(TOOTH_GUARD_IN))
		return NF_ACCEPT;
	COUNT(called->slot, drop_device_in);
	return NF_DROP;
}

static __always_inline int guard_in4(struct bpf_nf_ctx *ctx)
{
	__be32 address;

	/* The ingress program there has judged it. */
	if (is_device(ctx->state->in->ifindex, FIEF_NAMED) || is_of_networks(ctx->state->in))
		return NF_ACCEPT;
	if (read_packet(ctx, offsetof(struct iphdr, daddr), &address, sizeof(address)))
		return NF_DROP;
	return guard_delivery(ctx, bpf_map_lookup_elem(&fief_own4, &address));
}

static __always_inline int guard_in6(struct bpf_nf_ctx *ctx)
{
	struct in6 address;

	/* The ingress program there has judged it. */
	if (is_device(ctx->state->in->ifindex, FIEF_NAMED) || is_of_networks(ctx->state->in))
		return NF_ACCEPT;
	if (read_packet(ctx, offsetof(struct ipv6hdr, daddr), &address, sizeof(address)))
		return NF_DROP;
	return guard_delivery(ctx, bpf_map_lookup_elem(&fief_own6, &address));
}

/* IGMPv3 and MLDv2 reports: see is_membership_report. */
static __always_inline bool is_report4(const struct iphdr *ip)
{
	return ip->protocol == IPPROTO_IGMP && ip->daddr == bpf_htonl(0xe0000016);
}

static __always_inline bool is_report6(const struct ipv6hdr *ip)
{
	struct in6 *to = (struct in6 *)&ip->daddr;

	return ip->nexthdr == IPPROTO_HOPOPTS && to->w[0] == bpf_htonl(0xff020000) && !to->w[1] && !to->w[2] &&
	       to->w[3] == bpf_htonl(0x16);
}

/* Leaving, with a tenant's mark: by the tenant's devices only. */
static __always_inline bool leaves_by_its_device(struct bpf_nf_ctx *ctx, __u32 slot)
{
	__u32 ifindex = ctx->state->out->ifindex;

	return ifindex == FIEF_LOOPBACK || may_use(slot, ifindex);
}

/* Leaving without a mark and with a tenant's address as its source, as answers of a UDP server with one socket for
 * everybody do: by the host's own routes, which may lead to another tenant's router. The kernel's own words to
 * neighbours, groups and senders (ICMP, IGMP) take any address of the device, and pass. */
static __always_inline int guard_unmarked(struct bpf_nf_ctx *ctx, const struct owner *source, bool is_to_alias)
{
	int out = ctx->state->out->ifindex;

	if (!source || !source->slot || out == FIEF_LOOPBACK || is_off(TOOTH_GUARD_SOURCE) ||
	    is_of_networks(ctx->state->out))
		return NF_ACCEPT;
	/* It is translated behind this hook, and comes here once more; the egress program there stops what is not. */
	if (is_to_alias && is_device(out, FIEF_NAMED))
		return NF_ACCEPT;
	COUNT(source->slot, drop_unmarked);
	return NF_DROP;
}

/* A socket that only names a device of a VRF, by whatever door, is not its tenant's: its packets have no mark. What the
 * kernel says by itself to neighbours, groups and senders has none either, and passes. */
#define ICMP_ECHO_4 8
#define ICMP_EXT_ECHO_4 42
#define ICMP_ECHO_6 128
#define ICMP_EXT_ECHO_6 160

static __always_inline int guard_vrf(__u32 alone, bool is_the_kernels)
{
	if (is_the_kernels || is_off(TOOTH_VRF_OUT))
		return NF_ACCEPT;
	COUNT(alone, drop_unmarked);
	return NF_DROP;
}

static __always_inline int guard_vrf4(struct bpf_nf_ctx *ctx, __u32 alone, const struct iphdr *ip)
{
	__u8 type;

	if (ip->protocol != IPPROTO_ICMP)
		return guard_vrf(alone, ip->protocol == IPPROTO_IGMP);
	if (read_packet(ctx, ip->ihl * 4, &type, sizeof(type)))
		return NF_DROP;
	return guard_vrf(alone, type != ICMP_ECHO_4 && type != ICMP_EXT_ECHO_4);
}

static __always_inline int guard_vrf6(struct bpf_nf_ctx *ctx, __u32 alone, const struct ipv6hdr *ip)
{
	__u8 type;

	if (ip->nexthdr != IPPROTO_ICMPV6)
		return guard_vrf(alone, is_report6(ip));
	if (read_packet(ctx, sizeof(*ip), &type, sizeof(type)))
		return NF_DROP;
	return guard_vrf(alone, type != ICMP_ECHO_6 && type != ICMP_EXT_ECHO_6);
}

static __always_inline int guard_out4(struct bpf_nf_ctx *ctx)
{
	__u32 slot = slot_of(ctx->skb->mark), alone = slot ? 0 : alone_on(ctx->state->out->ifindex);
	struct iphdr ip;

	if (has_another_mark(ctx, slot))
		return NF_DROP;
	if (slot && leaves_by_its_device(ctx, slot))
		return NF_ACCEPT;
	if (read_packet(ctx, 0, &ip, sizeof(ip)))
		return NF_DROP;
	if (alone)
		return guard_vrf4(ctx, alone, &ip);
	if (!slot)
		return ip.protocol == IPPROTO_ICMP || ip.protocol == IPPROTO_IGMP ?
			       NF_ACCEPT :
			       guard_unmarked(ctx, bpf_map_lookup_elem(&fief_own4, &ip.saddr),
					      is_alias4(ip.daddr));
	if (is_report4(&ip) || is_off(TOOTH_GUARD_OUT))
		return NF_ACCEPT;
	COUNT(slot, drop_device_out);
	return NF_DROP;
}

static __always_inline int guard_out6(struct bpf_nf_ctx *ctx)
{
	__u32 slot = slot_of(ctx->skb->mark), alone = slot ? 0 : alone_on(ctx->state->out->ifindex);
	struct ipv6hdr ip;

	if (has_another_mark(ctx, slot))
		return NF_DROP;
	if (slot && leaves_by_its_device(ctx, slot))
		return NF_ACCEPT;
	if (read_packet(ctx, 0, &ip, sizeof(ip)))
		return NF_DROP;
	if (alone)
		return guard_vrf6(ctx, alone, &ip);
	if (!slot)
		return ip.nexthdr == IPPROTO_ICMPV6 || is_report6(&ip) ?
			       NF_ACCEPT :
			       guard_unmarked(ctx, bpf_map_lookup_elem(&fief_own6, (struct in6 *)&ip.saddr),
					      is_alias6((struct in6 *)&ip.daddr));
	if (is_report6(&ip) || is_off(TOOTH_GUARD_OUT))
		return NF_ACCEPT;
	COUNT(slot, drop_device_out);
	return NF_DROP;
}

#endif
