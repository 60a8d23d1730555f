/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Answers over UDP from a socket that is nobody's, as it sends them or connects to whom they go (cgroup programs): see
 * alias.h. In these hooks it is too late for a mark to count, but not for addresses. */
#ifndef FIEF_ANSWERS_H
#define FIEF_ANSWERS_H

#include "alias.h"
#include "listeners.h"
#include "sockets.h"

#define SOL_IP 0
#define SOL_IPV6 41
/* These the headers of the kernel's interface leave out, or have only where libc's are. */
#ifndef IP_PKTINFO
#define IP_PKTINFO 8
#endif
#ifndef IPV6_RECVPKTINFO
#define IPV6_RECVPKTINFO 49
#define IPV6_2292PKTINFO 2
#endif
#ifndef SO_RCVMARK
#define SO_RCVMARK 75
#endif

static __always_inline int no_way(struct bpf_sock_addr *ctx, int error)
{
	bpf_set_retval(error);
	return 0;
}

/* Whom an alias stands for, if this socket may answer it: one that is nobody's may, like one bound to the address. */
static __always_inline struct answered *answer_to(const struct in6 *alias, __u32 slot)
{
	__u64 number = number_of(alias);
	struct answered *answered = bpf_map_lookup_elem(&fief_answers, &number);

	if (!answered || (slot && slot != answered->to.slot) || is_mapped(alias) != is_mapped(&answered->to.remote))
		return 0;
	return answered;
}

static __always_inline int send4(struct bpf_sock_addr *ctx)
{
	__be32 to = ctx->user_ip4, source = ctx->msg_src_ip4;
	struct owner *owner = source ? bpf_map_lookup_elem(&fief_own4, &source) : 0;
	struct in6 alias = mapped(to);
	__u32 slot = socket_slot(ctx);
	struct correspondent who = {};
	__u64 number;
	int reached;

	if (is_alias4(to)) {
		struct answered *answered = answer_to(&alias, slot);

		if (!answered)
			return no_way(ctx, -EHOSTUNREACH);
		ctx->msg_src_ip4 = answered->to.local.w[3];
		/* A tenant's own socket needs no detour. */
		if (slot)
			ctx->user_ip4 = answered->to.remote.w[3];
		return 1;
	}
	if (slot || !owner || !owner->slot)
		return is_off(TOOTH_SENDMSG) ? 1 : reach4(ctx, slot, to);
	reached = is_off(TOOTH_SENDMSG) ? 1 : reach4(ctx, owner->slot, to);
	if (!reached || ctx->protocol != IPPROTO_UDP || !ctx->sk)
		return reached;
	who.slot = owner->slot;
	who.port = bpf_htons(ctx->sk->src_port);
	who.remote = alias;
	who.local = mapped(source);
	number = number_for(&who);
	if (!number)
		return no_way(ctx, -ENOBUFS);
	ctx->user_ip4 = alias4(number);
	return 1;
}

static __always_inline int send6(struct bpf_sock_addr *ctx)
{
	struct in6 to = { { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] } };
	struct in6 source = { { ctx->msg_src_ip6[0], ctx->msg_src_ip6[1], ctx->msg_src_ip6[2], ctx->msg_src_ip6[3] } };
	struct owner *owner = bpf_map_lookup_elem(&fief_own6, &source);
	__u32 slot = socket_slot(ctx);
	struct correspondent who = {};
	struct in6 alias;
	__u64 number;
	int reached;

	if (is_alias6(&to)) {
		struct answered *answered = answer_to(&to, slot);

		if (!answered)
			return no_way(ctx, -EHOSTUNREACH);
		ctx->msg_src_ip6[0] = answered->to.local.w[0];
		ctx->msg_src_ip6[1] = answered->to.local.w[1];
		ctx->msg_src_ip6[2] = answered->to.local.w[2];
		ctx->msg_src_ip6[3] = answered->to.local.w[3];
		if (!slot)
			return 1;
		alias = answered->to.remote;
		goto rewrite;
	}
	if (slot || !owner || !owner->slot)
		return is_off(TOOTH_SENDMSG) ? 1 : reach6(ctx, slot);
	reached = is_off(TOOTH_SENDMSG) ? 1 : reach6(ctx, owner->slot);
	if (!reached || ctx->protocol != IPPROTO_UDP || !ctx->sk || !is_unicast6(&to))
		return reached;
	who.slot = owner->slot;
	who.port = bpf_htons(ctx->sk->src_port);
	who.remote = to;
	who.local = source;
	number = number_for(&who);
	if (!number)
		return no_way(ctx, -ENOBUFS);
	alias = alias6(number);
rewrite:
	ctx->user_ip6[0] = alias.w[0];
	ctx->user_ip6[1] = alias.w[1];
	ctx->user_ip6[2] = alias.w[2];
	ctx->user_ip6[3] = alias.w[3];
	return 1;
}

/* A socket that is connected to an alias is the tenant's from now on, has the address that was called, and knows the
 * sender's own: getpeername shows no alias. */
static __always_inline int join(struct bpf_sock_addr *ctx, const struct answered *answered)
{
	__u32 mark;

	if (!answered || !ctx->sk)
		return no_way(ctx, -EHOSTUNREACH);
	mark = with_slot(ctx->sk->mark, answered->to.slot);
	bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	/* One that is bound to every address already takes the tenant's own for a source. */
	if (ctx->family == AF_INET) {
		struct sockaddr_in own = { .sin_family = AF_INET, .sin_addr.s_addr = answered->to.local.w[3] };

		bpf_bind(ctx, (struct sockaddr *)&own, sizeof(own));
	} else {
		struct sockaddr_in6 own = { .sin6_family = AF_INET6 };

		__builtin_memcpy(&own.sin6_addr, &answered->to.local, sizeof(own.sin6_addr));
		bpf_bind(ctx, (struct sockaddr *)&own, sizeof(own));
	}
	return 1;
}

static __always_inline int connect_to4(struct bpf_sock_addr *ctx)
{
	struct in6 alias = mapped(ctx->user_ip4);
	struct answered *answered;

	if (moved(ctx))
		return no_way(ctx, -EADDRINUSE);
	if (ctx->protocol != IPPROTO_UDP || !is_alias4(ctx->user_ip4))
		return is_off(TOOTH_CONNECT) ? 1 : reach4(ctx, socket_slot(ctx), ctx->user_ip4);
	answered = answer_to(&alias, socket_slot(ctx));
	if (!join(ctx, answered))
		return 0;
	ctx->user_ip4 = answered->to.remote.w[3];
	return 1;
}

static __always_inline int connect_to6(struct bpf_sock_addr *ctx)
{
	struct in6 to = { { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] } };
	struct answered *answered;

	if (moved(ctx))
		return no_way(ctx, -EADDRINUSE);
	if (ctx->protocol != IPPROTO_UDP || !(is_mapped(&to) ? is_alias4(to.w[3]) : is_alias6(&to)))
		return is_off(TOOTH_CONNECT) ? 1 : reach6(ctx, socket_slot(ctx));
	answered = answer_to(&to, socket_slot(ctx));
	if (!join(ctx, answered))
		return 0;
	ctx->user_ip6[0] = answered->to.remote.w[0];
	ctx->user_ip6[1] = answered->to.remote.w[1];
	ctx->user_ip6[2] = answered->to.remote.w[2];
	ctx->user_ip6[3] = answered->to.remote.w[3];
	return 1;
}

/* Counts a socket at its port as what it is now. */
static __always_inline void count_as(struct asking *asking, __u32 what)
{
	__u32 port = asking->port;
	struct users *users = bpf_map_lookup_elem(&fief_ports, &port);

	if (!users || asking->counts_as == what)
		return;
	/* The new place before the old one: a datagram in between looks at its socket. */
	if (what == PLAIN)
		__sync_fetch_and_add(&users->plain, 1);
	else if (what == OTHER)
		__sync_fetch_and_add(&users->other, 1);
	if (asking->counts_as == PLAIN)
		__sync_fetch_and_add(&users->plain, -1);
	else if (asking->counts_as == OTHER)
		__sync_fetch_and_add(&users->other, -1);
	asking->counts_as = what;
}

/* A UDP socket was bound. */
static __always_inline int counted(struct bpf_sock *ctx, bool is_for_any)
{
	struct asking *asking;

	if (ctx->protocol != IPPROTO_UDP || bpf_get_netns_cookie(ctx) != fief_netns_cookie)
		return 1;
	asking = bpf_sk_storage_get(&fief_asking, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!asking || (!is_for_any && !asking->is_owned))
		return 1;
	asking->port = ctx->src_port;
	count_as(asking, asking->asks || asking->is_owned ? OTHER : PLAIN);
	return 1;
}

static __always_inline int released(struct bpf_sock *ctx)
{
	struct asking *asking;

	if (ctx->protocol != IPPROTO_UDP)
		return 1;
	asking = bpf_sk_storage_get(&fief_asking, ctx, 0, 0);
	if (asking)
		count_as(asking, NOBODY);
	return 1;
}

/* Before bind: a tenant's. */
static __always_inline void note_owned(struct bpf_sock_addr *ctx, __u32 slot)
{
	struct asking *asking;

	if (!slot || ctx->protocol != IPPROTO_UDP || !ctx->sk)
		return;
	asking = bpf_sk_storage_get(&fief_asking, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (asking)
		asking->is_owned = 1;
}

/* A bound socket becomes a tenant's, by an administrator's SO_MARK. */
static __always_inline void note_marked(struct bpf_sock *sk)
{
	struct asking *asking = sk->protocol == IPPROTO_UDP ? bpf_sk_storage_get(&fief_asking, sk, 0, 0) : 0;

	if (asking && asking->counts_as == PLAIN)
		count_as(asking, OTHER);
}

/* It hears one correspondent only from now on. */
static __always_inline void note_connected(struct bpf_sock_addr *ctx)
{
	struct asking *asking;

	if (ctx->protocol != IPPROTO_UDP || !ctx->sk)
		return;
	asking = bpf_sk_storage_get(&fief_asking, ctx->sk, 0, 0);
	if (asking && asking->counts_as == PLAIN)
		count_as(asking, OTHER);
}

/* Notes that a socket asks, or no longer asks, which address was called; the kernel takes the option as ever. */
static __always_inline void note_asking(struct bpf_sockopt *ctx)
{
	struct asking *asking;
	__u32 on = 0;
	bool is_it = false;

	if (ctx->level == SOL_IP)
		is_it = ctx->optname == IP_PKTINFO || ctx->optname == IP_RECVORIGDSTADDR;
	else if (ctx->level == SOL_IPV6)
		is_it = ctx->optname == IPV6_RECVPKTINFO || ctx->optname == IPV6_2292PKTINFO ||
			ctx->optname == IPV6_RECVORIGDSTADDR;
	else if (ctx->level == SOL_SOCKET)
		is_it = ctx->optname == SO_RCVMARK;
	if (!is_it || !ctx->sk || ctx->sk->protocol != IPPROTO_UDP)
		return;
	if ((void *)(ctx->optval + sizeof(on)) <= ctx->optval_end)
		on = *(__u32 *)ctx->optval;
	else if ((void *)(ctx->optval + 1) <= ctx->optval_end)
		on = *(__u8 *)ctx->optval;
	asking = bpf_sk_storage_get(&fief_asking, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!asking)
		return;
	asking->asks = !!on;
	if (asking->counts_as != NOBODY && ctx->sk->state != TCP_ESTABLISHED)
		count_as(asking, on || asking->is_owned ? OTHER : PLAIN);
}

#endif
