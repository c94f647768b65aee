/**
 * linux/netfilter.h, netfilter_ipv4.h, netfilter_ipv6.h and netfilter/nf_nat.h (Linux 6.1), as far as denim
 * uses them. NFPROTO_IPV4 and NFPROTO_IPV6 are AF_INET and AF_INET6.
 *
 * @module
 */

// deno-fmt-ignore-file
// linux/netfilter.h
export const NFPROTO_INET = 1;
export const NF_DROP = 0, NF_ACCEPT = 1;
export const NF_INET_PRE_ROUTING = 0, NF_INET_FORWARD = 2, NF_INET_POST_ROUTING = 4;
// linux/netfilter_ipv4.h; linux/netfilter_ipv6.h has the same
export const NF_IP_PRI_RAW = -300, NF_IP_PRI_FILTER = 0, NF_IP_PRI_NAT_SRC = 100;
// linux/netfilter/nf_nat.h
export const NF_NAT_RANGE_PROTO_RANDOM_FULLY = 0x10;
