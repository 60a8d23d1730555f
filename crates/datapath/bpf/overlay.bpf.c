/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The fast path of the overlay: one Ethernet segment a group, VXLAN between hosts, frames that no process touches.
 *
 *     user's namespace     namespace of the overlay                          the host's
 *     eth0 ── veth ── port [from_port] ── table ── vxlan device ── UDP ── [underlay_out] device of the underlay
 *     eth0 ── veth ── port ◀── table ── [from_wire] vxlan device ◀── UDP ── [underlay_in] device of the underlay
 *
 * A port's number says its segment; what a frame says about itself chooses among that segment's places only. The vxlan
 * device takes the tunnel from the program (external). It has one port of UDP, for what it sends as well, so that peers
 * can answer. It is not the group's, which sockets of vxvde bind; the programs at the underlay change one into the
 * other. The number of a peer's port travels in the packet's tc_index, which nothing on this way looks at.
 *
 * Sockets of vxvde on this host (root's vde_plug, the guarded ones) shall hear the segment too, and it them. The kernel
 * loops nothing back for a tunnel, and takes no packet with its own address from outside. So the programs turn packets
 * round at the underlay: to either side the other is a host with the alias address, of which no packet leaves. Where
 * source and destination change places no checksum changes. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/overlay.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Which protections are off, in tests; src/overlay.rs has the bits. */
const volatile __u32 fief_overlay_teeth;
#define TOOTH_GOODBYE 1
#define TOOTH_SEGMENT 2
#define TOOTH_MACS 4
#define TOOTH_RATE 8
#define TOOTH_PORT 16
#define TOOTH_LOCAL 32

static __always_inline bool is_off(__u32 tooth)
{
	return fief_overlay_teeth & tooth;
}

/* --- the table of a segment --- */

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
	if (now - place->seen > MAX_AGE)
		return false;
	return place->device || !is_gone(vni, place);
}

/* Who an entry counts against. */
static __always_inline __u32 owner_of(__u32 vni, const struct place *place)
{
	return place->device ? place->device : REMOTE | vni;
}

/* A slot of the owner's for a new address. What has it makes room, so that nobody has more entries than slots. */
static __always_inline bool take_slot(const struct station *new, __u32 owner, __u32 limit, __u64 now)
{
	struct slot_key key = { .owner = owner };
	struct station there = { .vni = new->vni };
	__u32 hash = new->mac[5] | new->mac[4] << 8 | new->mac[3] << 16 | (__u32)new->mac[2] << 24;
	struct slot *slot, mine = {};
	struct place *place;
	__u32 chosen;

	if (!limit)
		return false;
	if (is_off(TOOTH_MACS))
		return true;
	hash = (hash ^ (__u32)new->mac[1] << 8 ^ new->mac[0]) * 0x9e3779b1;
	chosen = hash % limit;
	for (int i = 0; i < WAYS; i++) {
		key.slot = (hash + i) % limit;
		slot = bpf_map_lookup_elem(&fief_ov_slots, &key);
		if (!slot || is_same_mac(slot->mac, new->mac)) {
			chosen = key.slot;
			break;
		}
		__builtin_memcpy(there.mac, slot->mac, ETH_ALEN);
		place = bpf_map_lookup_elem(&fief_ov_stations, &there);
		if (!place || owner_of(new->vni, place) != owner || !is_valid(new->vni, place, now)) {
			chosen = key.slot;
			break;
		}
	}
	key.slot = chosen;
	slot = bpf_map_lookup_elem(&fief_ov_slots, &key);
	if (slot && !is_same_mac(slot->mac, new->mac)) {
		__builtin_memcpy(there.mac, slot->mac, ETH_ALEN);
		place = bpf_map_lookup_elem(&fief_ov_stations, &there);
		if (place && owner_of(new->vni, place) == owner) {
			bpf_map_delete_elem(&fief_ov_stations, &there);
			count(COUNT_EVICTED);
		}
	}
	__builtin_memcpy(mine.mac, new->mac, ETH_ALEN);
	return !bpf_map_update_elem(&fief_ov_slots, &key, &mine, BPF_ANY);
}

static __always_inline void learn(const struct station *station, struct place *place, __u32 limit, __u64 now)
{
	struct place *there = bpf_map_lookup_elem(&fief_ov_stations, station);

	if (there && there->device == place->device && there->port == place->port &&
	    is_same_address(&there->address, &place->address)) {
		/* Not with every frame: the entry lies in the caches of all processors. */
		if (now - there->seen > REFRESH || is_gone(station->vni, there))
			there->seen = now;
		return;
	}
	place->seen = now;
	if (there && owner_of(station->vni, there) == owner_of(station->vni, place)) {
		bpf_map_update_elem(&fief_ov_stations, station, place, BPF_ANY);
		return;
	}
	if (take_slot(station, owner_of(station->vni, place), limit, now))
		bpf_map_update_elem(&fief_ov_stations, station, place, BPF_ANY);
}

/* --- frames --- */

static __always_inline bool read_frame(struct __sk_buff *skb, struct ethhdr *frame)
{
	/* As vxvde has it: longer than its header. */
	if (skb->len <= ETH_HLEN || bpf_skb_load_bytes(skb, 0, frame, ETH_HLEN))
		return false;
	/* Nobody's address is a group's. */
	return !(frame->h_source[0] & 1);
}

static __always_inline bool is_group(const struct ethhdr *frame)
{
	return frame->h_dest[0] & 1;
}

static __always_inline bool is_v4(const struct address *address)
{
	return address->words[0] == 0 && address->words[1] == 0 && address->words[2] == bpf_htonl(0xffff);
}

/* Where the frame is to go, for the vxlan device and the program behind it; gives the device. */
static __always_inline __u32 set_tunnel(struct __sk_buff *skb, const struct settings *settings, __u32 vni,
					const struct address *to, __be16 port)
{
	struct bpf_tunnel_key key = { .tunnel_id = vni, .tunnel_ttl = settings->ttl };

	skb->tc_index = port;
	if (is_v4(to)) {
		key.remote_ipv4 = bpf_ntohl(to->words[3]);
		if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_ZERO_CSUM_TX))
			return 0;
		return settings->vxlan4;
	}
	__builtin_memcpy(key.remote_ipv6, to->words, sizeof(key.remote_ipv6));
	/* IPv6 has no datagram without a sum (RFC 8200, 8.1). */
	if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6))
		return 0;
	return settings->vxlan6;
}

static __always_inline void send_copy(struct __sk_buff *skb, const struct settings *settings, __u32 vni,
				      const struct address *to, __be16 port)
{
	__u32 device = set_tunnel(skb, settings, vni, to, port);

	if (device)
		bpf_clone_redirect(skb, device, 0);
}

/* Is this the port of a fast path? */
static __always_inline bool is_fast(const struct settings *settings, __be16 port)
{
	return port == settings->own_port4 || port == settings->dual_port;
}

/* Is the peer one that hears where it sends from? Until it has shown that, nobody knows (underlay_in). */
static __always_inline bool is_sure(const struct settings *settings, struct place *place)
{
	struct endpoint peer = { .port = place->port, .address = place->address };

	if (place->is_sure || place->port == settings->port || is_fast(settings, place->port) || is_off(TOOTH_PORT))
		return true;
	if (bpf_map_lookup_elem(&fief_ov_sure, &peer))
		place->is_sure = 1;
	return place->is_sure;
}

/* To every port of the segment but this one. */
static __always_inline void flood_ports(struct __sk_buff *skb, const struct segment *segment, __u32 except)
{
	for (int i = 0; i < MEMBERS; i++) {
		if (i >= segment->count)
			break;
		if (segment->members[i] != except)
			bpf_clone_redirect(skb, segment->members[i], 0);
	}
}

static __always_inline bool is_limited(struct port *port, __u64 now)
{
	__u64 next = port->next;

	if (is_off(TOOTH_RATE))
		return false;
	if (next < now)
		next = now;
	if (next - now > port->burst)
		return true;
	port->next = next + port->interval;
	return false;
}

/* At a port: what its user sends. */
SEC("classifier")
int from_port(struct __sk_buff *skb)
{
	__u32 zero = 0, here = skb->ifindex, device, vni;
	struct settings *settings = bpf_map_lookup_elem(&fief_ov_settings, &zero);
	struct port *port = bpf_map_lookup_elem(&fief_ov_ports, &here);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct station station = {};
	struct segment *segment;
	struct place *place, at = {}, self = { .device = here };
	struct ethhdr frame;

	if (!settings || !port || !read_frame(skb, &frame)) {
		count(COUNT_MALFORMED);
		return TC_ACT_SHOT;
	}
	vni = is_off(TOOTH_SEGMENT) ? 1000 : port->vni;
	station.vni = vni;
	__builtin_memcpy(station.mac, frame.h_source, ETH_ALEN);
	/* Most frames are of the address that the one before was of. */
	if (!is_same_mac(port->last_mac, frame.h_source) || now - port->last_seen > REFRESH) {
		learn(&station, &self, port->macs, now);
		__builtin_memcpy(port->last_mac, frame.h_source, ETH_ALEN);
		port->last_seen = now;
	}
	if (!is_group(&frame)) {
		__builtin_memcpy(station.mac, frame.h_dest, ETH_ALEN);
		place = bpf_map_lookup_elem(&fief_ov_stations, &station);
		if (place) {
			at = *place;
			if (is_valid(vni, &at, now)) {
				if (at.device == here)
					return TC_ACT_SHOT;
				if (at.device) {
					bpf_skb_change_type(skb, PACKET_HOST);
					return bpf_redirect_peer(at.device, 0);
				}
				if (!is_sure(settings, place))
					send_copy(skb, settings, vni, &at.address, settings->port);
				device = set_tunnel(skb, settings, vni, &at.address, at.port);
				return device ? bpf_redirect(device, 0) : TC_ACT_SHOT;
			}
		}
	}
	if (is_limited(port, now)) {
		__sync_fetch_and_add(&port->limited, 1);
		return TC_ACT_SHOT;
	}
	__sync_fetch_and_add(&port->flooded, 1);
	segment = bpf_map_lookup_elem(&fief_ov_segments, &station.vni);
	if (!segment)
		return TC_ACT_SHOT;
	flood_ports(skb, segment, here);
	if (segment->flags & SEGMENT_GROUP4)
		send_copy(skb, settings, station.vni, &segment->group4, settings->port);
	if (segment->flags & SEGMENT_GROUP6)
		send_copy(skb, settings, station.vni, &segment->group6, settings->port);
	for (__u32 i = 0; i < PEERS; i++) {
		__u32 index = i;
		struct peer *peer = bpf_map_lookup_elem(&fief_ov_peers, &index);

		if (!peer || !peer->port)
			break;
		send_copy(skb, settings, station.vni, &peer->address, peer->port);
	}
	return TC_ACT_SHOT;
}

static __always_inline int deliver(struct __sk_buff *skb, __u32 vni, const struct address *from)
{
	struct place *place, peer = { .port = skb->tc_index, .address = *from };
	__u64 now = bpf_ktime_get_coarse_ns();
	struct station station = { .vni = vni };
	struct segment *segment;
	struct ethhdr frame;

	skb->tc_index = 0;
	segment = bpf_map_lookup_elem(&fief_ov_segments, &vni);
	if (!segment || !peer.port || !read_frame(skb, &frame)) {
		count(COUNT_MALFORMED);
		return TC_ACT_SHOT;
	}
	__builtin_memcpy(station.mac, frame.h_source, ETH_ALEN);
	if (!is_same_mac(segment->last_mac, frame.h_source) || segment->last_port != peer.port ||
	    !is_same_address(&segment->last_address, from) || now - segment->last_seen > REFRESH) {
		learn(&station, &peer, segment->macs, now);
		__builtin_memcpy(segment->last_mac, frame.h_source, ETH_ALEN);
		segment->last_port = peer.port;
		segment->last_address = *from;
		segment->last_seen = now;
	}
	if (!is_group(&frame)) {
		__builtin_memcpy(station.mac, frame.h_dest, ETH_ALEN);
		place = bpf_map_lookup_elem(&fief_ov_stations, &station);
		if (place && is_valid(vni, place, now)) {
			/* What another host has is that host's to hear. */
			if (!place->device)
				return TC_ACT_SHOT;
			bpf_skb_change_type(skb, PACKET_HOST);
			return bpf_redirect_peer(place->device, 0);
		}
	}
	flood_ports(skb, segment, 0);
	return TC_ACT_SHOT;
}

/* At the vxlan device of IPv4. */
SEC("classifier")
int from_wire4(struct __sk_buff *skb)
{
	struct address from = {};
	struct bpf_tunnel_key key = {};

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0))
		return TC_ACT_SHOT;
	from.words[2] = bpf_htonl(0xffff);
	from.words[3] = bpf_htonl(key.remote_ipv4);
	return deliver(skb, key.tunnel_id, &from);
}

/* At that of IPv6. */
SEC("classifier")
int from_wire6(struct __sk_buff *skb)
{
	struct address from;
	struct bpf_tunnel_key key = {};

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6))
		return TC_ACT_SHOT;
	__builtin_memcpy(from.words, key.remote_ipv6, sizeof(from.words));
	return deliver(skb, key.tunnel_id, &from);
}

/* --- the underlay --- */

/* Fills in what there is; false if it is no datagram of UDP, or lies in a VLAN of the device. */
static __always_inline bool read_datagram(struct __sk_buff *skb, struct datagram *d)
{
	struct udphdr udp;

	if (skb->vlan_present || skb->pkt_type == PACKET_LOOPBACK)
		return false;
	d->is_first = true;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.protocol != IPPROTO_UDP || ip.ihl < 5)
			return false;
		d->is_v4 = true;
		d->source.words[2] = d->destination.words[2] = bpf_htonl(0xffff);
		d->source.words[3] = ip.saddr;
		d->destination.words[3] = ip.daddr;
		d->is_first = !(ip.frag_off & bpf_htons(0x1fff));
		d->udp = ETH_HLEN + ip.ihl * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;
		__u8 next;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
			return false;
		__builtin_memcpy(&d->source, &ip.saddr, sizeof(d->source));
		__builtin_memcpy(&d->destination, &ip.daddr, sizeof(d->destination));
		d->udp = ETH_HLEN + sizeof(ip);
		next = ip.nexthdr;
		if (next == IPPROTO_FRAGMENT) {
			__u8 fragment[8];

			if (bpf_skb_load_bytes(skb, d->udp, fragment, sizeof(fragment)))
				return false;
			next = fragment[0];
			d->is_first = !(fragment[2] || fragment[3] & 0xf8);
			d->udp += sizeof(fragment);
		}
		if (next != IPPROTO_UDP)
			return false;
	} else {
		return false;
	}
	if (!d->is_first)
		return true;
	if (bpf_skb_load_bytes(skb, d->udp, &udp, sizeof(udp)))
		return false;
	d->from = udp.source;
	d->to = udp.dest;
	d->length = bpf_ntohs(udp.len);
	d->sum = udp.check;
	return true;
}

static __always_inline void set_port(struct __sk_buff *skb, struct datagram *d, __be16 port)
{
	if (d->to == port)
		return;
	if (d->sum)
		bpf_l4_csum_replace(skb, d->udp + offsetof(struct udphdr, check), d->to, port,
				    BPF_F_MARK_MANGLED_0 | sizeof(port));
	bpf_skb_store_bytes(skb, d->udp + offsetof(struct udphdr, dest), &port, sizeof(port), 0);
	d->to = port;
}

/* Puts another address in the place of one; `at` is the last of its words for IPv4, its first for IPv6. */
static __always_inline void set_address(struct __sk_buff *skb, const struct datagram *d, __u32 at4, __u32 at6,
					struct address *from, const struct address *to)
{
	__s64 change = bpf_csum_diff((__be32 *)from->words, sizeof(*from), (__be32 *)to->words, sizeof(*to), 0);

	if (d->is_first && d->sum)
		bpf_l4_csum_replace(skb, d->udp + offsetof(struct udphdr, check), 0, change,
				    BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
	if (d->is_v4) {
		bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), 0, change, 0);
		bpf_skb_store_bytes(skb, ETH_HLEN + at4, &to->words[3], 4, 0);
	} else {
		bpf_skb_store_bytes(skb, ETH_HLEN + at6, to->words, sizeof(*to), 0);
	}
	*from = *to;
}

static __always_inline void set_source(struct __sk_buff *skb, struct datagram *d, const struct address *to)
{
	set_address(skb, d, offsetof(struct iphdr, saddr), offsetof(struct ipv6hdr, saddr), &d->source, to);
}

static __always_inline void set_destination(struct __sk_buff *skb, struct datagram *d, const struct address *to)
{
	set_address(skb, d, offsetof(struct iphdr, daddr), offsetof(struct ipv6hdr, daddr), &d->destination, to);
}

static __always_inline void set_mac(struct __sk_buff *skb, const __u8 *mac)
{
	bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), mac, ETH_ALEN, 0);
}

static __always_inline __be16 own_port(const struct settings *settings, const struct datagram *d)
{
	return d->is_v4 ? settings->own_port4 : settings->own_port6;
}

/* Where a peer hears. One of vxvde does where it sends from, as another fast path does, and a kernel's tunnel at the
 * group's port only, whatever flow-dependent port it sends from. A datagram without a sum is such a tunnel's. */
static __always_inline __be16 answered_at(const struct settings *settings, const struct datagram *d)
{
	if (is_off(TOOTH_PORT) || is_fast(settings, d->from))
		return d->from;
	return d->sum ? d->from : settings->port;
}

/* The source that copies for the vxlan device have: what has it was not sent to it alone. */
static const __u8 of_copies[ETH_ALEN] = { 0x06, 0xf1, 0xef, 0x0e, 0x56, 0xde };

/* A peer that sends to our own port has learned it, and so hears where it sends from. One that sends to the group's port
 * is a tunnel. Who was only heard in a group may be either: both ports get what is for it, and one hears. */
static __always_inline __be16 learn_kind(struct __sk_buff *skb, const struct settings *settings,
					 const struct datagram *d)
{
	struct endpoint peer = { .port = answered_at(settings, d), .address = d->source };
	__u8 mac[ETH_ALEN];
	__u32 one = 1;

	if (is_fast(settings, peer.port))
		return peer.port;
	if (peer.port == settings->port || (d->to == settings->port && !is_off(TOOTH_PORT)))
		return settings->port;
	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), mac, sizeof(mac)))
		return peer.port;
	if (!is_same_mac(mac, of_copies) && !bpf_map_lookup_elem(&fief_ov_sure, &peer))
		bpf_map_update_elem(&fief_ov_sure, &peer, &one, BPF_ANY);
	return peer.port;
}

/* A header and nothing behind it: the peer forgets us, and we forget it. Gives whether it was that. */
static __always_inline bool note_goodbye(struct __sk_buff *skb, const struct settings *settings,
					 const struct datagram *d, const struct address *who)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct endpoint peer = { .address = *who, .port = answered_at(settings, d) };
	__be32 header[2];
	__u32 zero = 0;

	if (!d->is_first || d->length != sizeof(struct udphdr) + sizeof(header))
		return false;
	if (bpf_skb_load_bytes(skb, d->udp + sizeof(struct udphdr), header, sizeof(header)))
		return true;
	if (header[0] != bpf_htonl(0x08000000) || header[1] & bpf_htonl(0xff))
		return true;
	peer.vni = bpf_ntohl(header[1]) >> 8;
	if (!bpf_map_lookup_elem(&fief_ov_segments, &peer.vni))
		return true;
	bpf_map_update_elem(&fief_ov_gone, &peer, &now, BPF_ANY);
	bpf_map_update_elem(&fief_ov_last, &zero, &now, BPF_ANY);
	count(COUNT_GOODBYES);
	return true;
}

/* A copy for the vxlan device, as if it had been sent to it alone. The datagram is as it was afterwards. */
static __always_inline void copy_in(struct __sk_buff *skb, struct settings *settings, struct datagram *d,
				    const struct address *source)
{
	const struct address *own = d->is_v4 ? &settings->own4 : &settings->own6;
	struct address from = d->source, to = d->destination;
	__u8 macs[2 * ETH_ALEN];
	__be16 port = d->to;

	if (!own->words[3] || bpf_skb_load_bytes(skb, 0, macs, sizeof(macs)))
		return;
	if (source)
		set_source(skb, d, source);
	set_destination(skb, d, own);
	set_mac(skb, settings->mac);
	bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), of_copies, sizeof(of_copies), 0);
	if (d->is_first)
		set_port(skb, d, own_port(settings, d));
	bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0);
	set_destination(skb, d, &to);
	if (source)
		set_source(skb, d, &from);
	if (d->is_first)
		set_port(skb, d, port);
}

static __always_inline bool is_to_group(const struct datagram *d)
{
	__u8 first = d->is_v4 ? *(__u8 *)&d->destination.words[3] : *(__u8 *)d->destination.words;

	if (d->is_v4 ? (first & 0xf0) != 0xe0 : first != 0xff)
		return false;
	return bpf_map_lookup_elem(&fief_ov_groups, &d->destination);
}

/* What arrives at the underlay. */
SEC("classifier")
int underlay_in(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *settings = bpf_map_lookup_elem(&fief_ov_settings, &zero);
	struct datagram d = {};

	if (!settings || !read_datagram(skb, &d))
		return TC_ACT_UNSPEC;
	if (is_to_group(&d)) {
		/* Our own, on its way to the sockets of this host. */
		if (is_same_address(&d.source, d.is_v4 ? &settings->alias4 : &settings->alias6))
			return TC_ACT_UNSPEC;
		if (d.is_first && d.to != settings->port)
			return TC_ACT_UNSPEC;
		/* The same came by IPv4. */
		if (d.is_first && !d.is_v4 && d.from == settings->dual_port && settings->own4.words[3])
			return TC_ACT_UNSPEC;
		if (!note_goodbye(skb, settings, &d, &d.source))
			copy_in(skb, settings, &d, 0);
		return TC_ACT_UNSPEC;
	}
	if (!d.is_first || skb->pkt_type != PACKET_HOST || (d.to != own_port(settings, &d) && d.to != settings->port))
		return TC_ACT_UNSPEC;
	if (note_goodbye(skb, settings, &d, &d.source))
		return TC_ACT_SHOT;
	skb->tc_index = learn_kind(skb, settings, &d);
	set_port(skb, &d, own_port(settings, &d));
	return TC_ACT_UNSPEC;
}

/* What leaves by it. */
SEC("classifier")
int underlay_out(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *settings = bpf_map_lookup_elem(&fief_ov_settings, &zero);
	const struct address *alias;
	struct datagram d = {};
	struct address own;
	bool is_ours;

	if (!settings || !read_datagram(skb, &d))
		return TC_ACT_UNSPEC;
	alias = d.is_v4 ? &settings->alias4 : &settings->alias6;
	is_ours = d.is_first ? d.from == own_port(settings, &d) : skb->tc_index == settings->port;
	if (d.is_first && is_ours && d.to == own_port(settings, &d) && skb->tc_index)
		set_port(skb, &d, skb->tc_index);
	if (is_same_address(&d.destination, alias)) {
		/* The alias is there for this one conversation. */
		if (d.is_first && !is_ours && d.to != own_port(settings, &d))
			return TC_ACT_SHOT;
		own = d.source;
		set_destination(skb, &d, &own);
		set_source(skb, &d, alias);
		set_mac(skb, settings->mac);
		return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
	}
	if (!is_to_group(&d) || is_off(TOOTH_LOCAL))
		return TC_ACT_UNSPEC;
	if (d.is_first && d.to != settings->port)
		return TC_ACT_UNSPEC;
	if (!is_ours) {
		if (!note_goodbye(skb, settings, &d, alias))
			copy_in(skb, settings, &d, alias);
		return TC_ACT_UNSPEC;
	}
	own = d.source;
	set_source(skb, &d, alias);
	bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
	set_source(skb, &d, &own);
	return TC_ACT_UNSPEC;
}
