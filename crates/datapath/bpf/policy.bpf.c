/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Policies, at the ports of endpoints. Attached nowhere yet, and the daemon does not load it: a packet is judged by
 * itself, so an answer needs a rule of its own. Connection tracking comes between reading a packet and its verdict:
 * what it knows needs no verdict, and a verdict is what it learns.
 *
 * What cannot be read is dropped, and so is what is neither IP nor ARP: tags of VLANs would hide the packet. */

#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "lib/verdict.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Whose port a device is, by its number: they are unique on the host (src/ports.rs). */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, __u32); /* slot */
} policy_device SEC(".maps");

/* What a processor judged last. */
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

/* Without these no IPv6 address is reachable: solicitations and advertisements of routers and neighbours, which say by
 * their hops that no router passed them on (RFC 4861, 6.1 and 7.1). */
static __always_inline bool is_neighbour_discovery(const struct flow *flow)
{
	return flow->family == FAMILY_6 && flow->protocol == IPPROTO_ICMPV6 && !flow->is_later_fragment &&
	       flow->hops == 255 && flow->icmp_type >= 133 && flow->icmp_type <= 136;
}

static __always_inline int judge(struct __sk_buff *skb, int direction)
{
	__u32 device = skb->ifindex, zero = 0;
	struct flow flow = {};
	struct policy_result result = {};
	struct last *last;
	__u32 *slot;

	if (skb->vlan_present)
		return TC_ACT_SHOT;
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return TC_ACT_UNSPEC;
	slot = bpf_map_lookup_elem(&policy_device, &device);
	if (!slot)
		return TC_ACT_SHOT;
	flow.slot = *slot;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (!read_flow4(skb, &flow))
			return TC_ACT_SHOT;
	} else if (skb->protocol != bpf_htons(ETH_P_IPV6) || !read_flow6(skb, &flow)) {
		return TC_ACT_SHOT;
	}
	if (is_neighbour_discovery(&flow))
		return TC_ACT_UNSPEC;
	verdict(&flow, direction, &result);
	last = bpf_map_lookup_elem(&policy_last, &zero);
	if (last) {
		last->result = result;
		last->judged++;
	}
	return passes(&result) ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* What comes in at the port: the endpoint sends it. */
SEC("classifier")
int policy_from(struct __sk_buff *skb)
{
	return judge(skb, POLICY_EGRESS);
}

/* What goes out at the port: it reaches the endpoint. */
SEC("classifier")
int policy_to(struct __sk_buff *skb)
{
	return judge(skb, POLICY_INGRESS);
}
