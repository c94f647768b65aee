/**
 * What drops pods' packets though FORWARD's policy does not, or though denim's rules let them pass: a packet has to
 * pass all chains on its way, so no rule of denim's lifts what another chain drops. firewalld does so, and ufw. Those
 * are named, with the remedy.
 *
 * @module
 */

import { type Cidr, FAMILIES } from "../../ip.ts";
import { NF_ACCEPT, NF_DROP } from "../uapi/netfilter.ts";
import { NFT_GOTO, NFT_JUMP, NFT_RETURN } from "../uapi/nf_tables.ts";
import type { ChainPlace } from "./iptables_chain.ts";
import type { Expression } from "./nft_codec.ts";
import { type BaseChain, tableWords } from "./nft_connection.ts";
import { type FoundNftRule, networksOfRules, type NftRule } from "./nft_table.ts";

/** A chain on the way of forwarded packets, and all rules of its table. */
export interface ForwardChain extends BaseChain {
  /** The rules of the table, chain by chain, in order. */
  readonly rules: readonly FoundNftRule[];
}

/** The chain by which denim, and flannel, let pods' packets pass. */
const LIFTED: ChainPlace["name"] = "FLANNEL-FWD";

/** What becomes of a packet for which no rule with a condition fits. */
type End = "drop" | "accept" | "go on";

/**
 * Whether a chain drops pods' packets. One in whose table rules name pods' networks does not: its owner has thought of
 * them, as with firewalld's trusted sources.
 *
 * @param lifts the policy of iptables' FORWARD is left out, which is denim's to lift
 */
export function dropsPods(
  chain: ForwardChain,
  networks: readonly Cidr[],
  lifts: boolean,
): boolean {
  const isLifted = lifts && isIptablesForward(chain);
  const families = chain.family === "inet" ? FAMILIES : [chain.family];
  // denim's own rules name them too, which counts if packets come to them.
  const others = chain.rules.filter((rule) => rule.chain !== LIFTED);
  const named = families.flatMap((family) => networksOfRules(family, others));
  if (!isLifted && networks.some((own) => named.some((it) => it.contains(own)))) return false;
  return dropsTheRest(isLifted ? { ...chain, policy: NF_ACCEPT } : chain);
}

/** Whether a chain drops every packet that no rule with a condition lets pass, and that does not come to denim's chain. */
function dropsTheRest({ chain, policy, rules }: ForwardChain): boolean {
  const byChain = Map.groupBy(rules, (rule) => rule.chain);
  const visited = new Set<string>();
  const endOf = (name: string): End => {
    if (name === LIFTED) return "accept";
    // The kernel lets no chain lead back to itself; a second visit brings nothing new.
    if (visited.has(name)) return "go on";
    visited.add(name);
    for (const rule of byChain.get(name) ?? []) {
      const verdict = unconditional(rule);
      if (verdict === undefined) continue;
      if (typeof verdict === "string") return verdict;
      if (verdict.verdict === NFT_RETURN) return "go on";
      const end = endOf(verdict.chain!);
      if (end !== "go on" || verdict.verdict === NFT_GOTO) return end;
    }
    return "go on";
  };
  const end = endOf(chain);
  return end === "drop" || end === "go on" && policy === NF_DROP;
}

type Immediate = Extract<Expression, { readonly name: "immediate" }>;

/** How a rule ends, if it has no condition and an end. */
function unconditional({ expressions }: NftRule): Exclude<End, "go on"> | Immediate | undefined {
  const last = expressions.at(-1);
  if (last === undefined || !expressions.slice(0, -1).every(isRemark)) return undefined;
  if (last.name === "other") return last.kernelName === "reject" ? "drop" : undefined;
  if (last.name === "target") return last.extension === "REJECT" ? "drop" : undefined;
  if (last.name !== "immediate") return undefined;
  if (last.verdict === NF_DROP) return "drop";
  if (last.verdict === NF_ACCEPT) return "accept";
  return [NFT_JUMP, NFT_GOTO, NFT_RETURN].includes(last.verdict) ? last : undefined;
}

/** Whether a step lets every packet go on. */
function isRemark(step: Expression): boolean {
  return step.name === "counter" || step.name === "other" && step.kernelName === "log" ||
    step.name === "match" && step.extension === "comment";
}

/** A chain that drops pods' packets, for operators. */
export interface ForwardDrop {
  /** What is so, as a sentence without a full stop. */
  readonly evidence: string;
  /** What to do: commands. */
  readonly remedy: string;
}

/** Says of a chain that it drops pods' packets, and what to do; `undefined` if no network is of its family. */
export function forwardDrop(chain: BaseChain, networks: readonly Cidr[]): ForwardDrop | undefined {
  const own = networks.filter(({ family }) => [family, "inet"].includes(chain.family));
  return own.length === 0 ? undefined : {
    evidence: `the chain ${chain.chain} of nftables' table ${tableWords(chain)} drops what is ` +
      "forwarded and nobody lets pass there, so pods may not reach each other or the outside",
    remedy: remedyFor(chain, own),
  };
}

function remedyFor(chain: BaseChain, networks: readonly Cidr[]): string {
  const each = (command: (network: Cidr) => string) => networks.map(command).join("; ");
  if (chain.name === "firewalld") {
    return each((network) => `firewall-cmd --permanent --zone=trusted --add-source=${network}`) +
      "; firewall-cmd --reload";
  }
  if (isIptablesForward(chain)) {
    const withUfw = (network: Cidr) =>
      `ufw route allow from ${network}; ufw route allow to ${network}`;
    return `${each(withUfw)}; or, without ufw, ${each((network) => letPass(network))}`;
  }
  return `let packets from and to ${networks.join(", ")} pass in it`;
}

/**
 * The commands by which iptables lets a network's packets pass, whatever rules come after.
 *
 * @param program the iptables of the network's family
 */
export function letPass(
  network: Cidr,
  program = network.family === 4 ? "iptables" : "ip6tables",
): string {
  return ["-s", "-d"].map((side) => `${program} -I FORWARD ${side} ${network} -j ACCEPT`)
    .join("; ");
}

/** Whether a chain is FORWARD of iptables-nft. */
function isIptablesForward({ family, name, chain }: BaseChain): boolean {
  return family !== "inet" && name === "filter" && chain === "FORWARD";
}
