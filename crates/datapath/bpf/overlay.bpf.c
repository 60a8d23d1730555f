/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The fast path of the overlay: one Ethernet segment a group, VXLAN between hosts, frames that no process touches.
 *
 *     user's namespace     namespace of the overlay                          the host's
 *     eth0 ── veth ── port [from_port] ── table ── vxlan device ── UDP ── [underlay_out] device of the underlay
 *     eth0 ── veth ── port ◀── table ── [from_wire] vxlan device ◀── UDP ── [underlay_in] device of the underlay
 *
 * What is plain goes past the vxlan device and the IP stack, through a gate between the namespaces (lib/encap.h, lib/decap.h).
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
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "lib/decap.h"
#include "lib/encap.h"
#include "lib/underlay.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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
	if (is_off(TOOTH_RATE))
		return false;
	/* Of processors at the same time one wins, and the others look again. */
	for (int i = 0; i < 4; i++) {
		__u64 had = port->next, next = had < now ? now : had;

		if (next - now > port->burst)
			return true;
		if (__sync_val_compare_and_swap(&port->next, had, next + port->interval) == had)
			return false;
	}
	return true;
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
				else if (is_v4(&at.address) &&
					 pack(skb, settings, vni, &frame, at.address.words[3], at.port, now))
					return bpf_redirect_peer(settings->gate_inside, 0);
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
	if (is_v4(from))
		note_let_in(from->words[3], now);
	if (!peer.port)
		return TC_ACT_SHOT;
	segment = bpf_map_lookup_elem(&fief_ov_segments, &vni);
	if (!segment || !read_frame(skb, &frame)) {
		count(COUNT_MALFORMED);
		return TC_ACT_SHOT;
	}
	__builtin_memcpy(station.mac, frame.h_source, ETH_ALEN);
	hear(segment, &station, &peer, now);
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

/* At the gate: what underlay_in has unpacked, for the port whose number it bears. */
SEC("classifier")
int from_gate(struct __sk_buff *skb)
{
	__u32 device = skb->mark;

	skb->mark = 0;
	if (!device || !bpf_map_lookup_elem(&fief_ov_ports, &device))
		return TC_ACT_SHOT;
	/* It is of the outer datagram, the same for all conversations of two hosts. */
	bpf_set_hash_invalid(skb);
	return bpf_redirect_peer(device, 0);
}

/* At its other end: what from_port has packed. */
SEC("classifier")
int to_card(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *settings = bpf_map_lookup_elem(&fief_ov_settings, &zero);

	if (!settings || skb->mark != OUTWARD)
		return TC_ACT_SHOT;
	skb->mark = 0;
	return bpf_redirect(settings->card, 0);
}

/* What arrives at the underlay. */
SEC("classifier")
int underlay_in(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct settings *settings = bpf_map_lookup_elem(&fief_ov_settings, &zero);
	struct datagram d = {};

	if (!settings)
		return TC_ACT_UNSPEC;
	if (take_short_way(skb, settings))
		return bpf_redirect_peer(settings->gate, 0);
	if (!read_datagram(skb, &d))
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
		if (!note_goodbye(skb, settings, &d, &d.source) && copy_in(skb, settings, &d, 0))
			return TC_ACT_UNSPEC;
		return is_heard(skb, &d) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
	}
	if (!d.is_first || skb->pkt_type != PACKET_HOST || (d.to != own_port(settings, &d) && d.to != settings->port))
		return TC_ACT_UNSPEC;
	if (note_goodbye(skb, settings, &d, &d.source))
		return TC_ACT_SHOT;
	/* These ports are the vxlan device's alone, which has no other VNI. */
	if (!is_off(TOOTH_UNHEARD) && !is_of(skb, &d, NULL)) {
		count(COUNT_MALFORMED);
		return TC_ACT_SHOT;
	}
	skb->tc_index = is_probe(skb) ? 0 : learn_kind(skb, settings, &d);
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

	if (!settings || is_packed(skb, settings) || !read_datagram(skb, &d))
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
	if (!is_to_group(&d)) {
		if (is_ours && d.is_v4 && d.is_plain && !d.sum)
			note_way(skb, d.destination.words[3]);
		return TC_ACT_UNSPEC;
	}
	if (is_off(TOOTH_LOCAL))
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
