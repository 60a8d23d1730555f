/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A plain datagram of a segment: VXLAN (RFC 7348) in IPv4 without options, in one piece, without a sum of UDP. */
#ifndef FIEF_PLAIN_H
#define FIEF_PLAIN_H

#include "overlay.h"

/* Where the headers of it are; no struct, whose members would be read byte by byte. */
#define AT_IP ETH_HLEN
#define AT_UDP (AT_IP + sizeof(struct iphdr))
#define AT_VXLAN (AT_UDP + sizeof(struct udphdr))
#define AT_FRAME (AT_VXLAN + 8)
#define AT_END (AT_FRAME + ETH_HLEN)

/* What stands before the frame. */
#define PACKING (AT_END - ETH_HLEN)

/* The sum of a header without options (RFC 1071); 0xffff if its own is right. */
static __always_inline __u16 ip_sum(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u32 sum = 0;

	for (unsigned int i = 0; i < sizeof(*ip) / sizeof(*words); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

#endif
