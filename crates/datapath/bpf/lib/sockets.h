/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What sockets ask for (cgroup programs). A cgroup reaches into every network namespace, so each program first makes
 * sure that the socket lives in ours. */
#ifndef FIEF_SOCKETS_H
#define FIEF_SOCKETS_H

#include <linux/errno.h>
#include <stdbool.h>

#include "wire.h"

#ifndef SOL_SOCKET
#define SOL_SOCKET 1
#define SO_MARK 36
#define SO_BINDTODEVICE 25
#endif
#ifndef SO_BINDTOIFINDEX
#define SO_BINDTOIFINDEX 62
#endif

#define AF_INET 2
#define AF_INET6 10

static __always_inline __u32 socket_slot(struct bpf_sock_addr *ctx)
{
	return ctx->sk ? slot_of(ctx->sk->mark) : 0;
}

/* Refuses a local destination that is another's with EACCES; what is not local is the routing tables' affair. */
static __always_inline int reach_local(struct bpf_sock_addr *ctx, __u32 from, bool is_local,
				       const struct owner *called)
{
	__u32 to = called ? called->slot : 0;

	if (!is_local && !called)
		return 1;
	/* With `local` behind the tree another's address is a remote one to this tenant, and may well exist there. */
	if (fief_local_moved && from && called)
		return 1;
	if (may_reach(from, to))
		return 1;
	COUNT(from ? from : to, drop_crossing);
	bpf_set_retval(-EACCES);
	return 0;
}

static __always_inline int reach4(struct bpf_sock_addr *ctx, __u32 from, __be32 address)
{
	/* 0.0.0.0 as a destination means this host (RFC 1122, 3.2.1.3). */
	bool is_local = !address || (bpf_ntohl(address) >> 24) == 127;

	return reach_local(ctx, from, is_local, bpf_map_lookup_elem(&fief_own4, &address));
}

static __always_inline int reach6(struct bpf_sock_addr *ctx, __u32 from)
{
	struct in6 a = { { ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3] } };
	bool is_local;

	if (!a.w[0] && !a.w[1] && a.w[2] == bpf_htonl(0xffff))
		return reach4(ctx, from, a.w[3]);
	is_local = !a.w[0] && !a.w[1] && !a.w[2] && (!a.w[3] || a.w[3] == bpf_htonl(1));
	return reach_local(ctx, from, is_local, bpf_map_lookup_elem(&fief_own6, &a));
}

static __always_inline bool is_ours(void *ctx)
{
	return bpf_get_netns_cookie(ctx) == fief_netns_cookie;
}

/* Is this local destination one where a packet of `slot` can have come in this namespace? */
static __always_inline bool is_called_by(__u32 slot, const struct owner *called, bool is_loopback)
{
	__u32 *flags;

	if (called && called->slot == slot)
		return true;
	if (!slot || !(called ? !called->slot : is_loopback))
		return false;
	flags = bpf_map_lookup_elem(&fief_tenants, &slot);
	return flags && *flags & FIEF_HOST_ACCESS;
}

#endif
