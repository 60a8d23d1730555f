/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The table of a segment: behind which peer or port an Ethernet address is, how long that counts, and how many addresses each
 * of them may bring. */
#ifndef FIEF_STATIONS_H
#define FIEF_STATIONS_H

#include "overlay.h"

/* Which protections are off, in tests; src/overlay.rs has the bits. */
const volatile __u32 fief_overlay_teeth;
#define TOOTH_GOODBYE 1
#define TOOTH_SEGMENT 2
#define TOOTH_MACS 4
#define TOOTH_RATE 8
#define TOOTH_PORT 16
#define TOOTH_LOCAL 32
#define TOOTH_GOODBYES 64
#define TOOTH_EXPIRY 128
#define TOOTH_HEADER 256
#define TOOTH_FILTER 512
#define TOOTH_UNHEARD 1024

/* Entries older than this are ignored; in nanoseconds. */
const volatile __u64 fief_overlay_age = 128 * 1000000000ULL;

static __always_inline bool is_off(__u32 tooth)
{
	return fief_overlay_teeth & tooth;
}

/* Is this the port of a fast path? */
static __always_inline bool is_fast(const struct settings *settings, __be16 port)
{
	return port == settings->own_port4 || port == settings->dual_port;
}

static __always_inline bool is_same_address(const struct address *a, const struct address *b)
{
	return a->words[0] == b->words[0] && a->words[1] == b->words[1] && a->words[2] == b->words[2] &&
	       a->words[3] == b->words[3];
}

static __always_inline bool is_same_mac(const __u8 *a, const __u8 *b)
{
	__u8 differs = 0;

	for (int i = 0; i < ETH_ALEN; i++)
		differs |= a[i] ^ b[i];
	return !differs;
}

static __always_inline void count(__u32 what)
{
	__u64 *counter = bpf_map_lookup_elem(&fief_ov_counts, &what);

	if (counter)
		*counter += 1;
}

/* Has the peer taken its leave since? */
static __always_inline bool is_gone(__u32 vni, const struct place *place)
{
	__u32 zero = 0;
	__u64 *last = bpf_map_lookup_elem(&fief_ov_last, &zero), *at;
	struct endpoint peer = { .vni = vni, .port = place->port, .address = place->address };

	if (!last || place->seen > *last || is_off(TOOTH_GOODBYE))
		return false;
	at = bpf_map_lookup_elem(&fief_ov_gone, &peer);
	return at && place->seen <= *at;
}

static __always_inline bool is_valid(__u32 vni, const struct place *place, __u64 now)
{
	if (now - place->seen > fief_overlay_age && !is_off(TOOTH_EXPIRY))
		return false;
	return place->device || !is_gone(vni, place);
}

/* Who an entry counts against. */
static __always_inline __u32 owner_of(__u32 vni, const struct place *place)
{
	return place->device ? place->device : REMOTE | vni;
}

static __always_inline __u64 word_of(const __u8 *mac)
{
	__u64 word = 0;

	__builtin_memcpy(&word, mac, ETH_ALEN);
	return word;
}

/* A slot of the owner's for a new address. What has it makes room, so that nobody has more entries than slots. None if another
 * processor was quicker: the next frame asks again. */
static __always_inline struct slot *claim_slot(const struct station *new, __u32 owner, __u32 limit, __u64 now)
{
	struct slot_key key = { .owner = owner };
	struct station there = { .vni = new->vni };
	__u32 hash = new->mac[5] | new->mac[4] << 8 | new->mac[3] << 16 | (__u32)new->mac[2] << 24;
	struct slot *slot, mine = { .mac = word_of(new->mac) };
	struct place *place;
	__u32 chosen;
	__u64 had;

	if (!limit)
		return NULL;
	hash = (hash ^ (__u32)new->mac[1] << 8 ^ new->mac[0]) * 0x9e3779b1;
	chosen = hash % limit;
	for (int i = 0; i < WAYS; i++) {
		key.slot = (hash + i) % limit;
		slot = bpf_map_lookup_elem(&fief_ov_slots, &key);
		if (!slot || slot->mac == mine.mac) {
			chosen = key.slot;
			break;
		}
		had = slot->mac;
		__builtin_memcpy(there.mac, &had, ETH_ALEN);
		place = bpf_map_lookup_elem(&fief_ov_stations, &there);
		if (!place || owner_of(new->vni, place) != owner || !is_valid(new->vni, place, now)) {
			chosen = key.slot;
			break;
		}
	}
	key.slot = chosen;
	slot = bpf_map_lookup_elem(&fief_ov_slots, &key);
	if (!slot) {
		if (bpf_map_update_elem(&fief_ov_slots, &key, &mine, BPF_NOEXIST))
			return NULL;
		return bpf_map_lookup_elem(&fief_ov_slots, &key);
	}
	had = slot->mac;
	if (had == mine.mac)
		return slot;
	if (__sync_val_compare_and_swap(&slot->mac, had, mine.mac) != had)
		return NULL;
	__builtin_memcpy(there.mac, &had, ETH_ALEN);
	place = bpf_map_lookup_elem(&fief_ov_stations, &there);
	if (place && owner_of(new->vni, place) == owner) {
		bpf_map_delete_elem(&fief_ov_stations, &there);
		count(COUNT_EVICTED);
	}
	return slot;
}

static __always_inline void learn(const struct station *station, struct place *place, __u32 limit, __u64 now)
{
	struct place *there = bpf_map_lookup_elem(&fief_ov_stations, station);
	struct slot *slot;

	if (there && there->device == place->device && there->port == place->port &&
	    is_same_address(&there->address, &place->address)) {
		/* Not with every frame: the entry lies in the caches of all processors. */
		if (now - there->seen > REFRESH || is_gone(station->vni, there))
			there->seen = now;
		return;
	}
	place->seen = now;
	if (is_off(TOOTH_MACS)) {
		bpf_map_update_elem(&fief_ov_stations, station, place, BPF_ANY);
		return;
	}
	if (there && owner_of(station->vni, there) == owner_of(station->vni, place)) {
		/* Only what is there still: who evicted it gave its slot away. */
		bpf_map_update_elem(&fief_ov_stations, station, place, BPF_EXIST);
		return;
	}
	slot = claim_slot(station, owner_of(station->vni, place), limit, now);
	if (!slot || bpf_map_update_elem(&fief_ov_stations, station, place, BPF_ANY))
		return;
	/* Whoever took the slot in between found no entry to delete. */
	if (*(volatile __u64 *)&slot->mac != word_of(station->mac))
		bpf_map_delete_elem(&fief_ov_stations, station);
}

#endif
