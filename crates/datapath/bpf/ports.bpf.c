/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Programs at the ports of networks' bridges, at the links that lead out, and at the host's uplinks. */

#include <linux/bpf.h>

#include "lib/host.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What comes in at a port: its endpoint sends it. */
SEC("classifier")
int port_in(struct __sk_buff *skb)
{
	__u64 stamp = stamp_at(skb->ifindex);
	int answer = take_short_way(skb, stamp);

	if (answer != TC_ACT_UNSPEC)
		return answer;
	answer = judge(skb, POLICY_EGRESS);
	if (answer == TC_ACT_UNSPEC)
		take_whole_way(skb, stamp);
	return answer;
}

/* What goes out at a port: it reaches its endpoint. */
SEC("classifier")
int port_out(struct __sk_buff *skb)
{
	if (fief_judges && judge(skb, POLICY_INGRESS) != TC_ACT_UNSPEC)
		return TC_ACT_SHOT;
	learn_way(skb);
	return TC_ACT_UNSPEC;
}

/* The same, where there is no short way. */
SEC("classifier")
int gate_in(struct __sk_buff *skb)
{
	return judge(skb, POLICY_EGRESS);
}

SEC("classifier")
int gate_out(struct __sk_buff *skb)
{
	return fief_judges ? judge(skb, POLICY_INGRESS) : TC_ACT_UNSPEC;
}

/* At the link's end in the namespace. */
SEC("classifier")
int link_in(struct __sk_buff *skb)
{
	__u64 stamp = stamp_at(skb->ifindex);
	int answer = take_short_way(skb, stamp);

	if (answer == TC_ACT_UNSPEC)
		take_whole_way(skb, stamp);
	return answer;
}

SEC("classifier")
int link_out(struct __sk_buff *skb)
{
	learn_way(skb);
	return TC_ACT_UNSPEC;
}

/* At the link's end on the host: a tenant's packets come, */
SEC("classifier")
int outer_in(struct __sk_buff *skb)
{
	return leave(skb);
}

/* and what is for it goes. */
SEC("classifier")
int outer_out(struct __sk_buff *skb)
{
	has_entered(skb);
	return TC_ACT_UNSPEC;
}

/* At an uplink: from outside, */
SEC("classifier")
int uplink_in(struct __sk_buff *skb)
{
	return enter(skb);
}

/* and to there. */
SEC("classifier")
int uplink_out(struct __sk_buff *skb)
{
	has_left(skb);
	return TC_ACT_UNSPEC;
}
