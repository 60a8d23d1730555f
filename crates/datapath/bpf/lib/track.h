/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Connection tracking for policies, at each port by itself: who began a conversation, so that answers pass that no rule
 * speaks of. The kernel's own cannot be asked here. The Rust side is src/ports/entries.rs; both change together.
 *
 * A conversation that nobody has answered yet lies in one of the places that its port has. It has the choice among a few
 * of them: one that is free, or else that of whoever was silent for longest. Answered ones have a table in which each
 * port may fill its part. So whoever begins many conversations displaces his own, and the oldest.
 *
 * All places together would be more than a host has room for. So a space has a share of both tables that is there whatever
 * others do, and more as long as a quarter of a table is free. */
#ifndef FIEF_TRACK_H
#define FIEF_TRACK_H

#include "teeth.h"
#include "verdict.h"

/* Places of a port for what nobody has answered. */
#define YOUNG_PLACES 1024
/* Of these a conversation may have one. With a single one, 33 of 300 that waited at once were displaced. */
#define YOUNG_CHOICES 8
/* Answered conversations of a port. */
#define MOST_OF_A_PORT 32768

/* What a space has for sure is this part of a table; a quarter of them could have theirs behind those who had more. */
#define SHARES 128

#define SECOND 1000000000ULL

/* How many conversations the tables hold; src/ports/mod.rs sets both, and the tables' sizes. */
const volatile __u32 fief_room_waiting = 1;
const volatile __u32 fief_room_answered = 1;

/* One for each time that programs are loaded: what others judged is judged again. */
const volatile __u32 fief_load = 0;

struct conversation {
	__u32 device;
	__u8 family;
	__u8 protocol;
	__u16 reserved;
	__u32 own[4];   /* the endpoint's address, as flow has it */
	__u32 other[4];
	__u16 own_port; /* of an echo its identifier, twice */
	__u16 other_port;
};

/* Of a record. */
#define BEGUN_HERE 1   /* the endpoint began */
#define ANSWERED 2
#define ENDED_BEGINNER 4 /* FIN of who began, */
#define ENDED_OTHER 8    /* of the other, */
#define RESET 16         /* or RST */

struct record {
	__u32 state;
	__u32 reserved;
	__u64 stamp; /* of the rules that let it pass: see stamp_of */
	__u64 seen;  /* coarse time since boot, in nanoseconds */
	struct conversation whose; /* the key once more: see endpoints.h */
	__u32 behind;
};

struct young {
	__u32 device;
	__u32 place;
};

/* Where among the young a conversation lies. */
enum lies { NOT_SOUGHT, NOWHERE, THERE };

/* What is known of a conversation. */
struct known {
	struct record record;
	struct young young; /* where it lies, or may; others may take that meanwhile, and then it takes it from them */
	__u32 lies;
	__u32 is_free;      /* nobody lies there, */
	__u32 other;        /* and of those it may have, whose is whose that was silent for longest; or YOUNG_PLACES */
};

/* What a port uses. */
struct usage {
	__u32 space;
	__u32 answered; /* conversations */
	__u32 second;   /* in which it was last denied something new, */
	__u32 new;      /* and how often in that one */
	__u32 unlisted; /* what was denied and has no record */
};

TABLE(fief_young, BPF_MAP_TYPE_HASH, struct young, struct record);
TABLE(fief_conversation, BPF_MAP_TYPE_HASH, struct conversation, struct record);
TABLE(fief_usage, BPF_MAP_TYPE_HASH, __u32, struct usage);

/* Conversations of a space; of all together with the key EVERYBODY. The daemon counts anew when it takes out what is over. */
struct share {
	__u32 waiting;
	__u32 answered;
};

#define EVERYBODY 0

TABLE(fief_share, BPF_MAP_TYPE_HASH, __u32, struct share);

/* What a fragment that is not the first lacks. Allocated beforehand and given to others all the same; see endpoints.h. */
struct piece {
	__u32 device;
	__u8 family;
	__u8 protocol;
	__u8 direction;
	__u8 reserved;
	__u32 source[4];
	__u32 destination[4];
	__u32 identification;
};

struct head {
	__u16 source_port;
	__u16 port;
	__be16 echo;
	__u8 icmp_type;
	__u8 turns;
	__u64 seen;
	struct piece whose;
	__u32 behind;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct piece);
	__type(value, struct head);
} fief_piece SEC(".maps");

/* The rules that count for a space now. What was judged by others is judged again at its next packet. */
static __always_inline __u64 stamp_of(__u32 space)
{
	return (__u64)(fief_load + space * 0x9e3779b1) << 32 | generation_of(space);
}

/* Words of two keys, the second of which may change under our hands. */
static __always_inline bool is_still(const void *key, const void *there, __u32 size)
{
	const volatile __u32 *now = there;
	const __u32 *own = key;
	__u32 differs = 0;

	barrier();
#pragma unroll
	for (int i = 0; i < size / 4; i++)
		differs |= own[i] ^ now[i];
	return !differs;
}

/* As the endpoint at the port sees it. */
static __always_inline void conversation_of(__u32 device, const struct flow *flow, int direction, struct conversation *key)
{
	bool sends = direction == POLICY_EGRESS;

	key->device = device;
	key->family = flow->family;
	key->protocol = flow->protocol;
	key->reserved = 0;
	__builtin_memcpy(key->own, sends ? flow->source : flow->destination, sizeof(key->own));
	__builtin_memcpy(key->other, sends ? flow->destination : flow->source, sizeof(key->other));
	if (flow->echo || is_icmp(flow)) {
		key->own_port = flow->echo;
		key->other_port = flow->echo;
	} else {
		key->own_port = sends ? flow->source_port : flow->port;
		key->other_port = sends ? flow->port : flow->source_port;
	}
}

/* The place of a conversation that nobody has answered: its own (then the answer is THERE), one that it may have, or that of
 * whoever was silent for longest. Who foretells places displaces what waits at this port, as many packets would; so any
 * mixing will do, if the next programs mix alike: they find the table as it is. */
ONCE int place_of(const struct conversation *key, struct known *known)
{
	__u32 mixed = 0, step, free = YOUNG_PLACES;
	__u64 oldest = ~0ULL;
	struct young young = {};
	const __u32 *words;

	if (!key || !known)
		return NOWHERE;
	words = (const void *)key;
#pragma unroll
	for (int i = 1; i < sizeof(*key) / 4; i++)
		mixed = (mixed ^ words[i]) * 0x9e3779b1;
	mixed ^= mixed >> 16;
	/* Odd, so that all choices differ. */
	step = mixed >> 10 | 1;
	young.device = key->device;
	known->young.device = key->device;
	known->is_free = false;
	known->other = YOUNG_PLACES;
	for (int i = 0; i < YOUNG_CHOICES; i++) {
		struct record *found;

		young.place = (mixed + i * step) % YOUNG_PLACES;
		found = bpf_map_lookup_elem(&fief_young, &young);
		if (!found) {
			free = young.place;
			continue;
		}
		if (is_still(key, &found->whose, sizeof(*key))) {
			known->young.place = young.place;
			return THERE;
		}
		if (found->seen < oldest) {
			oldest = found->seen;
			known->other = young.place;
		}
	}
	known->is_free = free < YOUNG_PLACES;
	known->young.place = known->is_free ? free : known->other;
	return NOWHERE;
}

/* How long after its last packet a conversation is over: RFC 5382 and RFC 4787 ask for at least as much, but for those of
 * UDP and others that nobody has answered. */
static __always_inline __u64 patience(const struct conversation *key, __u32 state)
{
	bool is_connection = key->protocol == IPPROTO_TCP || key->protocol == IPPROTO_SCTP;
	__u32 ended = state & (ENDED_BEGINNER | ENDED_OTHER);

	if (!is_connection)
		return (key->protocol == IPPROTO_UDP ? state & ANSWERED ? 300 : 60 : 30) * SECOND;
	if (state & RESET || ended == (ENDED_BEGINNER | ENDED_OTHER))
		return 10 * SECOND;
	if (!(state & ANSWERED))
		return 120 * SECOND;
	return (ended ? 300 : 7440) * SECOND;
}

static __always_inline bool take(const struct record *found, const struct conversation *key, __u64 now, struct record *record)
{
	if (!found)
		return false;
	record->state = *(const volatile __u32 *)&found->state;
	record->stamp = *(const volatile __u64 *)&found->stamp;
	record->seen = *(const volatile __u64 *)&found->seen;
	if (!is_still(key, &found->whose, sizeof(*key)))
		return false;
	/* The clock of programs is coarse: somebody else may have looked at a finer one. */
	return (__s64)(now - record->seen) <= (__s64)patience(key, record->state);
}

/* What is known of a conversation; one that is known goes on. */
ONCE int recall(const struct conversation *key, __u64 now, struct known *known)
{
	struct record *found;

	if (!key || !known)
		return 0;
	known->lies = NOT_SOUGHT;
	found = bpf_map_lookup_elem(&fief_conversation, key);
	if (!take(found, key, now, &known->record)) {
		known->lies = place_of(key, known);
		if (known->lies == NOWHERE)
			return 0;
		found = bpf_map_lookup_elem(&fief_young, &known->young);
		if (!take(found, key, now, &known->record))
			return 0;
	}
	found->seen = now;
	return 1;
}

static __always_inline bool is_within(__u32 own, __u32 all, __u32 room)
{
	/* A counter that somebody else has just set may be a few below nothing. */
	return (__s32)all < (__s32)(room / 4 * 3) || (__s32)own < (__s32)(room / SHARES) || fief_teeth & TOOTH_SHARE;
}

static __always_inline bool find_shares(__u32 space, struct share **own, struct share **all)
{
	__u32 everybody = EVERYBODY;

	*own = bpf_map_lookup_elem(&fief_share, &space);
	*all = bpf_map_lookup_elem(&fief_share, &everybody);
	return *own && *all;
}

/* Is there room for one more of a space? Then it is counted. */
ONCE int count_in(__u32 space, __u32 is_answered)
{
	struct share *own, *all;

	if (!find_shares(space, &own, &all))
		return 0;
	if (is_answered) {
		if (!is_within(own->answered, all->answered, fief_room_answered))
			return 0;
		__sync_fetch_and_add(&own->answered, 1);
		__sync_fetch_and_add(&all->answered, 1);
	} else {
		if (!is_within(own->waiting, all->waiting, fief_room_waiting))
			return 0;
		__sync_fetch_and_add(&own->waiting, 1);
		__sync_fetch_and_add(&all->waiting, 1);
	}
	return 1;
}

/* There is one less. */
ONCE int count_out(__u32 space, __u32 is_answered)
{
	struct share *own, *all;

	if (!find_shares(space, &own, &all))
		return 0;
	if (is_answered) {
		__sync_fetch_and_add(&own->answered, -1);
		__sync_fetch_and_add(&all->answered, -1);
	} else {
		__sync_fetch_and_add(&own->waiting, -1);
		__sync_fetch_and_add(&all->waiting, -1);
	}
	return 0;
}

/* Nobody has answered it, or there is no room among those who were. */
static __always_inline void wait(const struct conversation *key, __u32 space, struct known *known)
{
	bool is_new;

	if (known->lies == NOT_SOUGHT)
		known->lies = place_of(key, known);
	is_new = known->lies == NOWHERE && known->is_free;
	if (!is_new && !bpf_map_update_elem(&fief_young, &known->young, &known->record, BPF_EXIST))
		return;
	if (count_in(space, false)) {
		if (!bpf_map_update_elem(&fief_young, &known->young, &known->record, BPF_NOEXIST))
			return;
		/* Somebody else has come there meanwhile. */
		count_out(space, false);
	} else if (is_new) {
		known->young.place = known->other;
	}
	if (known->young.place < YOUNG_PLACES)
		bpf_map_update_elem(&fief_young, &known->young, &known->record, BPF_EXIST);
}

/* Writes what is to be known from now on of a conversation that was recalled. */
ONCE int remember(const struct conversation *key, __u64 now, __u64 stamp, __u32 state, struct known *known)
{
	struct record *record;
	struct usage *usage;
	__u32 device;

	if (!key || !known)
		return 0;
	device = key->device;
	usage = bpf_map_lookup_elem(&fief_usage, &device);
	if (!usage)
		return 0;
	record = &known->record;
	record->state = state;
	record->reserved = 0;
	record->behind = 0;
	record->stamp = stamp;
	record->seen = now;
	record->whose = *key;
	if (!(state & ANSWERED)) {
		if (!bpf_map_delete_elem(&fief_conversation, key)) {
			__sync_fetch_and_add(&usage->answered, -1);
			count_out(usage->space, true);
		}
	} else {
		if (!bpf_map_update_elem(&fief_conversation, key, record, BPF_EXIST))
			return 0;
		if ((__s32)usage->answered < MOST_OF_A_PORT && count_in(usage->space, true)) {
			if (!bpf_map_update_elem(&fief_conversation, key, record, BPF_NOEXIST)) {
				__sync_fetch_and_add(&usage->answered, 1);
				if (known->lies == THERE && !bpf_map_delete_elem(&fief_young, &known->young))
					count_out(usage->space, false);
				return 0;
			}
			count_out(usage->space, true);
		}
	}
	wait(key, usage->space, known);
	return 0;
}

/* Does this packet begin something, even where its like has been seen? */
static __always_inline bool begins(const struct flow *flow)
{
	/* SYN without ACK (RFC 9293). */
	if (flow->protocol == IPPROTO_TCP)
		return (flow->turns & 0x12) == 0x02;
	return is_icmp(flow) && is_request(flow);
}

/* What a packet says about how it goes on. */
static __always_inline __u32 turned(const struct flow *flow, bool is_answer, __u32 state)
{
	if (is_answer)
		state |= ANSWERED;
	if (flow->protocol != IPPROTO_TCP)
		return state;
	if (flow->turns & 0x04)
		state |= RESET;
	if (flow->turns & 0x01)
		state |= is_answer ? ENDED_OTHER : ENDED_BEGINNER;
	return state;
}

static __always_inline void piece_of(__u32 device, const struct flow *flow, int direction, struct piece *piece)
{
	piece->device = device;
	piece->family = flow->family;
	piece->protocol = flow->protocol;
	piece->direction = direction;
	piece->reserved = 0;
	__builtin_memcpy(piece->source, flow->source, sizeof(piece->source));
	__builtin_memcpy(piece->destination, flow->destination, sizeof(piece->destination));
	piece->identification = flow->identification;
}

/* Gives a later fragment what its first one had; false if that has not been here (30 s: RFC 791, 3.2 lets the receiver
 * wait for 15). */
static __always_inline bool join(const struct piece *piece, __u64 now, struct flow *flow)
{
	struct head *found = bpf_map_lookup_elem(&fief_piece, piece);
	struct head head;

	if (!found)
		return false;
	head = *found;
	if (!is_still(piece, &found->whose, sizeof(*piece)) || (__s64)(now - head.seen) > (__s64)(30 * SECOND))
		return false;
	flow->source_port = head.source_port;
	flow->port = head.port;
	flow->echo = head.echo;
	flow->icmp_type = head.icmp_type;
	flow->turns = head.turns & ~0x07;
	return true;
}

static __always_inline void keep_head(const struct piece *piece, __u64 now, const struct flow *flow, struct head *head)
{
	head->source_port = flow->source_port;
	head->port = flow->port;
	head->echo = flow->echo;
	head->icmp_type = flow->icmp_type;
	head->turns = flow->turns;
	head->seen = now;
	head->whose = *piece;
	head->behind = 0;
	bpf_map_update_elem(&fief_piece, piece, head, BPF_ANY);
}

#endif
