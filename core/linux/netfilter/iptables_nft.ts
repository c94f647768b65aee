/**
 * iptables-nft's chains, straight over netlink: no `iptables` program is needed. They are chains of nftables' tables
 * `ip nat`, `ip filter`, `ip6 nat` and `ip6 filter`, in the form in which iptables-nft(8) writes them itself. So it
 * prints them, and others may remove them with it.
 *
 * @module
 */

import { type Cidr, FAMILIES, type Family } from "../../ip.ts";
import type { MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import { addressFamily } from "../sys/address_family.ts";
import { ENOENT, LinuxError } from "../sys/linux_error.ts";
import {
  NF_ACCEPT,
  NF_INET_FORWARD,
  NF_INET_POST_ROUTING,
  NF_IP_PRI_FILTER,
  NF_IP_PRI_NAT_SRC,
} from "../uapi/netfilter.ts";
import { NLM_F_CREATE } from "../uapi/netlink.ts";
import { NFGENMSG_LEN } from "../uapi/nfnetlink.ts";
import {
  NFT_JUMP,
  NFT_MSG_DELCHAIN,
  NFT_MSG_DELRULE,
  NFT_MSG_DELTABLE,
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWRULE,
  NFT_MSG_NEWTABLE,
  NFTA_ANY_TABLE,
  NFTA_CHAIN_NAME,
  NFTA_CHAIN_TABLE,
  NFTA_RULE_CHAIN,
  NFTA_RULE_HANDLE,
  NFTA_RULE_TABLE,
  NFTA_TABLE_NAME,
} from "../uapi/nf_tables.ts";
import {
  belongs,
  type ChainContent,
  type ChainPlace,
  type IptablesChain,
  isDenims,
  jumpRule,
  PLACES,
} from "./iptables_chain.ts";
import type { IptablesPort } from "./iptables_table.ts";
import { dropsPods } from "./forward_drops.ts";
import { textOf } from "./nft_codec.ts";
import type { BaseChain } from "./nft_connection.ts";
import type { WatchedNft } from "./watched_nft.ts";
import {
  beginNft,
  type FoundNftRule,
  networksOfRules,
  type NftChain,
  type NftRule,
  nftRuleText,
  parseChain,
  type TableId,
  writeBaseChain,
  writeRules,
} from "./nft_table.ts";
import { iptablesExpressions, type Rule } from "./rule.ts";

/** The kernel's chains, as iptables-nft makes them if they are not there. */
const PARENTS: Readonly<Record<ChainPlace["parent"], Omit<NftChain, "rules">>> = {
  POSTROUTING: {
    name: "POSTROUTING",
    type: "nat",
    hook: NF_INET_POST_ROUTING,
    priority: NF_IP_PRI_NAT_SRC,
    policy: NF_ACCEPT,
  },
  FORWARD: {
    name: "FORWARD",
    type: "filter",
    hook: NF_INET_FORWARD,
    priority: NF_IP_PRI_FILTER,
    policy: NF_ACCEPT,
  },
};

const LACKS_COMPAT =
  "the kernel lacks a part of nftables; load its modules nft_chain_nat, nft_compat and xt_MASQUERADE";

/** The chains of iptables-nft. */
export class IptablesNft implements IptablesPort {
  readonly #nft: WatchedNft;
  /** Whether others may have made chains that drop what is forwarded. */
  #mayDrop = true;

  /** Works over a connection of its own: its events leave out what that one changes. */
  constructor(nft: WatchedNft) {
    this.#nft = nft;
  }

  /** See {@link IptablesPort.read}. */
  read(place: ChainPlace): ChainContent {
    const id = idOf(place);
    const inParent = this.#inParent(place);
    const rules = this.#nft.rules(id, place.name);
    const isThere = rules.length > 0 || this.#nft.chain(id, place.name) !== undefined;
    const all = [...inParent, ...rules];
    return {
      inParent: inParent.map(nftRuleText),
      rules: isThere ? rules.map(nftRuleText) : undefined,
      networks: networksOfRules(place.family, all),
      isDenims: all.some((rule) => isDenims(place, commentOf(rule))),
    };
  }

  #inParent(place: ChainPlace): FoundNftRule[] {
    return this.#nft.rules(idOf(place), place.parent).filter((rule) =>
      belongs(place, { comment: commentOf(rule), target: targetOf(rule) })
    );
  }

  /** See {@link IptablesPort.contentOf}. */
  contentOf(chain: IptablesChain): Pick<ChainContent, "inParent" | "rules"> {
    return {
      inParent: [nftRuleText(nftRule(jumpRule(chain), chain.family))],
      rules: chain.rules.map((rule) => nftRuleText(nftRule(rule, chain.family))),
    };
  }

  /** See {@link IptablesPort.put}: one transaction. */
  put(chain: IptablesChain): void {
    const { family, name, parent, rules } = chain;
    const id = idOf(chain);
    const hasParent = this.#nft.chain(id, parent) !== undefined;
    const jump = nftRule(jumpRule(chain), family);
    const [right, ...others] = this.#inParent(chain)
      .sort((a, b) => Number(isJump(b, jump)) - Number(isJump(a, jump)));
    const keepsJump = right !== undefined && isJump(right, jump);
    this.#transact((writer) => {
      beginNft(writer, NFT_MSG_NEWTABLE, NLM_F_CREATE, family)
        .stringAttribute(NFTA_TABLE_NAME, id.name).end();
      if (!hasParent) writeBaseChain(writer, id, PARENTS[parent]);
      chainMessage(writer, NFT_MSG_NEWCHAIN, NLM_F_CREATE, chain);
      flushMessage(writer, chain);
      writeRules(writer, id, { name, rules: rules.map((rule) => nftRule(rule, family)) });
      if (!keepsJump) writeRules(writer, id, { name: parent, rules: [jump] });
      const wrong = keepsJump ? others : [right ?? [], others].flat();
      for (const rule of wrong) deleteMessage(writer, id, rule);
    });
  }

  /** See {@link IptablesPort.remove}: one transaction. */
  remove(place: ChainPlace): void {
    const id = idOf(place);
    const hasChain = this.#nft.chain(id, place.name) !== undefined;
    const inParent = this.#inParent(place);
    this.#transact((writer) => {
      for (const rule of inParent) deleteMessage(writer, id, rule);
      if (!hasChain) return;
      flushMessage(writer, place);
      chainMessage(writer, NFT_MSG_DELCHAIN, 0, place);
    });
  }

  #transact(write: (writer: MessageWriter) => void): void {
    const error = this.#nft.transact(write);
    if (error === undefined) return;
    // Nothing that the messages name can be gone, but for a part of the kernel, or what others remove meanwhile.
    const lacks = error.errno === ENOENT ? LACKS_COMPAT : error.detail;
    throw new LinuxError(error.errno, "nftables", lacks);
  }

  /** See {@link IptablesPort.forwardPolicy}. */
  forwardPolicy(family: Family): number | undefined {
    return this.#nft.chain({ family, name: "filter" }, "FORWARD")?.policy;
  }

  /** See {@link IptablesPort.foreignDrops}. */
  foreignDrops(networks: readonly Cidr[]): readonly BaseChain[] {
    if (!this.#mayDrop) return [];
    const chains = this.#nft.forwardChains();
    this.#mayDrop = false;
    return chains.filter((chain) =>
      dropsPods({ ...chain, rules: this.#nft.rules(chain) }, networks, true)
    );
  }

  /** See {@link IptablesPort.mayMiss}: the kernel reports every change, or that it did not. */
  mayMiss(): boolean {
    return false;
  }

  /** See {@link IptablesPort.listen}. However many events there are at once, a place is reported once. */
  async listen(
    onChange: (places: readonly ChainPlace[]) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const touched = new Set<ChainPlace>();
    const onMessage = (reader: MessageReader) => {
      for (const place of placesOfEvent(reader)) touched.add(place);
      this.#mayDrop ||= isForwardChain(reader);
    };
    const onLost = () => PLACES.forEach((place) => touched.add(place));
    while (await this.#nft.monitor.next(signal, onMessage, onLost)) {
      if (touched.size > 0 || this.#mayDrop) onChange([...touched]);
      touched.clear();
    }
  }
}

function idOf({ family, table }: ChainPlace): TableId {
  return { family, name: table };
}

function nftRule(rule: Rule, family: Family): NftRule {
  return { expressions: iptablesExpressions(rule, family), comment: rule.comment };
}

/** denim's comments are nftables', as iptables-nft reads them; other rules have one by iptables' own extension. */
function commentOf({ comment, expressions }: NftRule): string {
  const match = expressions.find((step) => step.name === "match" && step.extension === "comment");
  return match?.name === "match" ? textOf(match.info) : comment;
}

function targetOf({ expressions }: NftRule): string | undefined {
  const jump = expressions.find((step) => step.name === "immediate" && step.verdict === NFT_JUMP);
  return jump?.name === "immediate" ? jump.chain : undefined;
}

function isJump(rule: NftRule, jump: NftRule): boolean {
  return nftRuleText(rule) === nftRuleText(jump);
}

function chainMessage(
  writer: MessageWriter,
  type: number,
  flags: number,
  { family, table, name }: ChainPlace,
): void {
  beginNft(writer, type, flags, family)
    .stringAttribute(NFTA_CHAIN_TABLE, table)
    .stringAttribute(NFTA_CHAIN_NAME, name).end();
}

function flushMessage(writer: MessageWriter, { family, table, name }: ChainPlace): void {
  beginNft(writer, NFT_MSG_DELRULE, 0, family)
    .stringAttribute(NFTA_RULE_TABLE, table)
    .stringAttribute(NFTA_RULE_CHAIN, name).end();
}

function deleteMessage(
  writer: MessageWriter,
  { family, name }: TableId,
  { chain, handle }: FoundNftRule,
): void {
  beginNft(writer, NFT_MSG_DELRULE, 0, family)
    .stringAttribute(NFTA_RULE_TABLE, name)
    .stringAttribute(NFTA_RULE_CHAIN, chain)
    .bytesAttribute(NFTA_RULE_HANDLE, handle).end();
}

/** The places that an event is about; none if it is about others' chains. */
function placesOfEvent(reader: MessageReader): readonly ChainPlace[] {
  const type = reader.type & 0xff;
  const family = FAMILIES.find((family) => addressFamily(family) === reader.u8(0));
  const attributes = reader.readAttributes(NFGENMSG_LEN);
  const table = attributes.stringAttribute(NFTA_ANY_TABLE);
  const ofTable = PLACES.filter((place) => place.family === family && place.table === table);
  switch (type) {
    case NFT_MSG_NEWTABLE:
    case NFT_MSG_DELTABLE:
      return ofTable;
    case NFT_MSG_NEWCHAIN:
    case NFT_MSG_DELCHAIN:
      return withChain(ofTable, attributes.stringAttribute(NFTA_CHAIN_NAME));
    case NFT_MSG_NEWRULE:
    case NFT_MSG_DELRULE:
      return withChain(ofTable, attributes.stringAttribute(NFTA_RULE_CHAIN));
    default:
      return [];
  }
}

/** Whether an event is about a chain that the kernel hands forwarded packets. */
function isForwardChain(reader: MessageReader): boolean {
  return (reader.type & 0xff) === NFT_MSG_NEWCHAIN &&
    parseChain(reader).hook === NF_INET_FORWARD;
}

function withChain(places: readonly ChainPlace[], chain: string | undefined): ChainPlace[] {
  return places.filter(({ name, parent }) => chain === name || chain === parent);
}
