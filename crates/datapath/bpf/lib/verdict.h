/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The verdict machine: docs/policy.md, "A lookup", step by step, over the tables that crates/policy compiles. The Rust
 * side is src/policy/entries.rs; both change together.
 *
 * Entries are not allocated beforehand, and one that is taken out or replaced may at once be another one's
 * (bpf_mem_alloc, kernel/bpf/hashtab.c). Whoever writes waits for all running programs before he takes out what they
 * may be looking at (src/policy/mod.rs). Subjects and addresses change while they are in use, so they say whose they
 * are, which is read last: the kernel copies from the front. An entry that says another's name has been replaced, and
 * its successor is where it was found. */
#ifndef FIEF_VERDICT_H
#define FIEF_VERDICT_H

#include "endpoints.h"

enum policy_direction { POLICY_INGRESS, POLICY_EGRESS };

/* crates/policy/src/verdict.rs: Action, Tier, Hit. */
enum policy_action { POLICY_ALLOW, POLICY_DENY, POLICY_PASS, POLICY_REDIRECT };
#define POLICY_TIERS 4
#define POLICY_NO_HIT 0xffffffff

/* crates/policy/src/tables/mod.rs: PeerClass; crates/policy/src/identity/mod.rs: Identity. */
#define CLASS_ANY 0
#define CLASS_WORKLOAD 1
#define IDENTITY_WORLD 2
#define IDENTITY_FIRST 256
#define IDENTITY_FIRST_BLOCK 0x1000000

struct policy_subject_key {
	__u32 slot;
	__u32 identity;
};

struct policy_subject {
	struct policy_subject_key whose;
	__u32 since;
	__u32 before[2]; /* by direction */
	__u32 after[2];
};

struct policy_set {
	__u32 lengths[4]; /* of prefixes of ports, as bits: TCP, UDP, SCTP, others */
	__u32 peers;
	__u32 blocks;
};

struct policy_port {
	__u32 set;
	__u8 protocol;
	__u8 length;
	__u16 port; /* as the host has it */
};

struct policy_peer {
	__u32 group;
	__u32 identity;
};

struct policy_block {
	__u32 length; /* of group, family and prefix together */
	__u32 group;
	__u32 family;
	__u32 address[4];
};

struct policy_verdict_key {
	__u32 set;
	__u32 peer;
	__u32 ports;
};

/* For each tier the first rule that matches: its rank in the set, and in the lowest two bits its action. */
struct policy_hits {
	__u32 tiers[POLICY_TIERS];
};

struct policy_rank {
	__u32 set;
	__u32 rank;
};

TABLE(policy_subject, BPF_MAP_TYPE_HASH, struct policy_subject_key, struct policy_subject);
TABLE(policy_set, BPF_MAP_TYPE_HASH, __u32, struct policy_set);
TABLE(policy_port, BPF_MAP_TYPE_HASH, struct policy_port, __u32);
TABLE(policy_peer, BPF_MAP_TYPE_HASH, struct policy_peer, __u32);
TABLE(policy_block, BPF_MAP_TYPE_LPM_TRIE, struct policy_block, __u32);
TABLE(policy_verdict, BPF_MAP_TYPE_HASH, struct policy_verdict_key, struct policy_hits);
TABLE(policy_rank, BPF_MAP_TYPE_HASH, struct policy_rank, __u32);

/* The generation of each slot. Mapped into the writer, who raises it in one store: a system call copies byte by byte. The
 * kernel gives each value a multiple of eight bytes anyway. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} policy_now SEC(".maps");

enum policy_outcome {
	OUTCOME_DECIDED, /* a rule decided */
	OUTCOME_OPEN,    /* no rule spoke of it: it passes */
	OUTCOME_UNKNOWN, /* the subject is not known, or a table lacks what another one names: dropped */
};

/* What became of a packet, and why. */
struct policy_result {
	__u32 outcome;
	__u32 action;
	__u32 rule;
	__u32 set;
	__u32 subject;
	__u32 peer;
};

/* Which generation a slot is in; 0 while nothing is judged. */
static __always_inline __u32 generation_of(__u32 slot)
{
	volatile __u64 *now = bpf_map_lookup_elem(&policy_now, &slot);

	return now ? *now : 0;
}

/* Who has an address, as the subject's tenant sees him: whom that has not is the world. */
static __always_inline __u32 identity_of(const struct port *subject, const struct address *address)
{
	struct port peer;

	if (!port_of(device_of(address), &peer) || peer.slot != subject->slot)
		return IDENTITY_WORLD;
	return peer.identity;
}

/* 1. The set of rules for a subject; false if the subject is not known. */
static __always_inline bool set_of(const struct policy_subject_key *whose, int direction, __u32 *set)
{
	__u32 now = generation_of(whose->slot);

	for (int i = 0; i < 2; i++) {
		volatile struct policy_subject *found = bpf_map_lookup_elem(&policy_subject, whose);

		if (!found)
			return false;
		*set = found->since <= now ? found->after[direction] : found->before[direction];
		if (found->whose.slot == whose->slot && found->whose.identity == whose->identity)
			return true;
	}
	return false;
}

/* 3. The class of the ports that a packet goes to. A later fragment has no port: rules about all ports of its protocol
 * are about it, and rules about all ports, and no others. */
static __always_inline __u32 class_of_port(__u32 set, const struct policy_set *header, const struct flow *flow)
{
	struct policy_port key = { .set = set, .protocol = flow->protocol };
	__u32 lengths;

	switch (flow->protocol) {
	case IPPROTO_TCP:
		lengths = header->lengths[0];
		break;
	case IPPROTO_UDP:
		lengths = header->lengths[1];
		break;
	case IPPROTO_SCTP:
		lengths = header->lengths[2];
		break;
	default:
		lengths = header->lengths[3];
	}
	if (flow->is_later_fragment)
		lengths &= 1;
	for (int length = 16; length >= 0; length--) {
		__u32 *class;

		if (!lengths)
			break;
		if (!(lengths >> length & 1))
			continue;
		lengths ^= 1 << length;
		key.length = length;
		key.port = flow->port & 0xffff0000 >> length;
		class = bpf_map_lookup_elem(&policy_port, &key);
		if (class)
			return *class;
	}
	return 0;
}

static __always_inline bool is_workload(__u32 identity)
{
	return identity >= IDENTITY_FIRST && identity < IDENTITY_FIRST_BLOCK;
}

/* Merges what is found into what was found before: for each tier the rule that is asked first. */
static __always_inline bool find(__u32 set, __u32 peer, __u32 ports, struct policy_hits *hits)
{
	struct policy_verdict_key key = { .set = set, .peer = peer, .ports = ports };
	struct policy_hits *found = bpf_map_lookup_elem(&policy_verdict, &key);

	if (!found)
		return false;
#pragma unroll
	for (int tier = 0; tier < POLICY_TIERS; tier++)
		if (found->tiers[tier] < hits->tiers[tier])
			hits->tiers[tier] = found->tiers[tier];
	return true;
}

/* 4 and 5. What rules say of whom the peer is. */
static __always_inline void ask_peer(__u32 set, __u32 group, __u32 identity, __u32 ports,
				     struct policy_hits *hits)
{
	struct policy_peer key = { .group = group, .identity = identity };
	__u32 *class = group ? bpf_map_lookup_elem(&policy_peer, &key) : 0;

	if (!class) {
		find(set, is_workload(identity) ? CLASS_WORKLOAD : CLASS_ANY, ports, hits);
	} else if (!find(set, *class, ports, hits)) {
		find(set, *class, 0, hits);
		find(set, CLASS_WORKLOAD, ports, hits);
	}
}

/* 6. What rules say of the peer's address. */
static __always_inline void ask_block(__u32 set, __u32 group, const struct address *address, __u32 ports,
				      struct policy_hits *hits)
{
	struct policy_block key = { .length = 64 + 128, .group = group, .family = address->family };
	__u32 *block;

	if (address->family == FAMILY_4)
		key.length = 64 + 32;
	__builtin_memcpy(key.address, address->address, sizeof(key.address));
	block = bpf_map_lookup_elem(&policy_block, &key);
	/* 0 is a hole in a block. */
	if (block && *block && !find(set, *block, ports, hits))
		find(set, *block, 0, hits);
}

/* 7. The first tier with a rule that is not Pass. */
static __always_inline void decide(const struct policy_hits *hits, struct policy_result *result)
{
	result->outcome = OUTCOME_OPEN;
#pragma unroll
	for (int tier = 0; tier < POLICY_TIERS; tier++) {
		__u32 hit = hits->tiers[tier];
		struct policy_rank key = { .set = result->set, .rank = hit >> 2 };
		__u32 *rule;

		if (hit == POLICY_NO_HIT || (hit & 3) == POLICY_PASS)
			continue;
		rule = bpf_map_lookup_elem(&policy_rank, &key);
		result->outcome = rule ? OUTCOME_DECIDED : OUTCOME_UNKNOWN;
		result->action = hit & 3;
		result->rule = rule ? *rule : 0;
		return;
	}
}

/* What becomes of a packet that reaches a port's endpoint, or leaves it. */
ONCE int verdict(const struct flow *flow, const struct port *port, int direction, struct policy_result *result)
{
	struct policy_hits hits = { { POLICY_NO_HIT, POLICY_NO_HIT, POLICY_NO_HIT, POLICY_NO_HIT } };
	struct policy_subject_key whose;
	struct address other;
	struct policy_set *header;
	__u32 ports;

	if (!flow || !port || !result)
		return 0;
	whose.slot = port->slot;
	whose.identity = port->identity;
	other.slot = port->space;
	other.family = flow->family;
	if (direction == POLICY_INGRESS)
		__builtin_memcpy(other.address, flow->source, sizeof(other.address));
	else
		__builtin_memcpy(other.address, flow->destination, sizeof(other.address));
	result->outcome = OUTCOME_UNKNOWN;
	result->action = 0;
	result->rule = 0;
	result->set = 0;
	result->subject = port->identity;
	result->peer = identity_of(port, &other);
	/* The verifier asks for a bound. */
	if (!set_of(&whose, direction & 1, &result->set))
		return 0;
	if (!result->set) {
		result->outcome = OUTCOME_OPEN;
		return 0;
	}
	header = bpf_map_lookup_elem(&policy_set, &result->set);
	if (!header)
		return 0;
	ports = class_of_port(result->set, header, flow);
	ask_peer(result->set, header->peers, result->peer, ports, &hits);
	if (header->blocks)
		ask_block(result->set, header->blocks, &other, ports, &hits);
	decide(&hits, result);
	return 0;
}

static __always_inline bool passes(const struct policy_result *result)
{
	if (result->outcome == OUTCOME_DECIDED)
		return result->action == POLICY_ALLOW || result->action == POLICY_REDIRECT;
	return result->outcome == OUTCOME_OPEN;
}

#endif
