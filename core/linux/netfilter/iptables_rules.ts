/**
 * denim's rules in iptables' form, in flannel's chains and under flannel's comments
 * (pkg/trafficmngr/iptables/iptables.go at cdf7605), for nodes without nftables: a later
 * flanneld or denim knows them as its own. This module makes text for iptables-restore(8), and runs nothing.
 *
 * @module
 */

import type { Cidr } from "../../ip.ts";
import type { Masquerade } from "../../kernel_state.ts";
import { masqueradeRules } from "./masquerade.ts";
import { iptablesText, type Rule } from "./rule.ts";

/** A chain of denim's, and the rule by which packets get there. All of one family. */
export interface IptablesChain {
  /** The table that it is in. */
  readonly table: "nat" | "filter";
  /** Its name. */
  readonly name: "FLANNEL-POSTRTG" | "FLANNEL-FWD";
  /** The kernel's chain, which hands its packets on to this one. */
  readonly parent: "POSTROUTING" | "FORWARD";
  /** The comment of all its rules, and of the parent's. */
  readonly comment: string;
  /** Its rules, in order. */
  readonly rules: readonly Rule[];
}

/** The chain that masquerades. */
export function masqueradeChain(masquerade: Masquerade): IptablesChain {
  return {
    table: "nat",
    name: "FLANNEL-POSTRTG",
    parent: "POSTROUTING",
    comment: "flanneld masq",
    rules: masqueradeRules(masquerade),
  };
}

/** The chain that lets pods' packets pass if the policy of FORWARD is DROP (`--iptables-forward-rules`). */
export function forwardChain(networks: readonly Cidr[]): IptablesChain {
  return {
    table: "filter",
    name: "FLANNEL-FWD",
    parent: "FORWARD",
    comment: "flanneld forward",
    rules: networks.flatMap((network) =>
      (["saddr", "daddr"] as const).map((kind): Rule => ({
        matches: [{ kind, network }],
        verdict: { kind: "accept" },
        comment: "pods' packets pass",
      }))
    ),
  };
}

/** The parent's rule that hands packets on to the chain, behind `-A` or `-D`. */
export function jumpText({ parent, name, comment }: IptablesChain): string {
  return `${parent} -m comment --comment "${comment}" -j ${name}`;
}

/**
 * The input with which `iptables-restore --noflush` (or ip6tables-restore) makes the chains what they should
 * be, each table in one step, and leaves all else as it is.
 *
 * @param chains the chains, at most one of each table
 * @param jumps the names of chains that their parent hands packets on to already. That rule then moves to the
 *   parent's end, as with flannel; iptables-restore can't ask for itself
 */
export function restoreText(
  chains: readonly IptablesChain[],
  jumps: ReadonlySet<IptablesChain["name"]>,
): string {
  return chains.map((chain) =>
    [
      `*${chain.table}`,
      // Makes the chain, or empties it.
      `:${chain.name} - [0:0]`,
      ...jumps.has(chain.name) ? [`-D ${jumpText(chain)}`] : [],
      `-A ${jumpText(chain)}`,
      ...chain.rules.map((rule) => `-A ${chain.name} ${iptablesText(rule, chain.comment)}`),
      "COMMIT\n",
    ].join("\n")
  ).join("");
}
