/**
 * linux/netfilter/nfnetlink.h (Linux 6.1): the frame of every netfilter message.
 *
 * @module
 */

// deno-fmt-ignore-file
// struct nfgenmsg: nfgen_family, version, and at 2 res_id in network order
export const NFGENMSG_LEN = 4;
export const NFNETLINK_V0 = 0;

// A message's type is its subsystem times 256 plus its number there; these two belong to no subsystem.
export const NFNL_SUBSYS_NFTABLES = 10;
export const NFNL_MSG_BATCH_BEGIN = 16, NFNL_MSG_BATCH_END = 17;

export const NFNLGRP_NFTABLES = 7;
