/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The short way on the host, between the outer end of a tenant's link and an uplink: past routes, netfilter and connection
 * tracking, as in the tenant's namespace (lib/ways.h). Only IPv4 goes there.
 *
 * Out there tenants share addresses. So of each conversation it is written down whose it is, as what leaves says: connection
 * tracking may have given its place to somebody else since the last look. Nothing takes the short way, out or in, but what
 * belongs to who has it; and where two have had it within a while, nobody has it for as long. */
#ifndef FIEF_HOST_H
#define FIEF_HOST_H

#include "ways.h"

/* A conversation as the outside sees it, and as what leaves reads. */
struct front {
	__be32 own;
	__be32 other;
	__be16 own_port;
	__be16 other_port;
	__u32 protocol;
};

/* Whose it is: the address and port of a link. */
struct owner {
	struct front whose;
	__u32 device;   /* 0: more than one had it lately */
	__be32 address;
	__u32 port;
	__u32 reserved;
	__u64 since;    /* when something of it last took the whole way out */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, struct front);
	__type(value, struct owner);
} fief_fronts SEC(".maps");

/* Counts what fiefd has changed on the host: ways of before are over. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} fief_changes SEC(".maps");

static __always_inline __u64 changes(void)
{
	__u32 here = 0;
	__u64 *count = bpf_map_lookup_elem(&fief_changes, &here);

	return count ? *count : 0;
}

static __always_inline __be16 port_at(const __u32 *ports, int which)
{
	return ((const __be16 *)ports)[which];
}

#define SOURCE 0
#define DESTINATION 1

/* What leaves, or what comes in. Ports stand in the first fragment. */
static __always_inline bool front_of(struct __sk_buff *skb, bool leaves, struct front *front)
{
	struct iphdr ip;
	__be16 ports[2];

	if (skb->vlan_present || skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return false;
	if ((ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP) || ip.frag_off & bpf_htons(0x1fff) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4, ports, sizeof(ports)))
		return false;
	front->own = leaves ? ip.saddr : ip.daddr;
	front->other = leaves ? ip.daddr : ip.saddr;
	front->own_port = ports[leaves ? SOURCE : DESTINATION];
	front->other_port = ports[leaves ? DESTINATION : SOURCE];
	front->protocol = ip.protocol;
	return true;
}

/* Does it belong to this address and port of a link, and has something of it gone out the whole way a while ago? */
static __always_inline bool owns(const struct front *front, __u32 device, __be32 address, __be16 port)
{
	struct owner *there = bpf_map_lookup_elem(&fief_fronts, front), owner;

	if (fief_teeth & TOOTH_FRONTS)
		return true;
	if (!there)
		return false;
	owner = *there;
	return is_still(front, &there->whose, sizeof(*front)) && owner.device == device && owner.address == address &&
	       owner.port == port && bpf_ktime_get_coarse_ns() - owner.since <= A_WHILE;
}

/* The tenant's number is in the address of its link (src/networks/links.rs of fiefd). */
static __always_inline bool is_of_link(__u32 device, __be32 address)
{
	return (bpf_ntohl(address) & 0xffff) == device / EACH - 1;
}

/* From a tenant's link: by the uplink at once, if the way is known. */
static __noinline int leave(struct __sk_buff *skb)
{
	struct talk4 talk = {};
	struct packet packet = {};
	struct front front = {};
	struct traveller *traveller;
	__u64 stamp = changes();
	struct way4 way;

	skb->tc_index = 0;
	if (skb->vlan_present || skb->protocol != bpf_htons(ETH_P_IP) || !read4(skb, skb->ifindex, &talk, &packet))
		return TC_ACT_UNSPEC;
	traveller = set_out(skb, AT_LINK, &packet, stamp);
	if (!traveller)
		return TC_ACT_UNSPEC;
	traveller->v4 = talk;
	if (!way_of(skb, &talk, &packet, stamp, &way) || packet.carried > way.length)
		return TC_ACT_UNSPEC;
	front.own = way.end.source;
	front.other = way.end.destination;
	front.own_port = port_at(&way.end.ports, SOURCE);
	front.other_port = port_at(&way.end.ports, DESTINATION);
	front.protocol = talk.protocol & 0xff;
	if (!owns(&front, talk.device, talk.source, port_at(&talk.ports, SOURCE)))
		return TC_ACT_UNSPEC;
	traveller->is_short = true;
	skb->mark = way.mark;
	skb->priority = way.priority;
	return follow4(skb, &talk, &way);
}

/* Who leaves with this is not who had it, or nobody knows who he is. */
static __always_inline void contest(const struct front *front, __u64 now)
{
	struct owner nobody = { .whose = *front, .since = now };

	bpf_map_update_elem(&fief_fronts, front, &nobody, BPF_ANY);
}

/* Writes down that it belongs to who has sent this. Says whether it does. What only begins is nobody's yet: a flood of calls
 * takes no room. */
static __always_inline bool claim(const struct front *front, const struct talk4 *begin, bool begins, __u64 now)
{
	struct owner mine = {
		.whose = *front,
		.device = begin->device,
		.address = begin->source,
		.port = port_at(&begin->ports, SOURCE),
		.since = now,
	};
	struct owner *there = bpf_map_lookup_elem(&fief_fronts, front), owner;

	if (there) {
		owner = *there;
		if (!is_still(front, &there->whose, sizeof(*front)))
			return false;
		if (owner.device == mine.device && owner.address == mine.address && owner.port == mine.port) {
			/* Only this: whoever contests it just now puts another element in its place. */
			there->since = now;
			return true;
		}
		/* The clock of programs is coarse: somebody else may have looked at a finer one. */
		if ((__s64)(now - owner.since) <= (__s64)(2 * A_WHILE)) {
			if (owner.device)
				contest(front, now);
			return false;
		}
	}
	return !begins && !bpf_map_update_elem(&fief_fronts, front, &mine, BPF_ANY);
}

/* Is this a tenant's packet that has only got the uplink's address? */
static __always_inline bool is_behind(const struct talk4 *begin, const struct talk4 *end)
{
	return end->destination == begin->destination && end->source != begin->source &&
	       port_at(&end->ports, DESTINATION) == port_at(&begin->ports, DESTINATION) &&
	       !((end->protocol ^ begin->protocol) & 0xff) && is_of_link(begin->device, begin->source);
}

/* What leaves by an uplink: whose is it, and how did it come here? */
static __noinline int has_left(struct __sk_buff *skb)
{
	struct traveller *traveller = arrived(skb);
	__u64 now = bpf_ktime_get_coarse_ns();
	struct front front = {};
	struct packet packet = {};
	struct way4 way = {};
	struct owner *there;

	if (traveller) {
		skb->tc_index = 0;
		traveller->token = 0;
		if (traveller->is_short)
			return 0;
	}
	if (!front_of(skb, true, &front))
		return 0;
	if (!traveller || traveller->place != AT_LINK || !read4(skb, skb->ifindex | UPLINK, &way.end, &packet) ||
	    !is_same(&traveller->packet, &packet) || !is_behind(&traveller->v4, &way.end)) {
		there = bpf_map_lookup_elem(&fief_fronts, &front);
		if (there && there->device)
			contest(&front, now);
		return 0;
	}
	way.begin = traveller->v4;
	if (!claim(&front, &way.begin, packet.turns, now) || packet.turns || way.begin.protocol != way.end.protocol)
		return 0;
	way.since = now;
	way.stamp = traveller->stamp;
	way.hops = traveller->packet.hops - packet.hops;
	way.length = packet.carried;
	way.mark = skb->mark;
	way.priority = skb->priority;
	bpf_map_update_elem(&fief_ways4, &way.begin, &way, BPF_ANY);
	return 0;
}

/* From outside: into the tenant's namespace at once, if the way is known. */
static __noinline int enter(struct __sk_buff *skb)
{
	struct talk4 talk = {};
	struct packet packet = {};
	struct front front = {};
	struct traveller *traveller;
	__u64 stamp = changes();
	struct owner *there;
	struct way4 way;

	/* A mark is somebody else's word on where it goes. */
	if (skb->pkt_type != PACKET_HOST || skb->mark || !front_of(skb, false, &front))
		return TC_ACT_UNSPEC;
	there = bpf_map_lookup_elem(&fief_fronts, &front);
	if (!there || (!there->device && !(fief_teeth & TOOTH_FRONTS)) ||
	    !read4(skb, skb->ifindex | UPLINK, &talk, &packet))
		return TC_ACT_UNSPEC;
	if (way_of(skb, &talk, &packet, stamp, &way) && packet.carried <= way.length &&
	    owns(&front, way.end.device, way.end.destination, port_at(&way.end.ports, DESTINATION))) {
		skb->tc_index = 0;
		skb->priority = way.priority;
		return follow4(skb, &talk, &way);
	}
	if (!packet.turns && (traveller = set_out(skb, AT_UPLINK, &packet, stamp)))
		traveller->v4 = talk;
	return TC_ACT_UNSPEC;
}

/* What has come to a tenant's link: how did it come here? */
static __noinline int has_entered(struct __sk_buff *skb)
{
	struct traveller *traveller = arrived(skb);
	struct packet packet = {};
	struct way4 way = {};

	skb->tc_index = 0;
	if (!traveller || traveller->place != AT_UPLINK || skb->protocol != bpf_htons(ETH_P_IP) ||
	    !read4(skb, skb->ifindex, &way.end, &packet) || !is_same(&traveller->packet, &packet))
		return 0;
	way.begin = traveller->v4;
	if (way.end.source != way.begin.source || way.begin.protocol != way.end.protocol ||
	    port_at(&way.end.ports, SOURCE) != port_at(&way.begin.ports, SOURCE) ||
	    !is_of_link(way.end.device, way.end.destination))
		return 0;
	way.since = bpf_ktime_get_coarse_ns();
	way.stamp = traveller->stamp;
	way.hops = traveller->packet.hops - packet.hops;
	way.length = packet.carried;
	way.priority = skb->priority;
	bpf_map_update_elem(&fief_ways4, &way.begin, &way, BPF_ANY);
	return 0;
}

#endif
