/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Tenants by name. */
#ifndef FIEF_NAMES_H
#define FIEF_NAMES_H

#include "abi.h"
#include "option.h"

union tenant_name {
	char text[FIEF_NAME_SIZE];
	__u64 words[FIEF_NAME_SIZE / 8];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 65536);
	__type(key, union tenant_name);
	__type(value, __u32);
} fief_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, union tenant_name);
} fief_names SEC(".maps");

#endif
