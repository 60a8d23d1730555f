/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The field moves: every TCP socket of the namespace, by an iterator (net/ipv4/tcp_ipv4.c), under its lock. Connections
 * that nobody has accepted yet and those that nobody holds any more are among them. */
#ifndef FIEF_REMARK_H
#define FIEF_REMARK_H

#include "kernel.h"
#include "sockets.h"

const volatile __u32 fief_gone_mask = 0; /* a former field, to be taken off where it still says the same */
const volatile __u32 fief_gone_shift = 0;

/* The iterator's arguments (DEFINE_BPF_ITER_FUNC(tcp, ...)): pointers in places of eight bytes. */
struct iter_tcp {
	void *meta;
	struct sock_common *sk_common;
};

/* A foreign bit in the field is no tenant: the address must be the tenant's, or, where it says nothing, the tenant must
 * exist. */
static __always_inline bool is_tenants(struct sock_common *sk, __u32 slot)
{
	struct owner *owner = 0;
	__be32 address = sk->skc_rcv_saddr;

	if (sk->skc_family == AF_INET6) {
		struct in6 six;

		bpf_probe_read_kernel(&six, sizeof(six), &sk->skc_v6_rcv_saddr);

		if (!six.w[0] && !six.w[1] && six.w[2] == bpf_htonl(0xffff))
			owner = bpf_map_lookup_elem(&fief_own4, &six.w[3]);
		else
			owner = bpf_map_lookup_elem(&fief_own6, &six);
	} else {
		owner = bpf_map_lookup_elem(&fief_own4, &address);
	}
	if (is_off(TOOTH_TAKEN_OVER))
		return true;
	return owner ? owner->slot == slot : bpf_map_lookup_elem(&fief_tenants, &slot) != 0;
}

static __always_inline int remarked(struct iter_tcp *ctx)
{
	struct sock_common *sk = ctx->sk_common;
	__u32 mark, slot, wanted;
	void *tcp;

	if (!sk)
		return 0;
	/* What is not yet, or no longer, a whole socket gives nothing here. */
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || bpf_getsockopt(tcp, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)))
		return 0;
	slot = slot_of(mark);
	if (!slot)
		return 0;
	wanted = mark;
	if (fief_gone_mask && (mark & fief_gone_mask) >> fief_gone_shift == slot)
		wanted = mark & ~fief_gone_mask;
	if (fief_also_mask && is_tenants(sk, slot))
		wanted = with_slot(mark, slot);
	if (wanted != mark)
		bpf_setsockopt(tcp, SOL_SOCKET, SO_MARK, &wanted, sizeof(wanted));
	return 0;
}

#endif
