/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whose is a socket that is made here, and who may say so.
 *
 * A thread has a tenant of its own, or that of its process; both are in task storage, which the kernel frees with the
 * task. A socket gets its tenant when it is made, from the thread; or by the option below, before it is bound or
 * connected; or from the local address it is bound to. A tenant is named by its members only: ids as the initial user
 * namespace sees them, effective and supplementary ones. */
#ifndef FIEF_TENANCY_H
#define FIEF_TENANCY_H

#include <linux/errno.h>

#include "answers.h"
#include "kernel.h"
#include "listeners.h"
#include "option.h"
#include "select.h"
#include "sockets.h"

#define CAP_NET_ADMIN 12
/* enum of include/net/tcp_states.h, as `struct bpf_sock` shows it. */
#define TCP_CLOSE 7

/* The tenant a thread has chosen (0: its process's), and, in a group leader's, the process's (0: the host). */
struct task_tenant {
	__u32 thread;
	__u32 process;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, int);
	__type(value, struct task_tenant);
} fief_tasks SEC(".maps");

#define MEMBER_USER 0
#define MEMBER_GROUP 1

struct member_key {
	__u32 slot;
	__u32 kind;
	__u32 id;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 131072);
	__type(key, struct member_key);
	__type(value, __u32);
} fief_members SEC(".maps");

/* More supplementary groups than this are not looked at (NGROUPS_MAX is 65536). */
#define GROUPS_LOOKED_AT 256

/* The thread's tenant, else the process's. The leader's own choice is not looked at: it is not its process's. A worker
 * of io_uring has no storage and finds its process's here. */
static __always_inline __u32 task_slot(struct task_struct *task)
{
	struct task_tenant *tenant;

	if (!fief_follows_tasks)
		return 0;
	tenant = bpf_task_storage_get(&fief_tasks, task, 0, 0);
	if (tenant && tenant->thread)
		return tenant->thread;
	tenant = bpf_task_storage_get(&fief_tasks, task->group_leader, 0, 0);
	return tenant ? tenant->process : 0;
}

/* CAP_NET_ADMIN in the initial user namespace; a namespace of one's own gives nothing here. */
static __always_inline bool may_override(const struct cred *cred)
{
	return cred->cap_effective.val & (1ULL << CAP_NET_ADMIN) && !cred->user_ns->level;
}

static __always_inline bool is_member(__u32 slot, const struct cred *cred)
{
	struct member_key key = { .slot = slot, .kind = MEMBER_USER, .id = cred->euid.val };
	struct group_info *groups = cred->group_info;
	int count = groups->ngroups;

	if (bpf_map_lookup_elem(&fief_members, &key))
		return true;
	key.kind = MEMBER_GROUP;
	key.id = cred->egid.val;
	if (bpf_map_lookup_elem(&fief_members, &key))
		return true;
	for (int i = 0; i < GROUPS_LOOKED_AT; i++) {
		if (i >= count)
			break;
		if (bpf_probe_read_kernel(&key.id, sizeof(key.id), &groups->gid[i]))
			break;
		if (bpf_map_lookup_elem(&fief_members, &key))
			return true;
	}
	return false;
}

/* 0, or the error. Slot 0 is the host, which nobody but an administrator may choose. */
static __always_inline int may_act_as(__u32 slot)
{
	struct task_struct *task = bpf_get_current_task_btf();
	const struct cred *cred = task->cred;

	if (may_override(cred) || (slot && is_member(slot, cred)) || is_off(TOOTH_MEMBERS))
		return 0;
	COUNT(slot, refused);
	return -EPERM;
}

static __always_inline int made(struct bpf_sock *ctx)
{
	__u32 slot;

	if (ctx->family != AF_INET && ctx->family != AF_INET6)
		return 1;
	slot = task_slot(bpf_get_current_task_btf());
	if (!slot && !is_off(TOOTH_SELECT))
		slot = selected(bpf_get_current_task_btf());
	if (!slot || bpf_get_netns_cookie(ctx) != fief_netns_cookie)
		return 1;
	/* The mark of an MPTCP socket does not reach its first subflow; whoever is refused takes TCP (RFC 8684, 3.7). */
	if (ctx->protocol == IPPROTO_MPTCP) {
		bpf_set_retval(-EPROTONOSUPPORT);
		return 0;
	}
	ctx->mark = with_slot(ctx->mark, slot);
	if (vrf_of(slot))
		ctx->bound_dev_if = vrf_of(slot);
	return 1;
}

/* Threads, children and what they execute begin where their maker is. */
static __always_inline int forked(struct task_struct *parent, struct task_struct *child)
{
	struct task_tenant *of_parent = bpf_task_storage_get(&fief_tasks, parent, 0, 0), *of_child;
	struct task_tenant *of_leader;
	__u32 thread = of_parent ? of_parent->thread : 0, process;

	if (child->tgid == parent->tgid) {
		if (!thread)
			return 0;
		of_child = bpf_task_storage_get(&fief_tasks, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (of_child)
			of_child->thread = thread;
		return 0;
	}
	of_leader = bpf_task_storage_get(&fief_tasks, parent->group_leader, 0, 0);
	process = thread ? thread : of_leader ? of_leader->process : 0;
	if (!process)
		return 0;
	of_child = bpf_task_storage_get(&fief_tasks, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (of_child)
		of_child->process = process;
	return 0;
}

/* A socket of a tenant with a VRF is bound to that, or to a device under it, so that the kernel keeps its ports and its
 * connections apart from others'. Whoever leaves a VRF names no device any more. */
#define SEAT(ctx_, sk_, slot_)                                                                            \
	({                                                                                                \
		__u32 vrf_ = vrf_of(slot_), now_ = (sk_)->bound_dev_if, of_ = now_ ? alone_on(now_) : 0;    \
		int seat_ = 0;                                                                              \
                                                                                                          \
		if (vrf_ ? of_ != (slot_) : of_)                                                            \
			seat_ = bpf_setsockopt(ctx_, SOL_SOCKET, SO_BINDTOIFINDEX, &vrf_, sizeof(vrf_));        \
		seat_;                                                                                      \
	})

/* Is it too late for this socket to change sides? */
static __always_inline bool is_settled(struct bpf_sock *sk)
{
	return sk->src_port || sk->state != TCP_CLOSE;
}

/* A socket bound to a tenant's address is that tenant's, whoever made it; no tenant has another's address. */
static __always_inline int bound(struct bpf_sock_addr *ctx, const struct owner *address)
{
	__u32 from = socket_slot(ctx), to = address ? address->slot : 0, mark;

	if (!to || from == to || is_off(TOOTH_BIND))
		return 1;
	if (from) {
		COUNT(from, refused);
		bpf_set_retval(-EADDRNOTAVAIL);
		return 0;
	}
	mark = with_slot(ctx->sk ? ctx->sk->mark : 0, to);
	bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	return 1;
}

/* A socket that names a device of a VRF, by SO_BINDTODEVICE and whatever name, is that tenant's or refused. */
static __attribute__((noinline)) int on_its_device(struct bpf_sock_addr *ctx, bool may_join)
{
	__u32 device = ctx->sk ? ctx->sk->bound_dev_if : 0, slot, from, mark;

	slot = device ? alone_on(device) : 0;
	from = socket_slot(ctx);
	if (!slot || slot == from || is_off(TOOTH_VRF_BIND))
		return 1;
	if (from || !may_join || may_act_as(slot)) {
		COUNT(slot, refused);
		bpf_set_retval(-EPERM);
		return 0;
	}
	mark = with_slot(ctx->sk->mark, slot);
	return !bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
}

/* The tenant of a socket that is bound to this address. */
static __always_inline __u32 slot_bound(struct bpf_sock_addr *ctx, const struct owner *address)
{
	__u32 slot = socket_slot(ctx);

	return !slot && address && !is_off(TOOTH_BIND) ? address->slot : slot;
}

static __always_inline int refuse(int error)
{
	bpf_set_retval(error);
	return 0;
}

/* The option has been dealt with: the kernel shall not look at it. */
static __always_inline int done(struct bpf_sockopt *ctx)
{
	ctx->optlen = -1;
	return 1;
}

static __always_inline int read_number(struct bpf_sockopt *ctx, __u32 *number)
{
	__u32 *value = ctx->optval;

	if ((void *)(value + 1) > ctx->optval_end)
		return -EINVAL;
	*number = *value;
	return 0;
}

/* The slot that an option's value names, by number or by name. */
static __always_inline int read_slot(struct bpf_sockopt *ctx, bool by_name, __u32 *slot)
{
	union tenant_name name = {};
	char *text = ctx->optval;
	__u32 *found;
	int error;

	if (!by_name) {
		error = read_number(ctx, slot);
		if (error || !*slot)
			return error;
		return bpf_map_lookup_elem(&fief_tenants, slot) ? 0 : -ENOENT;
	}
	for (int i = 0; i < FIEF_NAME_SIZE - 1; i++) {
		if ((void *)(text + i + 1) > ctx->optval_end || i >= ctx->optlen || !text[i])
			break;
		name.text[i] = text[i];
	}
	*slot = 0;
	if (!name.text[0])
		return 0;
	found = bpf_map_lookup_elem(&fief_slots, &name);
	if (!found)
		return -ENOENT;
	*slot = *found;
	return 0;
}

static __always_inline int set_socket(struct bpf_sockopt *ctx, __u32 slot)
{
	struct bpf_sock *sk = ctx->sk;
	__u32 mark;
	int error;

	if (!sk)
		return refuse(-EINVAL);
	if (slot_of(sk->mark) == slot)
		return done(ctx);
	if (is_settled(sk))
		return refuse(-EISCONN);
	error = may_act_as(slot);
	if (error)
		return refuse(error);
	if (slot && sk->protocol == IPPROTO_MPTCP)
		return refuse(-EPROTONOSUPPORT);
	error = SEAT(sk, sk, slot);
	if (error)
		return refuse(error);
	mark = with_slot(sk->mark, slot);
	error = bpf_setsockopt(sk, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	return error ? refuse(error) : done(ctx);
}

/* 0 goes back to the process's tenant, and that is allowed to everybody. */
static __always_inline int set_thread(struct bpf_sockopt *ctx, __u32 slot)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_tenant *tenant;
	int error = slot && slot != task_slot(task) ? may_act_as(slot) : 0;

	if (error)
		return refuse(error);
	tenant = bpf_task_storage_get(&fief_tasks, task, 0, slot ? BPF_LOCAL_STORAGE_GET_F_CREATE : 0);
	if (tenant)
		tenant->thread = slot;
	else if (slot)
		return refuse(-ENOMEM);
	return done(ctx);
}

static __always_inline int set_process(struct bpf_sockopt *ctx, __u32 slot)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_tenant *tenant;
	int error;

	tenant = bpf_task_storage_get(&fief_tasks, task->group_leader, 0, 0);
	if ((tenant ? tenant->process : 0) == slot)
		return done(ctx);
	error = may_act_as(slot);
	if (error)
		return refuse(error);
	tenant = bpf_task_storage_get(&fief_tasks, task->group_leader, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!tenant)
		return refuse(-ENOMEM);
	tenant->process = slot;
	return done(ctx);
}

/* One tenant more that this listener serves; the first one excludes all others. Whoever serves everybody may serve fewer,
 * so nobody is asked who he is. 0 is the host. */
static __always_inline int set_listen(struct bpf_sockopt *ctx, __u32 slot)
{
	struct bpf_sock *sk = ctx->sk;
	struct asked *asked;
	__u32 count;

	if (!sk || slot_of(sk->mark) || (sk->protocol != IPPROTO_TCP && sk->protocol != IPPROTO_UDP))
		return refuse(-EINVAL);
	if (is_settled(sk))
		return refuse(-EISCONN);
	asked = asked_of(sk);
	if (!asked)
		return refuse(-ENOMEM);
	if (!is_listed(asked, slot)) {
		count = asked->count;
		if (count >= LISTED)
			return refuse(-E2BIG);
		asked->slots[count] = slot;
		asked->count = count + 1;
	}
	return done(ctx);
}

/* SO_MARK is the option under another name where it touches our field, and has the same rules. */
static __always_inline int set_mark(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	__u32 mark, slot, now;
	int error;

	if (!sk || read_number(ctx, &mark) || is_off(TOOTH_MARK))
		return 1;
	slot = slot_of(mark);
	now = slot_of(sk->mark);
	/* While the field moves, a program does not know of the other place. */
	if (fief_also_mask)
		*(__u32 *)ctx->optval = with_slot(mark, slot);
	if (slot == now)
		return 1;
	if (now && is_settled(sk))
		return refuse(-EISCONN);
	error = may_act_as(slot);
	if (error)
		return refuse(error);
	note_marked(sk);
	error = SEAT(sk, sk, slot);
	return error ? refuse(error) : 1;
}

/* SO_BINDTODEVICE and SO_BINDTOIFINDEX: whoever may act as the tenant of a VRF joins it by naming one of its devices. */
static __always_inline int set_device(struct bpf_sockopt *ctx)
{
	union device_name name = {};
	struct bpf_sock *sk = ctx->sk;
	char *text = ctx->optval;
	__u32 slot = 0, index, mark, *found;
	int error;

	if (!sk || is_off(TOOTH_VRF_BIND))
		return 1;
	if (ctx->optname == SO_BINDTOIFINDEX) {
		if (!read_number(ctx, &index))
			slot = alone_on(index);
	} else {
		for (int i = 0; i < DEVICE_NAME_SIZE - 1; i++) {
			if ((void *)(text + i + 1) > ctx->optval_end || i >= ctx->optlen || !text[i])
				break;
			name.text[i] = text[i];
		}
		found = bpf_map_lookup_elem(&fief_vrf_devices, &name);
		slot = found ? *found : 0;
	}
	if (!slot || slot == slot_of(sk->mark))
		return 1;
	if (slot_of(sk->mark)) {
		COUNT(slot, refused);
		return refuse(-EPERM);
	}
	error = may_act_as(slot);
	if (error)
		return refuse(error);
	mark = with_slot(sk->mark, slot);
	error = bpf_setsockopt(sk, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
	return error ? refuse(error) : 1;
}

static __always_inline int set_option(struct bpf_sockopt *ctx)
{
	bool by_name = ctx->optname & FIEF_BY_NAME;
	__u32 slot = 0;
	int error;

	if (ctx->level == SOL_SOCKET && ctx->optname == SO_MARK)
		return bpf_get_netns_cookie(ctx) == fief_netns_cookie ? set_mark(ctx) : 1;
	if (ctx->level == SOL_SOCKET && (ctx->optname == SO_BINDTODEVICE || ctx->optname == SO_BINDTOIFINDEX))
		return bpf_get_netns_cookie(ctx) == fief_netns_cookie ? set_device(ctx) : 1;
	if (ctx->level != SOL_FIEF) {
		note_asking(ctx);
		return 1;
	}
	if (bpf_get_netns_cookie(ctx) != fief_netns_cookie)
		return 1;
	error = read_slot(ctx, by_name, &slot);
	if (error)
		return refuse(error);
	switch (ctx->optname & ~FIEF_BY_NAME) {
	case FIEF_SOCKET:
		return set_socket(ctx, slot);
	case FIEF_THREAD:
		return fief_follows_tasks ? set_thread(ctx, slot) : 1;
	case FIEF_PROCESS:
		return fief_follows_tasks ? set_process(ctx, slot) : 1;
	case FIEF_LISTEN:
		return set_listen(ctx, slot);
	default:
		return 1;
	}
}

/* The socket's tenant: its mark, or, where that says nothing (an MPTCP connection), its local address. */
static __always_inline __u32 slot_of_socket(struct bpf_sock *sk)
{
	struct owner *owner = 0;
	__u32 slot = slot_of(sk->mark);

	if (slot)
		return slot;
	slot = sk->bound_dev_if ? alone_on(sk->bound_dev_if) : 0;
	if (slot)
		return slot;
	if (sk->family == AF_INET) {
		__be32 address = sk->src_ip4;

		owner = bpf_map_lookup_elem(&fief_own4, &address);
	} else {
		struct in6 address = { { sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3] } };

		if (!address.w[0] && !address.w[1] && address.w[2] == bpf_htonl(0xffff))
			owner = bpf_map_lookup_elem(&fief_own4, &address.w[3]);
		else
			owner = bpf_map_lookup_elem(&fief_own6, &address);
	}
	return owner ? owner->slot : 0;
}

static __always_inline int answered(struct bpf_sockopt *ctx, int length)
{
	ctx->optlen = length;
	/* Two stores: the verifier refuses the one of eight bytes that the compiler would make of them. */
	asm volatile("" ::: "memory");
	ctx->retval = 0;
	return 1;
}

static __always_inline int get_option(struct bpf_sockopt *ctx)
{
	struct task_tenant *tenant;
	struct task_struct *task;
	union tenant_name *name;
	__u32 slot, *number;

	if (ctx->level != SOL_FIEF || bpf_get_netns_cookie(ctx) != fief_netns_cookie)
		return 1;
	task = bpf_get_current_task_btf();
	switch (ctx->optname & ~FIEF_BY_NAME) {
	case FIEF_SOCKET:
		if (!ctx->sk)
			return 1;
		slot = slot_of_socket(ctx->sk);
		break;
	case FIEF_THREAD:
		if (!fief_follows_tasks)
			return 1;
		slot = task_slot(task);
		break;
	case FIEF_PROCESS:
		if (!fief_follows_tasks)
			return 1;
		tenant = bpf_task_storage_get(&fief_tasks, task->group_leader, 0, 0);
		slot = tenant ? tenant->process : 0;
		break;
	default:
		return 1;
	}
	if (ctx->optname & FIEF_BY_NAME) {
		union tenant_name none = {}, *to = ctx->optval;

		if ((void *)(to + 1) > ctx->optval_end)
			return refuse(-EINVAL);
		name = bpf_map_lookup_elem(&fief_names, &slot);
		*to = name ? *name : none;
		return answered(ctx, sizeof(*to));
	}
	number = ctx->optval;
	if ((void *)(number + 1) > ctx->optval_end)
		return refuse(-EINVAL);
	*number = slot;
	return answered(ctx, sizeof(*number));
}

#endif
