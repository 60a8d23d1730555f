// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The programs, one line each: where they sit, and which room of lib/ decides.
//
//   wire_ingress, wire_egress   tcx on every device that some tenant names
//   lo_ingress                  tcx on lo: traffic between sockets of this host crosses no other device
//   made                        a cgroup: a new socket is its thread's tenant's
//   set_option, get_option      a cgroup: the socket options of option.h, and SO_MARK
//   bind4/6                     a cgroup: a socket bound to a tenant's address is that tenant's; a listener is moved
//                               where another's stands in its way
//   forked                      every fork and clone: children and threads begin where their maker is
//   connect4/6, sendmsg4/6      a cgroup: a local destination that is another's is EACCES; an answer finds its way back
//   by_alias4/6                 lwt_xmit of the routes for aliases: an answer becomes the tenant's
//   after_bind4/6, on_release   a cgroup: which UDP sockets a port has
//   getsockname4/6              a cgroup: a listener that was moved shows the place it asked for
//   on_listen                   a cgroup: a tenant's listener is entered
//   on_lookup                   sk_lookup: who calls a place is steered to that tenant's listener
//   on_receive                  a cgroup: a tenant's own socket gets that tenant's packets only; a listener gives our field
//                               of a SYN's mark to what it accepts, and only that
//   remark                      an iterator over TCP sockets: their marks move with the field
//   delivered4/6, leaving4/6    netfilter, LOCAL_IN and POST_ROUTING: what the programs on devices cannot see
#include <stdbool.h>
#include <stddef.h>

#include "lib/abi.h"
#include "lib/guard.h"
#include "lib/listeners.h"
#include "lib/remark.h"
#include "lib/sockets.h"
#include "lib/tenancy.h"
#include "lib/wire.h"

SEC("classifier")
int wire_ingress(struct __sk_buff *skb)
{
	if (is_for_a_vlan(skb))
		return TCX_NEXT;
	if (skb->pkt_type == PACKET_LOOPBACK)
		return looped_back(skb);
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return ingress4(skb);
	case bpf_htons(ETH_P_IPV6):
		return ingress6(skb);
	case bpf_htons(ETH_P_ARP):
		return ingress_arp(skb);
	default:
		return TCX_NEXT;
	}
}

SEC("classifier")
int wire_egress(struct __sk_buff *skb)
{
	/* It has left by a VLAN device above this one: that is where it was judged, here or by the nft guard. */
	if (is_for_a_vlan(skb))
		return TCX_NEXT;
	return egress(skb);
}

SEC("classifier")
int lo_ingress(struct __sk_buff *skb)
{
	return loopback(skb);
}

SEC("cgroup/sock_create")
int on_create(struct bpf_sock *ctx)
{
	return made(ctx);
}

SEC("cgroup/setsockopt")
int on_setsockopt(struct bpf_sockopt *ctx)
{
	return set_option(ctx);
}

SEC("cgroup/getsockopt")
int on_getsockopt(struct bpf_sockopt *ctx)
{
	return get_option(ctx);
}

SEC("tp_btf/sched_process_fork")
int on_fork(__u64 *ctx)
{
	return forked((struct task_struct *)ctx[0], (struct task_struct *)ctx[1]);
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	struct in6 address = { { 0, 0, 0, ctx->user_ip4 } };
	struct owner *owner;

	if (!is_ours(ctx))
		return 1;
	owner = bpf_map_lookup_elem(&fief_own4, &address.w[3]);
	if (!on_its_device(ctx, true))
		return 0;
	note_owned(ctx, slot_bound(ctx, owner));
	return bound(ctx, owner) && placed(ctx, slot_bound(ctx, owner), AF_INET, &address);
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	struct in6 address = { { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] } };
	struct owner *owner;

	if (!is_ours(ctx))
		return 1;
	if (!address.w[0] && !address.w[1] && address.w[2] == bpf_htonl(0xffff))
		owner = bpf_map_lookup_elem(&fief_own4, &address.w[3]);
	else
		owner = bpf_map_lookup_elem(&fief_own6, &address);
	if (!on_its_device(ctx, true))
		return 0;
	note_owned(ctx, slot_bound(ctx, owner));
	return bound(ctx, owner) && placed(ctx, slot_bound(ctx, owner), AF_INET6, &address);
}

SEC("cgroup/post_bind4")
int after_bind4(struct bpf_sock *ctx)
{
	return counted(ctx, !ctx->src_ip4);
}

SEC("cgroup/post_bind6")
int after_bind6(struct bpf_sock *ctx)
{
	__u32 bits = ctx->src_ip6[0] | ctx->src_ip6[1] | ctx->src_ip6[2] | ctx->src_ip6[3];

	return counted(ctx, !bits);
}

SEC("cgroup/sock_release")
int on_release(struct bpf_sock *ctx)
{
	return released(ctx);
}

SEC("cgroup/getsockname4")
int getsockname4(struct bpf_sock_addr *ctx)
{
	return named4(ctx);
}

SEC("cgroup/getsockname6")
int getsockname6(struct bpf_sock_addr *ctx)
{
	return named6(ctx);
}

SEC("sk_lookup")
int on_lookup(struct bpf_sk_lookup *ctx)
{
	return steer(ctx);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	if (!is_ours(ctx))
		return 1;
	if (!on_its_device(ctx, true))
		return 0;
	note_connected(ctx);
	return connect_to4(ctx);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	if (!is_ours(ctx))
		return 1;
	if (!on_its_device(ctx, true))
		return 0;
	note_connected(ctx);
	return connect_to6(ctx);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	if (!is_ours(ctx))
		return 1;
	return on_its_device(ctx, false) && send4(ctx);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	if (!is_ours(ctx))
		return 1;
	return on_its_device(ctx, false) && send6(ctx);
}

SEC("sockops")
int on_listen(struct bpf_sock_ops *ctx)
{
	if (ctx->op == BPF_SOCK_OPS_TCP_LISTEN_CB && is_ours(ctx))
		listens(ctx);
	return 1;
}

SEC("cgroup_skb/ingress")
int on_receive(struct __sk_buff *skb)
{
	return receive(skb);
}

/* BPF_PROG_TYPE_LWT_XMIT: src/raw.rs loads these, as those below. */
SEC("socket")
int by_alias4(struct __sk_buff *skb)
{
	return send_by_alias4(skb);
}

SEC("socket")
int by_alias6(struct __sk_buff *skb)
{
	return send_by_alias6(skb);
}

/* BPF_PROG_TYPE_NETFILTER, for which the loader's library has no section name: src/raw.rs loads these. */
#define NETFILTER SEC("socket")

NETFILTER
int delivered4(struct bpf_nf_ctx *ctx)
{
	return guard_in4(ctx);
}

NETFILTER
int delivered6(struct bpf_nf_ctx *ctx)
{
	return guard_in6(ctx);
}

NETFILTER
int leaving4(struct bpf_nf_ctx *ctx)
{
	return guard_out4(ctx);
}

NETFILTER
int leaving6(struct bpf_nf_ctx *ctx)
{
	return guard_out6(ctx);
}

/* BPF_PROG_TYPE_TRACING, an iterator: src/raw.rs loads it. */
SEC("socket")
int remark(struct iter_tcp *ctx)
{
	return remarked(ctx);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
