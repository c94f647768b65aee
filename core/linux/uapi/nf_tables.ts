/**
 * linux/netfilter/nf_tables.h (Linux 6.1): tables, chains, rules, and the expressions that rules are made of,
 * as far as denim uses them. All numbers in these attributes are in network order.
 *
 * @module
 */

// deno-fmt-ignore-file
// enum nf_tables_msg_types
export const NFT_MSG_NEWTABLE = 0, NFT_MSG_GETTABLE = 1, NFT_MSG_DELTABLE = 2;
export const NFT_MSG_NEWCHAIN = 3, NFT_MSG_GETCHAIN = 4, NFT_MSG_DELCHAIN = 5;
export const NFT_MSG_NEWRULE = 6, NFT_MSG_GETRULE = 7, NFT_MSG_DELRULE = 8;
export const NFT_MSG_NEWGEN = 15, NFT_MSG_GETGEN = 16;

export const NFTA_LIST_ELEM = 1;

export const NFTA_TABLE_NAME = 1, NFTA_TABLE_FLAGS = 2, NFTA_TABLE_USE = 3;

export const NFTA_CHAIN_TABLE = 1, NFTA_CHAIN_NAME = 3, NFTA_CHAIN_HOOK = 4;
export const NFTA_CHAIN_POLICY = 5, NFTA_CHAIN_TYPE = 7;
export const NFTA_HOOK_HOOKNUM = 1, NFTA_HOOK_PRIORITY = 2;

export const NFTA_RULE_TABLE = 1, NFTA_RULE_CHAIN = 2, NFTA_RULE_HANDLE = 3;
export const NFTA_RULE_EXPRESSIONS = 4;
export const NFTA_RULE_USERDATA = 7;

export const NFTA_GEN_ID = 1;

// Of messages about tables, chains, rules, sets, their elements, objects and flow tables alike, the first
// attribute is the table's name.
export const NFTA_ANY_TABLE = NFTA_TABLE_NAME;

// enum nft_registers: register 1 holds 16 bytes
export const NFT_REG_VERDICT = 0, NFT_REG_1 = 1;
// enum nft_verdicts
export const NFT_JUMP = -3, NFT_GOTO = -4, NFT_RETURN = -5;

export const NFTA_EXPR_NAME = 1, NFTA_EXPR_DATA = 2;
export const NFTA_DATA_VALUE = 1, NFTA_DATA_VERDICT = 2;
export const NFTA_VERDICT_CODE = 1, NFTA_VERDICT_CHAIN = 2;

export const NFTA_IMMEDIATE_DREG = 1, NFTA_IMMEDIATE_DATA = 2;

export const NFTA_BITWISE_SREG = 1, NFTA_BITWISE_DREG = 2, NFTA_BITWISE_LEN = 3;
export const NFTA_BITWISE_MASK = 4, NFTA_BITWISE_XOR = 5, NFTA_BITWISE_OP = 6;
export const NFT_BITWISE_MASK_XOR = 0;

export const NFTA_CMP_SREG = 1, NFTA_CMP_OP = 2, NFTA_CMP_DATA = 3;
export const NFT_CMP_EQ = 0, NFT_CMP_NEQ = 1;

export const NFTA_PAYLOAD_DREG = 1, NFTA_PAYLOAD_BASE = 2, NFTA_PAYLOAD_OFFSET = 3;
export const NFTA_PAYLOAD_LEN = 4;
export const NFT_PAYLOAD_NETWORK_HEADER = 1;

export const NFTA_META_DREG = 1, NFTA_META_KEY = 2;
export const NFT_META_MARK = 3;

export const NFTA_MASQ_FLAGS = 1, NFTA_MASQ_REG_PROTO_MIN = 2, NFTA_MASQ_REG_PROTO_MAX = 3;

export const NFTA_COUNTER_BYTES = 1, NFTA_COUNTER_PACKETS = 2;

// linux/netfilter/nf_tables_compat.h: an extension of iptables' as an expression
export const NFTA_TARGET_NAME = 1, NFTA_TARGET_REV = 2, NFTA_TARGET_INFO = 3;
