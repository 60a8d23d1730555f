/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Programs at the ports of networks' bridges. A conversation's packets take the whole way first: bridge, port lock,
 * netfilter, connection tracking. Where one of them leaves by another port, that is remembered, and for a while those
 * behind it go there directly. Once in that while one takes the whole way again, so what has a record keeps it.
 *
 * Devices have one number each on the whole host (ports.rs), because a program cannot tell network namespaces apart. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Ports have numbers from here on; what is below is no port. */
#define FIRST_PORT 4096
/* How long packets follow one that took the whole way, in nanoseconds: less than any timeout of a conversation. */
#define A_WHILE 1000000000ULL
/* FIN, SYN and RST (RFC 9293): connection tracking is to see how a connection begins and ends. */
#define TURNS 0x07

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What all packets of one direction of a conversation have in common. */
struct talk4 {
	__u32 port;        /* where they come in */
	__u8 macs[12];     /* destination, source */
	__u32 addresses[2];
	__u32 ports;       /* source and destination */
	__u32 protocol;
};

struct talk6 {
	__u32 port;
	__u8 macs[12];
	__u32 addresses[8];
	__u32 ports;
	__u32 protocol;
};

struct way {
	__u64 since;       /* when one of them took the whole way */
	__u32 port;        /* where it left */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, struct talk4);
	__type(value, struct way);
} fief_ways4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct talk6);
	__type(value, struct way);
} fief_ways6 SEC(".maps");

/* The ports behind a network header, if all packets of the conversation look the same to the bridge: no fragment, no
 * beginning, no end. */
static __always_inline bool ports_of(void *at, void *end, __u32 protocol, __u32 *ports)
{
	__u8 *bytes = at;

	if (protocol == IPPROTO_UDP) {
		if (at + 8 > end)
			return false;
	} else if (protocol == IPPROTO_TCP) {
		if (at + 20 > end || bytes[13] & TURNS)
			return false;
	} else {
		return false;
	}
	*ports = *(__u32 *)at;
	return true;
}

static __always_inline bool is_group(const struct ethhdr *frame)
{
	return frame->h_dest[0] & 1;
}

static __always_inline bool talk4_of(struct __sk_buff *skb, struct talk4 *talk)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *frame = (void *)(long)skb->data;
	struct iphdr *ip = (void *)(frame + 1);

	if ((void *)(ip + 1) > end || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff) || is_group(frame))
		return false;
	__builtin_memcpy(talk->macs, frame, sizeof(talk->macs));
	talk->addresses[0] = ip->saddr;
	talk->addresses[1] = ip->daddr;
	talk->protocol = ip->protocol;
	return ports_of(ip + 1, end, ip->protocol, &talk->ports);
}

static __always_inline bool talk6_of(struct __sk_buff *skb, struct talk6 *talk)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *frame = (void *)(long)skb->data;
	struct ipv6hdr *ip = (void *)(frame + 1);

	if ((void *)(ip + 1) > end || is_group(frame))
		return false;
	__builtin_memcpy(talk->macs, frame, sizeof(talk->macs));
	__builtin_memcpy(talk->addresses, &ip->saddr, sizeof(talk->addresses));
	talk->protocol = ip->nexthdr;
	return ports_of(ip + 1, end, ip->nexthdr, &talk->ports);
}

static __always_inline int follow(struct __sk_buff *skb, const struct way *way)
{
	if (!way || bpf_ktime_get_coarse_ns() - way->since > A_WHILE)
		return TC_ACT_UNSPEC;
	skb->tc_index = 1;
	return bpf_redirect(way->port, 0);
}

/* tc_index says who takes the short way; a workload that passes packets on may have left one. */
SEC("classifier")
int port_in(struct __sk_buff *skb)
{
	skb->tc_index = 0;
	if (skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct talk4 talk = { .port = skb->ifindex };

		return talk4_of(skb, &talk) ? follow(skb, bpf_map_lookup_elem(&fief_ways4, &talk)) : TC_ACT_UNSPEC;
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct talk6 talk = { .port = skb->ifindex };

		return talk6_of(skb, &talk) ? follow(skb, bpf_map_lookup_elem(&fief_ways6, &talk)) : TC_ACT_UNSPEC;
	}
	return TC_ACT_UNSPEC;
}

SEC("classifier")
int port_out(struct __sk_buff *skb)
{
	struct way way = { .port = skb->ifindex };
	__u32 from = skb->ingress_ifindex;

	/* What the namespace itself sends, or routes, comes from no port. */
	if (skb->tc_index || from < FIRST_PORT || skb->vlan_present)
		return TC_ACT_UNSPEC;
	way.since = bpf_ktime_get_coarse_ns();
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct talk4 talk = { .port = from };

		if (talk4_of(skb, &talk))
			bpf_map_update_elem(&fief_ways4, &talk, &way, BPF_ANY);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct talk6 talk = { .port = from };

		if (talk6_of(skb, &talk))
			bpf_map_update_elem(&fief_ways6, &talk, &way, BPF_ANY);
	}
	return TC_ACT_UNSPEC;
}
