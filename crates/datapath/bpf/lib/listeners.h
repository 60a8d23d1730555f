/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* TCP listeners of some tenants: a tenant's own beside others on the same port, and one for a list of tenants.
 *
 * The kernel has one set of ports for all sockets of a namespace. A bind that another's listener stands in the way of is
 * moved to a port of 127.0.0.1, ::1 or [::] that the kernel chooses; getsockname shows what was asked for; and what calls the
 * asked-for place is steered to it (sk_lookup) by the tenant of the address called. A socket for a list of tenants is
 * moved always.
 *
 *   bind4/6          whose listener has this place? none: as asked; this tenant's: where that one is; another's: moved
 *   accepted         (sockops, listen) a tenant's or a moved listener is entered under its places
 *   steer            (sk_lookup) the tenant's own place, else the host's, else what the kernel finds
 *   named4/6         (getsockname) the asked-for place
 *   connect4/6       a moved socket is no client: its source port would be another one
 *
 * UDP is not moved: an answer would leave by the wrong port. */
#ifndef FIEF_LISTENERS_H
#define FIEF_LISTENERS_H

#include "kernel.h"
#include "sockets.h"

#define CAP_NET_BIND_SERVICE 10
/* net.ipv4.ip_unprivileged_port_start of a new namespace; a program cannot read the sysctl. */
#define UNPRIVILEGED_PORTS 1024
#define TCP_LISTEN 10
#define SOCK_STREAM 1
/* Tenants that one listener can be limited to. */
#define LISTED 64

/* Where a listener is called: the tenant, and the address and port that were asked for; no address is any. */
struct place {
	__u32 slot;
	__be16 port;
	__u16 family;
	struct in6 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 16384);
	__type(key, struct place);
	__type(value, __u64);
} fief_listeners SEC(".maps");

/* Port -> the tenant's listener for any address that has it itself. The kernel finds it for everybody. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 8192);
	__type(key, __u32);
	__type(value, struct place);
} fief_held SEC(".maps");

/* What a socket asked for: a place, where it was moved; tenants, where it is limited to some. */
struct asked {
	struct in6 address;
	__be16 port;
	__u16 is_moved;
	__u32 count;
	__u32 slots[LISTED];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct asked);
} fief_asked SEC(".maps");

/* An address out of a context. All fields are read first: of two branches that each read their own the compiler makes
 * one with a computed offset, which the verifier refuses. */
#define LOCAL_ADDRESS(ctx_)                                                                              \
	({                                                                                               \
		__u32 v4_ = (ctx_)->local_ip4, a_ = (ctx_)->local_ip6[0], b_ = (ctx_)->local_ip6[1];    \
		__u32 c_ = (ctx_)->local_ip6[2], d_ = (ctx_)->local_ip6[3];                             \
                                                                                                         \
		asm volatile("" : "+r"(v4_), "+r"(a_), "+r"(b_), "+r"(c_), "+r"(d_));                   \
		(ctx_)->family == AF_INET ? (struct in6){ { 0, 0, 0, v4_ } } : (struct in6){ { a_, b_, c_, d_ } }; \
	})

/* Has any socket of the host's ever asked for something? Most hosts' have not, and then nobody looks. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} fief_any_asked SEC(".maps");

static __always_inline bool any_asked(void)
{
	__u32 zero = 0, *any = bpf_map_lookup_elem(&fief_any_asked, &zero);

	return any && *any;
}

/* What a socket asks for, to be written to. */
static __always_inline struct asked *asked_of(struct bpf_sock *sk)
{
	__u32 zero = 0, *any = bpf_map_lookup_elem(&fief_any_asked, &zero);

	if (any)
		*any = 1;
	return bpf_sk_storage_get(&fief_asked, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

static __always_inline bool is_any(const struct in6 *a)
{
	return !a->w[0] && !a->w[1] && !a->w[2] && !a->w[3];
}

/* Is there a listener at this place? Says by which port it was really bound, in the host's order. */
static __always_inline bool listens_at(const struct place *place, __u32 *port)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&fief_listeners, place);
	bool listens;

	if (!sk)
		return false;
	listens = sk->state == TCP_LISTEN;
	*port = sk->src_port;
	bpf_sk_release(sk);
	return listens;
}

/* Does another's listener have this port itself? */
static __always_inline bool is_held(__be16 port, __u32 slot)
{
	__u32 key = port, really;
	struct place *held = bpf_map_lookup_elem(&fief_held, &key), place;

	if (!held || held->slot == slot)
		return false;
	place = *held;
	/* The kernel keeps the ports of two VRFs apart. */
	if (vrf_of(slot) && vrf_of(place.slot))
		return false;
	return listens_at(&place, &really) && really == bpf_ntohs(port);
}

static __always_inline bool stands_in_the_way(struct bpf_sock *sk, __be16 port, __u32 slot)
{
	bool does;

	if (!sk)
		return false;
	does = sk->state == TCP_LISTEN && sk->src_port == bpf_ntohs(port) && slot_of(sk->mark) != slot;
	bpf_sk_release(sk);
	return does;
}

static __always_inline bool is_taken4(struct bpf_sock_addr *ctx, __be32 address, __be16 port, __u32 slot)
{
	struct bpf_sock_tuple tuple = { .ipv4 = { .daddr = address, .dport = port } };

	return stands_in_the_way(bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0), port, slot);
}

static __always_inline bool is_taken6(struct bpf_sock_addr *ctx, const struct in6 *address, __be16 port, __u32 slot)
{
	struct bpf_sock_tuple tuple = { .ipv6 = { .dport = port } };

	__builtin_memcpy(tuple.ipv6.daddr, address, sizeof(*address));
	if (stands_in_the_way(bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0), port, slot))
		return true;
	/* [::] takes IPv4's port too. */
	return is_any(address) && is_taken4(ctx, 0, port, slot);
}

/* Moves a bind, as far as that may be: low ports need a privilege, wherever the socket really is. */
static __always_inline bool may_move(__be16 port)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred;

	if (bpf_ntohs(port) >= UNPRIVILEGED_PORTS)
		return true;
	return cred->cap_effective.val & (1ULL << CAP_NET_BIND_SERVICE) && !cred->user_ns->level;
}

/* Where a bind really goes; `slot` is the socket's tenant. */
static __always_inline int placed(struct bpf_sock_addr *ctx, __u32 slot, __u16 family, const struct in6 *address)
{
	struct place place = { .slot = slot, .port = ctx->user_port, .family = family, .address = *address };
	struct asked *asked;
	__u32 really = 0;
	bool is_listed;

	if (ctx->protocol != IPPROTO_TCP || ctx->type != SOCK_STREAM || !place.port || !ctx->sk || is_off(TOOTH_STEER))
		return 1;
	asked = bpf_sk_storage_get(&fief_asked, ctx->sk, 0, 0);
	is_listed = asked && asked->count;
	if (is_listed)
		place.slot = asked->slots[0];
	if (listens_at(&place, &really)) {
		/* Its own tenant's: a second one for the same place stands beside the first, if the kernel lets it. */
		if (really == bpf_ntohs(place.port))
			return 1;
	} else {
		really = 0;
		if (!is_listed && !is_held(place.port, slot) &&
		    !(family == AF_INET ? is_taken4(ctx, address->w[3], place.port, slot) :
					  is_taken6(ctx, address, place.port, slot)))
			return 1;
	}
	if (!may_move(place.port)) {
		bpf_set_retval(-EACCES);
		return 0;
	}
	asked = asked_of(ctx->sk);
	if (!asked) {
		bpf_set_retval(-ENOMEM);
		return 0;
	}
	asked->address = *address;
	asked->port = place.port;
	asked->is_moved = 1;
	if (vrf_of(slot)) {
		/* Nothing of 127.0.0.0/8 is in a VRF, and its own addresses nobody else reaches: another port is enough. */
	} else if (family == AF_INET) {
		ctx->user_ip4 = bpf_htonl(0x7f000001);
	} else if (!is_any(address)) {
		/* [::] stays: any other address would make the socket one for IPv6 only (__inet6_bind). */
		ctx->user_ip6[0] = 0;
		ctx->user_ip6[1] = 0;
		ctx->user_ip6[2] = 0;
		ctx->user_ip6[3] = bpf_htonl(1);
	}
	ctx->user_port = bpf_htons(really);
	return 1;
}

/* Enters a socket that begins to listen. */
static __always_inline void listens(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct place place = {};
	struct asked *asked;
	__u32 key;

	if (!sk)
		return;
	place.family = ctx->family;
	place.slot = slot_of(sk->mark);
	asked = bpf_sk_storage_get(&fief_asked, sk, 0, 0);
	if (asked && asked->is_moved) {
		place.address = asked->address;
		place.port = asked->port;
		if (asked->count) {
			for (__u32 i = 0; i < LISTED; i++) {
				if (i >= asked->count)
					break;
				place.slot = asked->slots[i];
				bpf_sock_hash_update(ctx, &fief_listeners, &place, BPF_ANY);
			}
			return;
		}
	} else {
		if (!place.slot)
			return;
		place.address = LOCAL_ADDRESS(ctx);
		place.port = bpf_htons(ctx->local_port);
	}
	if (bpf_sock_hash_update(ctx, &fief_listeners, &place, BPF_ANY))
		return;
	key = place.port;
	if (is_any(&place.address) && !(asked && asked->is_moved))
		bpf_map_update_elem(&fief_held, &key, &place, BPF_ANY);
}

static __always_inline bool assigned(struct bpf_sk_lookup *ctx, const struct place *place)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&fief_listeners, place);
	bool is;

	if (!sk)
		return false;
	/* An IPv6 socket for IPv6 only does not take IPv4: the kernel says so. */
	is = !bpf_sk_assign(ctx, (void *)sk, 0);
	bpf_sk_release(sk);
	return is;
}

/* The address itself before any address; IPv4 also by IPv6's sockets. */
static __always_inline bool steered(struct bpf_sk_lookup *ctx, __u32 slot, const struct in6 *address)
{
	struct place place = { .slot = slot, .port = bpf_htons(ctx->local_port), .family = ctx->family };

	place.address = *address;
	if (assigned(ctx, &place))
		return true;
	if (ctx->family == AF_INET) {
		place.family = AF_INET6;
		place.address.w[2] = bpf_htonl(0xffff);
		if (assigned(ctx, &place))
			return true;
		place.family = AF_INET;
		place.address = (struct in6){};
		if (assigned(ctx, &place))
			return true;
		place.family = AF_INET6;
	}
	place.address = (struct in6){};
	return assigned(ctx, &place);
}

static __always_inline int steer(struct bpf_sk_lookup *ctx)
{
	struct in6 address;
	struct owner *owner;
	__u32 slot;

	if (ctx->protocol != IPPROTO_TCP || is_off(TOOTH_STEER))
		return SK_PASS;
	address = LOCAL_ADDRESS(ctx);
	slot = alone_on(ctx->ingress_ifindex);
	if (!slot) {
		if (ctx->family == AF_INET)
			owner = bpf_map_lookup_elem(&fief_own4, &address.w[3]);
		else
			owner = bpf_map_lookup_elem(&fief_own6, &address);
		slot = owner ? owner->slot : 0;
	}
	if (steered(ctx, slot, &address))
		return SK_PASS;
	if (slot && steered(ctx, 0, &address))
		return SK_PASS;
	/* Nobody listens for this one, and the kernel would find another tenant's. */
	return is_held(bpf_htons(ctx->local_port), slot) ? SK_DROP : SK_PASS;
}

/* A moved socket shows what it asked for. */
static __always_inline struct asked *moved(struct bpf_sock_addr *ctx)
{
	struct asked *asked = ctx->sk ? bpf_sk_storage_get(&fief_asked, ctx->sk, 0, 0) : 0;

	return asked && asked->is_moved ? asked : 0;
}

static __always_inline int named4(struct bpf_sock_addr *ctx)
{
	struct asked *asked = moved(ctx);

	if (asked) {
		ctx->user_ip4 = asked->address.w[3];
		ctx->user_port = asked->port;
	}
	return 1;
}

static __always_inline int named6(struct bpf_sock_addr *ctx)
{
	struct asked *asked = moved(ctx);

	if (asked) {
		ctx->user_ip6[0] = asked->address.w[0];
		ctx->user_ip6[1] = asked->address.w[1];
		ctx->user_ip6[2] = asked->address.w[2];
		ctx->user_ip6[3] = asked->address.w[3];
		ctx->user_port = asked->port;
	}
	return 1;
}

/* Is this tenant among those that a socket is limited to? */
static __always_inline bool is_listed(const struct asked *asked, __u32 slot)
{
	for (__u32 i = 0; i < LISTED; i++) {
		if (i >= asked->count)
			break;
		if (asked->slots[i] == slot)
			return true;
	}
	return false;
}

/* The port that a packet calls; 0 if it cannot be read. */
static __always_inline __be16 port_called(struct __sk_buff *skb)
{
	__u32 offset = sizeof(struct ipv6hdr);
	__be16 port = 0;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (read_net(skb, 0, &ip, sizeof(ip)))
			return 0;
		offset = ip.ihl * 4;
	}
	return read_net(skb, offset + 2, &port, sizeof(port)) ? 0 : port;
}

/* May a socket that is nobody's take this packet? One that was moved is called where it asked to be, one with a list by
 * those on it. */
static __always_inline bool serves(struct __sk_buff *skb, struct bpf_sock *sk, __u32 slot)
{
	struct asked *asked = any_asked() ? bpf_sk_storage_get(&fief_asked, sk, 0, 0) : 0;

	if (!asked)
		return true;
	if (asked->is_moved && sk->state == TCP_LISTEN && port_called(skb) != asked->port)
		return false;
	return !asked->count || is_listed(asked, slot);
}

/* tcp_fwmark_accept gives the WHOLE mark of a SYN to its answer and to the accepted socket, unless the listener has one of
 * its own; only our field is ours to give. Nobody but the listener sees this packet any more. Another namespace may have
 * the same address, but seldom the same switch. */
static __always_inline void reduce_mark(struct __sk_buff *skb, struct bpf_sock *sk, __u32 slot)
{
	__u32 reduced = with_slot(0, slot);
	bool is_ours;

	if (skb->mark == reduced || sk->state != TCP_LISTEN || is_off(TOOTH_REDUCE))
		return;
	if (!slot && fief_foreign_accepted)
		return;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__be32 address;

		if (read_net(skb, offsetof(struct iphdr, daddr), &address, sizeof(address)))
			return;
		is_ours = (bpf_ntohl(address) >> 24) == 127 || bpf_map_lookup_elem(&fief_own4, &address) ||
			  is_in_vrf4(slot, address);
	} else {
		struct in6 address;

		if (read_net(skb, offsetof(struct ipv6hdr, daddr), &address, sizeof(address)))
			return;
		is_ours = (!address.w[0] && !address.w[1] && !address.w[2] && address.w[3] == bpf_htonl(1)) ||
			  bpf_map_lookup_elem(&fief_own6, &address) || is_in_vrf(slot, &address);
	}
	if (is_ours)
		skb->mark = reduced;
}

/* Is this a socket that only names a device of the packet's VRF? It may hear nothing; a listener for everybody names none,
 * and what it accepts has a mark. Elsewhere a device may have the same number: the packet's address tells. */
static __always_inline bool listens_in_vrf(struct __sk_buff *skb, struct bpf_sock *sk, __u32 packet)
{
	__u32 bound = sk->bound_dev_if;

	if (!packet || !bound || alone_on(bound) != packet || is_off(TOOTH_VRF_IN))
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__be32 address;

		return !read_net(skb, offsetof(struct iphdr, daddr), &address, sizeof(address)) &&
		       is_in_vrf4(packet, address);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct in6 address;

		return !read_net(skb, offsetof(struct ipv6hdr, daddr), &address, sizeof(address)) &&
		       is_in_vrf(packet, &address);
	}
	return false;
}

/* A socket that is a tenant's own gets that tenant's packets only. This hook has no namespace cookie before
 * Linux 6.15; a packet is known to be ours by its destination: an address of this host with the packet's slot, or one
 * of the host itself that the packet's tenant may reach. */
static __always_inline int receive(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	__u32 packet = slot_of(skb->mark), socket;
	struct owner *called = 0;
	bool is_loopback = false, in_vrf = false;

	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	reduce_mark(skb, sk, packet);
	socket = slot_of(sk->mark);
	if (!socket) {
		/* What it has asked for it asked in our namespace. */
		if ((is_off(TOOTH_LISTED) || serves(skb, sk, packet)) && !listens_in_vrf(skb, sk, packet))
			return 1;
		COUNT(packet, drop_listener);
		return 0;
	} else if (socket == packet || is_off(TOOTH_LISTENER)) {
		return 1;
	}
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		__be32 address;

		if (read_net(skb, offsetof(struct iphdr, daddr), &address, sizeof(address)))
			return 1;
		called = bpf_map_lookup_elem(&fief_own4, &address);
		in_vrf = is_in_vrf4(packet, address);
		is_loopback = (bpf_ntohl(address) >> 24) == 127;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct in6 address;

		if (read_net(skb, offsetof(struct ipv6hdr, daddr), &address, sizeof(address)))
			return 1;
		called = bpf_map_lookup_elem(&fief_own6, &address);
		in_vrf = is_in_vrf(packet, &address);
		is_loopback = !address.w[0] && !address.w[1] && !address.w[2] && address.w[3] == bpf_htonl(1);
	}
	if (!in_vrf && !is_called_by(packet, called, is_loopback))
		return 1;
	COUNT(packet, drop_listener);
	return 0;
}

#endif
