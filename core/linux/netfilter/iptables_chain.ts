/**
 * denim's rules in iptables' form: a chain under flannel's name (pkg/trafficmngr/iptables/iptables.go), and in the
 * kernel's own chain a rule that hands packets on to it. Pure: what should be there, and what is there, whichever of
 * the two iptables it belongs to.
 *
 * The comments tell denim's rules from flanneld's, which go only when denim's take their place.
 *
 * @module
 */

import { type Cidr, FAMILIES, type Family } from "../../ip.ts";
import type { Masquerade, PodForward } from "../../kernel_state.ts";
import { masqueradeRules } from "./masquerade.ts";
import { iptablesText, type Rule } from "./rule.ts";

/**
 * The two programs that are called iptables, each with rules of its own in the kernel: iptables-nft keeps them in
 * nftables' tables `ip nat`, `ip filter`…, iptables-legacy in those of x_tables.
 */
export type IptablesVariant = "nft" | "legacy";

/** The kinds of the chains of each variant. */
export const IPTABLES_KINDS = {
  nft: "iptablesNftChain",
  legacy: "iptablesLegacyChain",
} as const satisfies Record<IptablesVariant, string>;

/** Where a chain of denim's may be: one that flanneld has there too. */
export interface ChainPlace {
  /** Whose packets. */
  readonly family: Family;
  /** iptables' table. */
  readonly table: "nat" | "filter";
  /** The chain. */
  readonly name: "FLANNEL-POSTRTG" | "FLANNEL-FWD";
  /** The kernel's chain, which hands its packets on to this one. */
  readonly parent: "POSTROUTING" | "FORWARD";
}

/** A chain of denim's. */
export interface IptablesChain extends ChainPlace {
  /** Tells the kinds of object apart, and the two iptables. */
  readonly kind: typeof IPTABLES_KINDS[IptablesVariant];
  /** Its rules, in order; all with the comment of the place. */
  readonly rules: readonly Rule[];
}

/** What there is at a place, as texts by which rules are compared. */
export interface ChainContent {
  /** The rules of the parent that are denim's or flanneld's. flanneld had all its rules there, once. */
  readonly inParent: readonly string[];
  /** The rules of the chain; `undefined` if there is no chain. */
  readonly rules: readonly string[] | undefined;
  /** The networks that they name. */
  readonly networks: readonly Cidr[];
  /** Whether denim made them. */
  readonly isDenims: boolean;
}

/** A chain as the kernel has it: read, or once put as it is wanted. */
export interface FoundIptablesChain extends ChainPlace {
  /** See {@link IptablesChain.kind}. */
  readonly kind: IptablesChain["kind"];
  /** What was put there. */
  readonly rules?: readonly Rule[];
  /** What was read. */
  readonly content?: ChainContent;
}

/** Every place, of both families. */
export const PLACES: readonly ChainPlace[] = FAMILIES.flatMap((family): ChainPlace[] => [
  { family, table: "nat", name: "FLANNEL-POSTRTG", parent: "POSTROUTING" },
  { family, table: "filter", name: "FLANNEL-FWD", parent: "FORWARD" },
]);

const COMMENTS = {
  nat: { denim: "denim masq", flannel: "flanneld masq" },
  filter: { denim: "denim forward", flannel: "flanneld forward" },
} as const satisfies Record<ChainPlace["table"], Record<"denim" | "flannel", string>>;

/** The chain that masquerades. */
export function masqueradeChain(masquerade: Masquerade, variant: IptablesVariant): IptablesChain {
  return chainAt("nat", masquerade.family, variant, masqueradeRules(masquerade));
}

/** The chain that lets pods' packets pass where the policy of FORWARD is DROP. */
export function forwardChain(
  { family, networks }: PodForward,
  variant: IptablesVariant,
): IptablesChain {
  const rules = networks.flatMap((network) =>
    (["saddr", "daddr"] as const).map((kind): Rule => ({
      matches: [{ kind, network }],
      verdict: { kind: "accept" },
      comment: "",
    }))
  );
  return chainAt("filter", family, variant, rules);
}

function chainAt(
  table: ChainPlace["table"],
  family: Family,
  variant: IptablesVariant,
  rules: readonly Rule[],
): IptablesChain {
  const place = PLACES.find((it) => it.family === family && it.table === table)!;
  const comment = COMMENTS[table].denim;
  return {
    kind: IPTABLES_KINDS[variant],
    ...place,
    rules: rules.map((rule) => ({ ...rule, comment })),
  };
}

/** The parent's rule. */
export function jumpRule({ table, name }: ChainPlace): Rule {
  return { matches: [], verdict: { kind: "jump", chain: name }, comment: COMMENTS[table].denim };
}

/** The texts of which one is in every table that has rules of denim's or flanneld's at a place. */
export function marksOf({ table, name }: ChainPlace): readonly string[] {
  return [name, ...Object.values(COMMENTS[table])];
}

/** Whether denim made a rule at a place, by the rule's comment. */
export function isDenims({ table }: ChainPlace, comment: string): boolean {
  return comment === COMMENTS[table].denim;
}

/** Whether a rule of the parent is denim's or flanneld's, by its comment and the chain that it jumps to. */
export function belongs(
  { table, name }: ChainPlace,
  { comment, target }: { readonly comment: string; readonly target: string | undefined },
): boolean {
  return target === name || Object.values<string>(COMMENTS[table]).includes(comment);
}

/** Nothing at a place. */
export const NO_CHAIN: ChainContent = {
  inParent: [],
  rules: undefined,
  networks: [],
  isDenims: false,
};

/** Whether there is nothing at a place. */
export function isEmpty({ inParent, rules }: ChainContent): boolean {
  return inParent.length === 0 && rules === undefined;
}

/** A chain as messages name it, and unique among all objects. */
export function chainKey({ kind, family, table, name }: Omit<FoundIptablesChain, "rules">): string {
  const program = `${family === 4 ? "iptables" : "ip6tables"}-` +
    (kind === IPTABLES_KINDS.nft ? "nft" : "legacy");
  return `${program} chain ${name} of table ${table}`;
}

/** The arguments behind `-A` of the chain's rules and the parent's, as iptables(8) prints them too. */
export function chainTexts(
  chain: IptablesChain,
): Required<Pick<ChainContent, "inParent" | "rules">> {
  return {
    inParent: [`${chain.parent} ${iptablesText(jumpRule(chain))}`],
    rules: chain.rules.map((rule) => `${chain.name} ${iptablesText(rule)}`),
  };
}
