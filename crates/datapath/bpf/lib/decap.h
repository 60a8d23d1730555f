/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The short way in: a datagram for a port of this host is unpacked at the underlay's device, and its frame goes to the port
 * through the gate, a pair of veth devices between the two namespaces (bpf_redirect_peer goes from one to the next without a
 * queue), past the IP stack, the vxlan device and its queue.
 *
 * The host's filters have their say none the less: of each peer a datagram has come the long way within the last two seconds,
 * or none goes the short one. A copy is sent the long way when that was a second ago, and ends at the vxlan device.
 *
 * Only what is plain goes so: IPv4 in one piece without a sum of UDP (RFC 7348, 5), so that there is nothing to put together
 * and nothing to check but the header's sum; an IP packet inside; to an address that a port has. All else takes the long way,
 * by the vxlan device. Frames of one conversation take the same, so that none overtakes another.
 *
 * What a card or the other end has put together (GRO, GSO) stays so, and is marked as a tunnel's still (SKB_GSO_UDP_TUNNEL,
 * which bpf_skb_adjust_room leaves on): its inner headers are where that says they are. */
#ifndef FIEF_DECAP_H
#define FIEF_DECAP_H

#include "plain.h"
#include "stations.h"

/* Linux 6.3, which the headers of this machine may not know. */
#define DECAP_L3_IPV6 (1ULL << 8)

static __always_inline bool is_plain(const void *data, const struct settings *settings)
{
	const struct ethhdr *ethernet = data, *frame = data + AT_FRAME;
	const struct iphdr *ip = data + AT_IP;
	const struct udphdr *udp = data + AT_UDP;
	const __be32 *vxlan = data + AT_VXLAN;

	if (ethernet->h_proto != bpf_htons(ETH_P_IP) || *(const __u8 *)ip != 0x45 || ip->protocol != IPPROTO_UDP)
		return false;
	if (ip->daddr != settings->own4.words[3] || ip->frag_off & bpf_htons(0x3fff) || udp->check)
		return false;
	if (udp->dest != settings->own_port4 && udp->dest != settings->port)
		return false;
	/* A router that is congested says so to who is inside (RFC 6040). */
	if ((ip->tos & 3) == 3 || ip->saddr == settings->alias4.words[3])
		return false;
	if (vxlan[0] != bpf_htonl(0x08000000) || vxlan[1] & bpf_htonl(0xff))
		return false;
	return frame->h_proto == bpf_htons(ETH_P_IP) || frame->h_proto == bpf_htons(ETH_P_IPV6);
}

/* Who sends a frame is at this peer from now on. Most frames are of whom the one before was of. */
static __always_inline void hear(struct segment *segment, struct station *from, struct place *peer, __u64 now)
{
	if (is_same_mac(segment->last_mac, from->mac) && segment->last_port == peer->port &&
	    is_same_address(&segment->last_address, &peer->address) && now - segment->last_seen <= REFRESH)
		return;
	learn(from, peer, segment->macs, now);
	__builtin_memcpy(segment->last_mac, from->mac, ETH_ALEN);
	segment->last_port = peer->port;
	segment->last_address = peer->address;
	segment->last_seen = now;
}

/* The source that such copies have. */
static const __u8 of_probes[ETH_ALEN] = { 0x06, 0xf1, 0xef, 0x0e, 0x56, 0xdf };

static __always_inline bool is_probe(struct __sk_buff *skb)
{
	__u8 source[ETH_ALEN];

	return !bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), source, sizeof(source)) &&
	       is_same_mac(source, of_probes);
}

/* At the vxlan device: what this peer sends is let in by whatever filters the host has. */
static __always_inline void note_let_in(__be32 peer, __u64 now)
{
	__u64 *at = bpf_map_lookup_elem(&fief_ov_let_in, &peer);

	if (!at)
		bpf_map_update_elem(&fief_ov_let_in, &peer, &now, BPF_ANY);
	else if (now - *at > REFRESH / 2)
		*at = now;
}

/* Is it? If that is a second old, a copy goes to see. What `data` points to is gone then. */
static __always_inline bool is_let_in(struct __sk_buff *skb, __be32 peer, const struct ethhdr *ethernet, __u64 now)
{
	__u64 *at = bpf_map_lookup_elem(&fief_ov_let_in, &peer);

	if (is_off(TOOTH_FILTER))
		return true;
	if (!at || now - *at > 2 * REFRESH)
		return false;
	if (now - *at > REFRESH) {
		bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), of_probes, ETH_ALEN, 0);
		bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS);
		bpf_skb_store_bytes(skb, 0, ethernet, sizeof(*ethernet), 0);
	}
	return true;
}

/* Unpacks what is plain, and gives whether it did. */
static __always_inline bool take_short_way(struct __sk_buff *skb, const struct settings *settings)
{
	const void *data = (void *)(long)skb->data;
	const struct iphdr *ip = data + AT_IP;
	const struct udphdr *udp = data + AT_UDP;
	struct place *place, peer = { .address = { .words = { 0, 0, bpf_htonl(0xffff), 0 } } };
	__u64 now, flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET;
	struct station station = {};
	struct segment *segment;
	struct ethhdr frame, outer;
	__u32 device;

	if (!settings->gate || skb->vlan_present || skb->pkt_type != PACKET_HOST ||
	    data + AT_END > (void *)(long)skb->data_end || !is_plain(data, settings) || is_off(TOOTH_PORT))
		return false;
	__builtin_memcpy(&frame, data + AT_FRAME, sizeof(frame));
	/* A group's address, or a group as the sender. */
	if ((frame.h_dest[0] | frame.h_source[0]) & 1 || ip_sum(ip) != 0xffff)
		return false;
	station.vni = bpf_ntohl(*(__be32 *)(data + AT_VXLAN + 4)) >> 8;
	segment = bpf_map_lookup_elem(&fief_ov_segments, &station.vni);
	if (!segment)
		return false;
	__builtin_memcpy(station.mac, frame.h_dest, ETH_ALEN);
	place = bpf_map_lookup_elem(&fief_ov_stations, &station);
	now = bpf_ktime_get_coarse_ns();
	if (!place || !place->device || !is_valid(station.vni, place, now))
		return false;
	/* A tunnel of the kernel's sends from any port (answered_at). */
	peer.port = is_fast(settings, udp->source) ? udp->source : settings->port;
	peer.address.words[3] = ip->saddr;
	__builtin_memcpy(&outer, data, sizeof(outer));
	device = place->device;
	if (is_same_mac(outer.h_source, of_probes) || !is_let_in(skb, peer.address.words[3], &outer, now))
		return false;
	skb->mark = device;
	__builtin_memcpy(station.mac, frame.h_source, ETH_ALEN);
	hear(segment, &station, &peer, now);
	if (frame.h_proto == bpf_htons(ETH_P_IPV6))
		flags |= DECAP_L3_IPV6;
	if (bpf_skb_adjust_room(skb, -(__s32)PACKING, BPF_ADJ_ROOM_MAC, flags)) {
		skb->mark = 0;
		return false;
	}
	/* What the card has verified of the outer datagram it has not of the inner. */
	bpf_csum_level(skb, BPF_CSUM_LEVEL_DEC);
	bpf_skb_store_bytes(skb, 0, &frame, sizeof(frame), 0);
	return true;
}

#endif
