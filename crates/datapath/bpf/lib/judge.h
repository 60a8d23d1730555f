/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What becomes of a packet at an endpoint's port: is it what it says it is, does it belong to a conversation that may go
 * on, and if not, what do the rules say. docs/policy.md, "At a port". */
#ifndef FIEF_JUDGE_H
#define FIEF_JUDGE_H

#include <linux/pkt_cls.h>

#include "denied.h"
#include "guarded.h"

/* Do policies count? Otherwise only lies are found out. */
const volatile __u32 fief_judges = 0;

/* What is too much for the stack. A processor judges one packet at a time. */
struct desk {
	struct port port;
	struct flow flow;
	struct flow quoted;
	struct conversation key;
	struct known known;
	struct piece piece;
	struct head head;
	struct policy_result result;
	struct denied denied;
	struct denials denials;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct desk);
} fief_desk SEC(".maps");

/* What a processor asked the tables last. */
struct last {
	__u64 judged; /* how many */
	struct policy_result result;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct last);
} policy_last SEC(".maps");

/* Writes down that a packet does not pass, or would not. */
ONCE int deny(struct desk *desk, const struct flow *flow, int direction, int reason, __u64 now)
{
	bool sends = direction == POLICY_EGRESS;
	__u32 second = now / SECOND, device;
	struct denials *known, *value;
	struct denied *key;
	struct usage *usage;

	if (!desk || !flow)
		return 0;
	key = &desk->denied;
	value = &desk->denials;
	device = desk->port.device;
	key->device = device;
	key->direction = direction;
	key->reason = reason;
	key->protocol = flow->protocol;
	key->family = flow->family;
	__builtin_memcpy(key->own, sends ? flow->source : flow->destination, sizeof(key->own));
	__builtin_memcpy(key->other, sends ? flow->destination : flow->source, sizeof(key->other));
	key->port = is_icmp(flow) ? flow->icmp_type : flow->port;
	key->reserved = 0;
	key->rule = reason == DENIED_BY_RULE || reason == ONLY_AUDITED ? desk->result.rule : 0;
	known = bpf_map_lookup_elem(&fief_denied, key);
	if (known) {
		__sync_fetch_and_add(&known->count, 1);
		known->last = now;
		return 0;
	}
	usage = bpf_map_lookup_elem(&fief_usage, &device);
	if (!usage)
		return 0;
	if (usage->second != second) {
		usage->second = second;
		usage->new = 0;
	}
	if (usage->new >= NEW_IN_A_SECOND) {
		__sync_fetch_and_add(&usage->unlisted, 1);
		return 0;
	}
	usage->new++;
	value->count = 1;
	value->first = now;
	value->last = now;
	value->slot = desk->port.slot;
	value->subject = desk->result.subject;
	value->peer = desk->result.peer;
	value->reserved = 0;
	bpf_map_update_elem(&fief_denied, key, value, BPF_NOEXIST);
	return 0;
}

static __always_inline bool read_flow(struct __sk_buff *skb, struct flow *flow)
{
	if (skb->vlan_present)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return read_flow4(skb, ETH_HLEN, flow);
	return skb->protocol == bpf_htons(ETH_P_IPV6) && read_flow6(skb, ETH_HLEN, flow);
}

/* To everybody on this network, and to nobody beyond: 255.255.255.255 (RFC 919), ff02::/16 (RFC 4291). */
static __always_inline bool is_to_all(const struct flow *flow)
{
	if (flow->family == FAMILY_4)
		return flow->destination[0] == 0xffffffff;
	return (flow->destination[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0xff020000);
}

static __always_inline bool is_the_networks(const struct port *port, __u32 family, const __u32 *whose)
{
	struct address address = { .slot = port->space, .family = family };

	__builtin_memcpy(address.address, whose, sizeof(address.address));
	return device_of(&address) == 0;
}

/* Are these the ports of a lease that the endpoint asks for, or gets? */
static __always_inline bool is_lease(const struct flow *flow, bool sends)
{
	if (flow->protocol != IPPROTO_UDP)
		return false;
	if (flow->family == FAMILY_4)
		return sends ? flow->source_port == DHCP_CLIENT && flow->port == DHCP_SERVER
			     : flow->source_port == DHCP_SERVER && flow->port == DHCP_CLIENT;
	return sends ? flow->source_port == DHCP6_CLIENT && flow->port == DHCP6_SERVER
		     : flow->source_port == DHCP6_SERVER && flow->port == DHCP6_CLIENT;
}

/* Without these nobody is reachable: who has which address (RFC 4861; a hop limit of 255 says that no router passed it
 * on), who listens to which group (RFC 2710 and 3810, a hop limit of 1), and leases of one's own, from the network's
 * server; where that is not fief's, from whoever answers. */
static __always_inline bool is_groundwork(const struct flow *flow, const struct port *port, int direction)
{
	bool sends = direction == POLICY_EGRESS;

	if (flow->is_fragment)
		return false;
	if (flow->protocol == IPPROTO_ICMPV6 && flow->family == FAMILY_6) {
		if (flow->hops == 255)
			return flow->icmp_type >= ROUTER_SOLICITATION && flow->icmp_type <= NEIGHBOUR_ADVERTISEMENT;
		return flow->hops == 1 && is_to_all(flow) &&
		       ((flow->icmp_type >= 130 && flow->icmp_type <= 132) || flow->icmp_type == 143);
	}
	if (!is_lease(flow, sends))
		return false;
	if (sends)
		return is_to_all(flow) || is_the_networks(port, flow->family, flow->destination);
	return !(port->flags & PORT_GUARDED) || is_the_networks(port, flow->family, flow->source);
}

/* Is it an error about a packet of a conversation that goes on? (RFC 792; RFC 4443: types below 128 are errors) */
static __always_inline bool is_about_ours(struct __sk_buff *skb, struct desk *desk, int direction, __u64 now)
{
	const struct flow *flow = &desk->flow;
	__u32 offset = flow->transport + 8;

	if (!is_icmp(flow) || flow->is_fragment)
		return false;
	__builtin_memset(&desk->quoted, 0, sizeof(desk->quoted));
	if (flow->family == FAMILY_4) {
		if (flow->icmp_type != 3 && flow->icmp_type != 11 && flow->icmp_type != 12)
			return false;
		if (!read_flow4(skb, offset, &desk->quoted))
			return false;
	} else if (flow->icmp_type < 1 || flow->icmp_type > 4 || !read_flow6(skb, offset, &desk->quoted)) {
		return false;
	}
	/* What the endpoint hears of, it has sent; what it complains of, it has got. */
	conversation_of(desk->port.device, &desk->quoted, direction == POLICY_INGRESS ? POLICY_EGRESS : POLICY_INGRESS,
			&desk->key);
	return recall(&desk->key, now, &desk->known);
}

static __always_inline void turn_round(const struct flow *flow, struct flow *back)
{
	*back = *flow;
	__builtin_memcpy(back->source, flow->destination, sizeof(back->source));
	__builtin_memcpy(back->destination, flow->source, sizeof(back->destination));
	back->source_port = flow->port;
	back->port = flow->source_port;
}

/* What the rules say; what they forbid is written down. */
static __always_inline bool may(struct desk *desk, const struct flow *flow, int direction, __u64 now)
{
	__u32 zero = 0;
	struct last *last;

	/* Not in force yet: whoever is here before its others has to wait for them. */
	if (!generation_of(desk->port.space))
		return true;
	verdict(flow, &desk->port, direction, &desk->result);
	last = bpf_map_lookup_elem(&policy_last, &zero);
	if (last) {
		last->result = desk->result;
		last->judged++;
	}
	if (passes(&desk->result) || fief_teeth & TOOTH_VERDICT)
		return true;
	if (desk->result.outcome == OUTCOME_UNKNOWN) {
		deny(desk, flow, direction, DENIED_UNKNOWN, now);
		return false;
	}
	if (desk->port.flags & PORT_AUDITED) {
		deny(desk, flow, direction, ONLY_AUDITED, now);
		return true;
	}
	deny(desk, flow, direction, DENIED_BY_RULE, now);
	return false;
}

/* Is this one let through, by what is known of its conversation or else by the rules? */
static __always_inline bool goes_on(struct __sk_buff *skb, struct desk *desk, int direction, __u64 now, __u64 stamp)
{
	struct flow *flow = &desk->flow;
	bool is_known, is_answer, is_orphan = false;
	__u32 state;

	if (flow->is_fragment) {
		piece_of(desk->port.device, flow, direction, &desk->piece);
		if (flow->is_later_fragment) {
			is_orphan = !join(&desk->piece, now, flow);
			flow->is_later_fragment = is_orphan;
		}
	}
	/* Rules about all ports speak of a fragment whose first one was not here. */
	if (is_orphan)
		return may(desk, flow, direction, now);
	if (is_about_ours(skb, desk, direction, now))
		return true;
	conversation_of(desk->port.device, flow, direction, &desk->key);
	is_known = recall(&desk->key, now, &desk->known);
	is_answer = is_known && (direction == POLICY_EGRESS) != !!(desk->known.record.state & BEGUN_HERE);
	if (is_answer && begins(flow))
		is_known = is_answer = false;
	/* A SYN begins anew, also where its like was over. */
	if (is_known && (flow->protocol != IPPROTO_TCP || !begins(flow)))
		state = desk->known.record.state;
	else
		state = direction == POLICY_EGRESS ? BEGUN_HERE : 0;
	state = turned(flow, is_answer, state);
	if (is_known && (desk->known.record.stamp == stamp || fief_teeth & TOOTH_STAMP)) {
		if (state != desk->known.record.state)
			remember(&desk->key, now, stamp, state, &desk->known);
		return true;
	}
	if (is_answer) {
		/* Rules have changed. It may go on if it might begin now. */
		turn_round(flow, &desk->quoted);
		if (!may(desk, &desk->quoted, direction == POLICY_EGRESS ? POLICY_INGRESS : POLICY_EGRESS, now))
			return false;
	} else if (!may(desk, flow, direction, now)) {
		return false;
	}
	remember(&desk->key, now, stamp, state, &desk->known);
	return true;
}

/* TC_ACT_UNSPEC, or TC_ACT_SHOT. */
static __noinline int judge(struct __sk_buff *skb, int direction)
{
	__u64 now = bpf_ktime_get_coarse_ns(), stamp;
	__u32 zero = 0, device = skb->ifindex;
	struct desk *desk = bpf_map_lookup_elem(&fief_desk, &zero);
	bool sends = direction == POLICY_EGRESS, is_guarded;

	if (!desk || !port_of(device, &desk->port))
		return TC_ACT_SHOT;
	/* Before anything is asked that a change of the rules changes. */
	stamp = stamp_of(desk->port.space);
	barrier();
	is_guarded = sends && desk->port.flags & PORT_GUARDED && !(fief_teeth & TOOTH_LIES);
	desk->result.subject = desk->port.identity;
	desk->result.peer = 0;
	__builtin_memset(&desk->flow, 0, sizeof(desk->flow));
	if (skb->protocol == bpf_htons(ETH_P_ARP) && !skb->vlan_present) {
		if (!is_guarded || !lies_about_neighbours(skb, &desk->port))
			return TC_ACT_UNSPEC;
		goto lie;
	}
	if (!read_flow(skb, &desk->flow)) {
		if (!fief_judges)
			return TC_ACT_UNSPEC;
		deny(desk, &desk->flow, direction, DENIED_UNREADABLE, now);
		return TC_ACT_SHOT;
	}
	if (is_guarded && lies(skb, &desk->flow, &desk->port))
		goto lie;
	if (!fief_judges || is_groundwork(&desk->flow, &desk->port, direction))
		return TC_ACT_UNSPEC;
	if (!goes_on(skb, desk, direction, now, stamp))
		return TC_ACT_SHOT;
	if (desk->flow.is_fragment && !desk->flow.is_later_fragment)
		keep_head(&desk->piece, now, &desk->flow, &desk->head);
	return TC_ACT_UNSPEC;
lie:
	deny(desk, &desk->flow, direction, DENIED_LIE, now);
	return TC_ACT_SHOT;
}

#endif
