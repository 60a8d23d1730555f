/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What an endpoint may say of itself: not that it has an address of somebody else's (RFC 2827, RFC 7513), and on a network
 * that fief serves not that it is a router (RFC 6105) or a DHCP server (RFC 7610). Its Ethernet address the bridge
 * compares. An address that nobody has may be used: fief does not know all of them. */
#ifndef FIEF_GUARDED_H
#define FIEF_GUARDED_H

#include "endpoints.h"

#define DHCP_SERVER 67
#define DHCP_CLIENT 68
#define DHCP6_CLIENT 546
#define DHCP6_SERVER 547

/* Messages of neighbour discovery (RFC 4861). */
#define ROUTER_SOLICITATION 133
#define ROUTER_ADVERTISEMENT 134
#define NEIGHBOUR_SOLICITATION 135
#define NEIGHBOUR_ADVERTISEMENT 136
#define REDIRECT 137

/* ARP for Ethernet and IPv4 (RFC 826), behind the Ethernet header. */
struct arp {
	__be16 hardware;
	__be16 protocol;
	__u8 lengths[2];
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
} __attribute__((packed));

static __always_inline bool is_anothers(const struct port *port, const struct address *address)
{
	__u32 device = device_of(address);
	struct port other;

	if (device == NOBODY || device == port->device)
		return false;
	return !port_of(device, &other) || other.owner != port->owner;
}

/* Does it say that it is somebody else? */
static __always_inline bool lies_about_neighbours(struct __sk_buff *skb, const struct port *port)
{
	struct address sender = { .slot = port->space, .family = FAMILY_4 };
	__u8 from[6];
	struct arp arp;

	if (bpf_skb_load_bytes(skb, 6, from, sizeof(from)) || bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)))
		return true;
	for (int i = 0; i < 6; i++)
		if (arp.sender_mac[i] != from[i])
			return true;
	__builtin_memcpy(sender.address, arp.sender, 4);
	return is_anothers(port, &sender);
}

static __always_inline bool is_neighbour_discovery(const struct flow *flow)
{
	return flow->family == FAMILY_6 && flow->protocol == IPPROTO_ICMPV6 && !flow->is_later_fragment &&
	       flow->icmp_type >= ROUTER_SOLICITATION && flow->icmp_type <= REDIRECT;
}

static __always_inline bool is_unspecified(const __u32 *address)
{
	return !(address[0] | address[1] | address[2] | address[3]);
}

static __always_inline bool lies(struct __sk_buff *skb, const struct flow *flow, const struct port *port)
{
	struct address about = { .slot = port->space, .family = flow->family };

	__builtin_memcpy(about.address, flow->source, sizeof(about.address));
	if (is_anothers(port, &about))
		return true;
	if (flow->protocol == IPPROTO_UDP && !flow->is_later_fragment)
		return flow->source_port == (flow->family == FAMILY_4 ? DHCP_SERVER : DHCP6_SERVER) &&
		       flow->port == (flow->family == FAMILY_4 ? DHCP_CLIENT : DHCP6_CLIENT);
	if (!is_neighbour_discovery(flow))
		return false;
	switch (flow->icmp_type) {
	case ROUTER_ADVERTISEMENT:
	case REDIRECT:
		return true;
	case NEIGHBOUR_SOLICITATION:
		/* Who asks whether an address is taken says that he wants it. */
		if (!is_unspecified(flow->source))
			return false;
		break;
	case NEIGHBOUR_ADVERTISEMENT:
		break;
	default:
		return false;
	}
	if (flow->is_fragment || bpf_skb_load_bytes(skb, flow->transport + 8, about.address, sizeof(about.address)))
		return true;
	return is_anothers(port, &about);
}

#endif
