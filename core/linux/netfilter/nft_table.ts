/**
 * denim's own nftables table of a family, `ip denim` or `ip6 denim`, as one object: a table that differs in one rule
 * is replaced as a whole. Equivalent to `nft -f` with the whole table in the file.
 *
 * There is one table for each family, as with flannel, and not one of family `inet` for both. With a NAT chain of
 * `inet` the kernel tracks the connections of both families even if the cluster has one, and each rule would
 * first have to ask for the packet's family.
 *
 * @module
 */

import { addressBits, Cidr, type Family, IpAddress } from "../../ip.ts";
import { attributesOf, type MessageReader, type MessageWriter } from "../netlink/netlink_codec.ts";
import { addressFamily } from "../sys/address_family.ts";
import { NFPROTO_INET } from "../uapi/netfilter.ts";
import { NLM_F_APPEND, NLM_F_CREATE } from "../uapi/netlink.ts";
import { NFGENMSG_LEN, NFNETLINK_V0, NFNL_SUBSYS_NFTABLES } from "../uapi/nfnetlink.ts";
import {
  NFT_MSG_DELRULE,
  NFT_MSG_DELTABLE,
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWRULE,
  NFT_MSG_NEWTABLE,
  NFT_PAYLOAD_NETWORK_HEADER,
  NFTA_CHAIN_HOOK,
  NFTA_CHAIN_NAME,
  NFTA_CHAIN_POLICY,
  NFTA_CHAIN_TABLE,
  NFTA_CHAIN_TYPE,
  NFTA_HOOK_HOOKNUM,
  NFTA_HOOK_PRIORITY,
  NFTA_RULE_CHAIN,
  NFTA_RULE_EXPRESSIONS,
  NFTA_RULE_HANDLE,
  NFTA_RULE_TABLE,
  NFTA_RULE_USERDATA,
  NFTA_TABLE_FLAGS,
  NFTA_TABLE_NAME,
  NFTA_TABLE_USE,
} from "../uapi/nf_tables.ts";
import {
  be32,
  type Expression,
  expressionText,
  fromBe32,
  readExpressions,
  writeExpressions,
} from "./nft_codec.ts";

/** The name of denim's tables. */
export const NFT_TABLE_NAME = "denim";

/** A rule, as the kernel's program. */
export interface NftRule {
  /** Its steps. */
  readonly expressions: readonly Expression[];
  /** What it is for, for people who list the table; at most 127 octets. */
  readonly comment: string;
}

/** A chain to which the kernel hands packets of its own accord (a base chain), with at least one rule. */
export interface NftChain {
  /** Its name. */
  readonly name: string;
  /** What its rules may do: only those of a "nat" chain masquerade. */
  readonly type: "nat" | "filter";
  /** The place on a packet's way: `NF_INET_POST_ROUTING`. */
  readonly hook: number;
  /** Its turn among the chains there, lowest first: `NF_IP_PRI_NAT_SRC`. */
  readonly priority: number;
  /** What becomes of a packet about which no rule says anything: `NF_ACCEPT`. */
  readonly policy: number;
  /** Its rules, in order. */
  readonly rules: readonly NftRule[];
}

/** A table of a family, whole. */
export interface NftTable {
  /** Tells the kinds of object apart. */
  readonly kind: "nftTable";
  /** Whose packets it sees. */
  readonly family: Family;
  /** {@link NFT_TABLE_NAME}, or the name of a table that flanneld left. */
  readonly name: string;
  /** Its chains, in order. */
  readonly chains: readonly NftChain[];
}

/** A table as the kernel has it; what is wanted says nothing of the numbers. */
export interface FoundNftTable extends NftTable {
  /** `NFT_TABLE_F_…`: none is wanted. `NFT_TABLE_F_DORMANT` switches all its chains off. */
  readonly flags?: number;
  /** The number of its chains, sets, objects and flow tables, also of such that were not read. */
  readonly use?: number;
}

/** Whether the kernel's table is as it should be. */
export function nftTableEqual(wanted: NftTable, found: FoundNftTable): boolean {
  return sameFrame(wanted, found) &&
    wanted.chains.every(({ rules }, index) => sameRules(rules, found.chains[index]!.rules));
}

/** Whether the table is as it should be, but for rules. */
export function sameFrame(wanted: NftTable, found: FoundNftTable): boolean {
  const { flags = 0, use = found.chains.length } = found;
  return flags === 0 && use === wanted.chains.length &&
    found.chains.length === wanted.chains.length &&
    wanted.chains.every((chain, index) => sameChain(chain, found.chains[index]!));
}

function sameChain(wanted: NftChain, found: NftChain): boolean {
  return wanted.name === found.name && wanted.type === found.type && wanted.hook === found.hook &&
    wanted.priority === found.priority && wanted.policy === found.policy;
}

function sameRules(wanted: readonly NftRule[], found: readonly NftRule[]): boolean {
  return wanted.length === found.length &&
    wanted.every((rule, index) => nftRuleText(rule) === nftRuleText(found[index]!));
}

/** The rule's steps and comment, as text by which two rules are compared. */
export function nftRuleText({ expressions, comment }: NftRule): string {
  return [...expressions.map(expressionText), JSON.stringify(comment)].join("; ");
}

/** Whose packets a table may see; of others' there are some that see both families'. */
export type NftFamily = Family | "inet";

/** All of them that denim knows. */
export const NFT_FAMILIES = [4, 6, "inet"] as const satisfies readonly NftFamily[];

/** The kernel's number for it (`NFPROTO_…`). */
export function nfProto(family: NftFamily): number {
  return family === "inet" ? NFPROTO_INET : addressFamily(family);
}

/** By what the kernel knows a table. */
export interface TableId {
  /** Whose packets it sees. */
  readonly family: NftFamily;
  /** Its name. */
  readonly name: string;
}

/** Begins a message to nftables (`NFT_MSG_…`) about something of a family. */
export function beginNft(
  writer: MessageWriter,
  type: number,
  flags: number,
  family: NftFamily,
): MessageWriter {
  return writer.begin(NFNL_SUBSYS_NFTABLES << 8 | type, flags)
    .u8(nfProto(family)).u8(NFNETLINK_V0).u16(0);
}

/** Writes the messages that make the table whole, whatever is there under its name. */
export function writeTable(writer: MessageWriter, { family, name, chains }: NftTable): void {
  const table = (type: number, flags: number) =>
    beginNft(writer, type, flags, family)
      .stringAttribute(NFTA_TABLE_NAME, name).end();
  // What may not be there can't be removed: made first, if need be.
  table(NFT_MSG_NEWTABLE, NLM_F_CREATE);
  table(NFT_MSG_DELTABLE, 0);
  table(NFT_MSG_NEWTABLE, NLM_F_CREATE);
  for (const chain of chains) {
    writeBaseChain(writer, { family, name }, chain);
    writeRules(writer, { family, name }, chain);
  }
}

/** Writes the message that makes a chain to which the kernel hands packets, without rules. */
export function writeBaseChain(
  writer: MessageWriter,
  { family, name }: TableId,
  chain: Omit<NftChain, "rules">,
): void {
  beginNft(writer, NFT_MSG_NEWCHAIN, NLM_F_CREATE, family)
    .stringAttribute(NFTA_CHAIN_TABLE, name)
    .stringAttribute(NFTA_CHAIN_NAME, chain.name)
    .stringAttribute(NFTA_CHAIN_TYPE, chain.type)
    .bytesAttribute(NFTA_CHAIN_POLICY, be32(chain.policy))
    .nested(NFTA_CHAIN_HOOK, () => {
      writer.bytesAttribute(NFTA_HOOK_HOOKNUM, be32(chain.hook));
      writer.bytesAttribute(NFTA_HOOK_PRIORITY, be32(chain.priority));
    }).end();
}

/**
 * Writes the messages that replace the rules of the table's chains, all of which are there. Better than the whole
 * table if the chains are right, for two reasons. A packet that meets a replaced chain at the moment of the
 * transaction may see the new chain's rules before they are in force and the old chain's after. And of
 * chains with one priority the kernel asks the youngest first, so a replaced chain changes places with kube-proxy's.
 */
export function writeTableRules(
  writer: MessageWriter,
  { family, name, chains }: NftTable,
): void {
  for (const chain of chains) {
    beginNft(writer, NFT_MSG_DELRULE, 0, family)
      .stringAttribute(NFTA_RULE_TABLE, name)
      .stringAttribute(NFTA_RULE_CHAIN, chain.name).end();
    writeRules(writer, { family, name }, chain);
  }
}

/** Writes the messages that put rules at a chain's end. */
export function writeRules(
  writer: MessageWriter,
  { family, name: table }: TableId,
  { name, rules }: Pick<NftChain, "name" | "rules">,
): void {
  for (const { expressions, comment } of rules) {
    beginNft(writer, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family)
      .stringAttribute(NFTA_RULE_TABLE, table)
      .stringAttribute(NFTA_RULE_CHAIN, name);
    writeExpressions(writer, NFTA_RULE_EXPRESSIONS, expressions);
    writer.bytesAttribute(NFTA_RULE_USERDATA, writeComment(comment)).end();
  }
}

/** Writes the message that removes the table with all that is in it; the kernel says ENOENT if it is gone. */
export function writeRemovedTable(
  writer: MessageWriter,
  { family, name }: TableId,
): void {
  beginNft(writer, NFT_MSG_DELTABLE, 0, family)
    .stringAttribute(NFTA_TABLE_NAME, name).end();
}

/** The networks that the table's rules ask packets' addresses about. */
export function networksOf({ family, chains }: NftTable): readonly Cidr[] {
  return networksOfRules(family, chains.flatMap(({ rules }) => rules));
}

/**
 * The networks that rules ask packets' addresses about, whether denim wrote them or nft(8), which loads only the
 * octets that matter if the prefix ends with one.
 */
export function networksOfRules(family: Family, rules: readonly NftRule[]): readonly Cidr[] {
  const steps = rules.flatMap(({ expressions }) => expressions);
  return steps.flatMap((step, at) => {
    if (step.name !== "cmp") return [];
    const before = steps[at - 1];
    const load = before?.name === "bitwise" ? steps[at - 2] : before;
    if (load?.name !== "payload" || load.base !== NFT_PAYLOAD_NETWORK_HEADER) return [];
    const length = addressBits(family) / 8;
    if (step.value.length > length) return [];
    const bytes = new Uint8Array(length);
    bytes.set(step.value);
    const mask = before?.name === "bitwise" ? before.mask : step.value.map(() => 0xff);
    const prefixLength = mask.reduce((bits, byte) => bits + bitsOf(byte), 0);
    return [new Cidr(IpAddress.fromBytes(bytes), prefixLength)];
  });
}

function bitsOf(byte: number): number {
  return byte.toString(2).replaceAll("0", "").length;
}

/** What a message about a table says of it beside its name. */
export function parseTable(reader: MessageReader): Pick<FoundNftTable, "flags" | "use"> {
  reader.readAttributes(NFGENMSG_LEN);
  return { flags: number(reader, NFTA_TABLE_FLAGS), use: number(reader, NFTA_TABLE_USE) };
}

/** Reads a message about a chain; the chain's rules have messages of their own. */
export function parseChain(reader: MessageReader): Omit<NftChain, "rules"> {
  reader.readAttributes(NFGENMSG_LEN);
  const hook = new Map(attributesOf(reader.bytesAttribute(NFTA_CHAIN_HOOK) ?? new Uint8Array()));
  const hookNumber = (type: number) => fromBe32(hook.get(type) ?? NONE);
  return {
    name: reader.stringAttribute(NFTA_CHAIN_NAME) ?? "",
    type: reader.stringAttribute(NFTA_CHAIN_TYPE) as NftChain["type"],
    policy: number(reader, NFTA_CHAIN_POLICY),
    hook: hookNumber(NFTA_HOOK_HOOKNUM),
    priority: hookNumber(NFTA_HOOK_PRIORITY),
  };
}

/** By what a rule is known. */
export interface NftRuleName extends Pick<NftRule, "comment"> {
  /** The chain that it is in. */
  readonly chain: string;
  /** By what the kernel knows it in its table, in network order. */
  readonly handle: Uint8Array;
}

/** A rule as the kernel has it. */
export interface FoundNftRule extends NftRule, NftRuleName {}

/** Reads a message about a rule. */
export function parseRule(reader: MessageReader): FoundNftRule {
  return {
    ...parseRuleName(reader),
    expressions: readExpressions(reader.bytesAttribute(NFTA_RULE_EXPRESSIONS) ?? new Uint8Array()),
  };
}

/** Reads what a message says of a rule beside its steps. */
export function parseRuleName(reader: MessageReader): NftRuleName {
  reader.readAttributes(NFGENMSG_LEN);
  return {
    handle: reader.bytesAttribute(NFTA_RULE_HANDLE)?.slice() ?? new Uint8Array(),
    chain: reader.stringAttribute(NFTA_RULE_CHAIN) ?? "",
    comment: readComment(reader.bytesAttribute(NFTA_RULE_USERDATA) ?? new Uint8Array()),
  };
}

/** No wanted number is −1. */
const NONE = be32(-1);

function number(reader: MessageReader, type: number): number {
  return fromBe32(reader.bytesAttribute(type) ?? NONE);
}

/** NFTNL_UDATA_RULE_COMMENT of libnftnl/udata.h: what `nft` shows as a rule's comment. */
const UDATA_RULE_COMMENT = 0;

/** libnftnl's form for user data, which the kernel keeps unread: type, length, text that ends in a zero. */
function writeComment(comment: string): Uint8Array {
  const text = new TextEncoder().encode(`${comment}\0`);
  return new Uint8Array([UDATA_RULE_COMMENT, text.length, ...text]);
}

function readComment(userData: Uint8Array): string {
  return userData[0] === UDATA_RULE_COMMENT
    ? new TextDecoder().decode(userData.subarray(2, 1 + userData[1]!))
    : "";
}
