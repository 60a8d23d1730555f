/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whose new sockets are a tenant's without a word of the program: those of processes in a control group, of a user, of
 * a group. Control groups are known by their path, not by their number: a service manager makes and removes them as
 * services come and go. A slice of fief's says its tenant by its name. */
#ifndef FIEF_SELECT_H
#define FIEF_SELECT_H

#include "abi.h"
#include "kernel.h"
#include "names.h"

/* Levels of control groups that are looked at, and bytes of a name. */
#define LEVELS 16
#define CGROUP_NAME 128

#define SELECT_PATHS 1
#define SELECT_USERS 2
#define SELECT_GROUPS 4

#define SELECT_USER 0
#define SELECT_GROUP 1

/* The control group that fief watches: paths begin below it. */
const volatile __u64 fief_cgroup_id = 0;

/* A step of a path: the node above (0: the watched group) and a name. */
struct step {
	__u64 above;
	char name[CGROUP_NAME];
};

struct node {
	__u64 id;
	__u32 slot; /* 0: only on the way to others */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 16384);
	__type(key, struct step);
	__type(value, struct node);
} fief_paths SEC(".maps");

struct selector {
	__u32 kind;
	__u32 id;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 16384);
	__type(key, struct selector);
	__type(value, __u32);
} fief_selectors SEC(".maps");

/* Which kinds of selection there are beside slices, so that a host without any pays nothing for them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} fief_selecting SEC(".maps");

static __always_inline bool is_fief_slice(const char *name)
{
	const char slice[] = "fief.slice";

#pragma unroll
	for (__u32 i = 0; i < sizeof(slice); i++)
		if (name[i] != slice[i])
			return false;
	return true;
}

/* The tenant of `fief-NAME.slice`; 0 if it is no such slice, or nobody's. */
static __always_inline __u32 slot_of_slice(const char *name)
{
	const char before[] = "fief-", behind[] = ".slice";
	union tenant_name tenant = {};
	__u32 end = 0, *slot;

#pragma unroll
	for (__u32 i = 0; i < sizeof(before) - 1; i++)
		if (name[i] != before[i])
			return 0;
	name += sizeof(before) - 1;
	/* A tenant's name has no dots. */
	for (__u32 i = 0; i < FIEF_NAME_SIZE - 1; i++) {
		if (!name[i] || name[i] == '.')
			break;
		tenant.text[i] = name[i];
		end = i + 1;
	}
	if (end >= FIEF_NAME_SIZE)
		return 0;
#pragma unroll
	for (__u32 i = 0; i < sizeof(behind); i++)
		if (name[end + i] != behind[i])
			return 0;
	slot = bpf_map_lookup_elem(&fief_slots, &tenant);
	return slot ? *slot : 0;
}

/* The deepest selected group above a process wins. */
static __always_inline __u32 slot_of_path(struct task_struct *task, bool has_paths)
{
	struct css_set *set = task->cgroups;
	struct cgroup *own, *group;
	struct step step = {};
	bool is_below = false, is_first = true, is_slice = false;
	__u32 slot = 0;
	int level;

	if (!set)
		return 0;
	own = set->dfl_cgrp;
	level = own->level;
	for (int i = 0; i < LEVELS; i++) {
		struct kernfs_node *at;
		const char *name;
		struct node *node;
		__u64 id;

		if (i > level)
			break;
		if (bpf_probe_read_kernel(&group, sizeof(group), &own->ancestors[i]) ||
		    bpf_probe_read_kernel(&at, sizeof(at), &group->kn) ||
		    bpf_probe_read_kernel(&id, sizeof(id), &at->id))
			break;
		if (!is_below) {
			is_below = id == fief_cgroup_id;
			continue;
		}
		__builtin_memset(step.name, 0, sizeof(step.name));
		if (bpf_probe_read_kernel(&name, sizeof(name), &at->name) ||
		    bpf_probe_read_kernel_str(step.name, sizeof(step.name), name) < 0)
			break;
		if (is_first)
			is_slice = is_fief_slice(step.name);
		is_first = false;
		if (is_slice) {
			__u32 of_slice = slot_of_slice(step.name);

			slot = of_slice ? of_slice : slot;
			continue;
		}
		node = has_paths ? bpf_map_lookup_elem(&fief_paths, &step) : 0;
		if (!node)
			break;
		step.above = node->id;
		if (node->slot)
			slot = node->slot;
	}
	return slot;
}

static __always_inline __u32 slot_selected_by(__u32 kind, __u32 id)
{
	struct selector key = { .kind = kind, .id = id };
	__u32 *slot = bpf_map_lookup_elem(&fief_selectors, &key);

	return slot ? *slot : 0;
}

/* The tenant that a process's new sockets get where nothing else was said. */
static __always_inline __u32 selected(struct task_struct *task)
{
	__u32 zero = 0, slot, *kinds = bpf_map_lookup_elem(&fief_selecting, &zero);
	const struct cred *cred;

	if (!kinds)
		return 0;
	slot = slot_of_path(task, *kinds & SELECT_PATHS);
	if (!(*kinds & (SELECT_USERS | SELECT_GROUPS)))
		return slot;
	cred = task->cred;
	if (!slot && *kinds & SELECT_USERS)
		slot = slot_selected_by(SELECT_USER, cred->euid.val);
	if (!slot && *kinds & SELECT_GROUPS)
		slot = slot_selected_by(SELECT_GROUP, cred->egid.val);
	return slot;
}

#endif
