/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel's structures, in part: only what is read. The loader finds the fields of the running kernel (CO-RE). */
#ifndef FIEF_KERNEL_H
#define FIEF_KERNEL_H

#include <linux/in6.h>
#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net_device {
	int ifindex;
	unsigned int group;
};

struct nf_hook_state {
	struct net_device *in;
	struct net_device *out;
};

struct sock_common {
	__be32 skc_rcv_saddr;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_rcv_saddr;
};

struct sock {
	struct sock_common __sk_common;
	__u32 sk_mark;
};

struct sk_buff {
	struct sock *sk;
	__u32 mark;
	__u16 network_header;
	unsigned char *head;
};

/* include/linux/uidgid_types.h: ids as the initial user namespace sees them. */
typedef struct {
	__u32 val;
} kuid_t;

typedef struct {
	__u32 val;
} kgid_t;

/* include/linux/capability.h, Linux 6.3 */
typedef struct {
	__u64 val;
} kernel_cap_t;

struct user_namespace {
	int level;
};

struct group_info {
	int ngroups;
	kgid_t gid[0];
};

struct cred {
	kuid_t euid;
	kgid_t egid;
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
	struct group_info *group_info;
};

struct kernfs_node {
	const char *name;
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
	int level;
	struct cgroup *ancestors[0];
};

struct css_set {
	struct cgroup *dfl_cgrp;
};

struct task_struct {
	struct css_set *cgroups;
	int tgid;
	struct task_struct *group_leader;
	const struct cred *cred;
};

#pragma clang attribute pop

/* include/linux/netfilter.h: not relocated, its fields are the program's arguments. */
struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

/* include/net/tcp_states.h: in these states a socket is less than a socket. */
#define SS_TIME_WAIT 6
#define SS_NEW_SYN_RECV 12

#endif
