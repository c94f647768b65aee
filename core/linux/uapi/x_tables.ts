/**
 * linux/netfilter/x_tables.h, netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h (Linux 6.1): the tables of
 * iptables-legacy, as far as denim reads them. All numbers are in host order.
 *
 * @module
 */

// deno-fmt-ignore-file
// Options of SOL_IP and, with the same numbers, of SOL_IPV6
export const IPT_SO_GET_INFO = 64, IPT_SO_GET_ENTRIES = 65;

// struct ipt_getinfo: name[32], valid_hooks, hook_entry[5], underflow[5], num_entries, size
export const XT_TABLE_MAXNAMELEN = 32;
export const IPT_GETINFO_LEN = 84, IPT_GETINFO_UNDERFLOW = 56, IPT_GETINFO_SIZE = 80;
// struct ipt_get_entries: name[32], size, and at 40 the entries
export const IPT_GET_ENTRIES_SIZE = 32, IPT_GET_ENTRIES_LEN = 40;

// struct ipt_entry and struct ip6t_entry, by the place of their parts: u16 target_offset, u16 next_offset, two u64
// counters
export const IPT_ENTRY_TARGET_OFFSET = 88, IPT_ENTRY_NEXT_OFFSET = 90, IPT_ENTRY_COUNTERS = 96;
export const IP6T_ENTRY_TARGET_OFFSET = 140, IP6T_ENTRY_NEXT_OFFSET = 142, IP6T_ENTRY_COUNTERS = 152;
export const XT_COUNTERS_LEN = 16;
// struct xt_standard_target: an xt_entry_target, and at 32 the verdict, which is -NF_DROP - 1 or -NF_ACCEPT - 1
export const XT_STANDARD_TARGET_VERDICT = 32;
