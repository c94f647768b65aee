/**
 * From what an owner wants (pods' packets pass) to chains of the iptables whose FORWARD drops them.
 *
 * @module
 */

import type { Family } from "../../ip.ts";
import type { PodForward } from "../../kernel_state.ts";
import type { Derivation, Derived } from "../reconciler/kernel_table.ts";
import { NF_DROP } from "../uapi/netfilter.ts";
import {
  forwardChain,
  IPTABLES_KINDS,
  type IptablesChain,
  type IptablesVariant,
} from "./iptables_chain.ts";

/** Where FORWARD's policies are read. */
export type ForwardPolicies = Readonly<
  Record<IptablesVariant, { forwardPolicy(family: Family): number | undefined }>
>;

const VARIANTS = ["nft", "legacy"] as const;

/** Has a chain for each family and iptables in which FORWARD's policy is DROP. */
export class PodForwarding implements Derivation {
  /** See {@link Derivation.owner}. */
  readonly owner = "pods' packets pass";
  /** See {@link Derivation.kinds}. */
  readonly kinds: readonly IptablesChain["kind"][] = Object.values(IPTABLES_KINDS);
  readonly #policies: ForwardPolicies;
  #onChange = () => {};

  /** Nothing is wanted yet. */
  constructor(policies: ForwardPolicies) {
    this.#policies = policies;
  }

  /** A policy may be another than before. */
  look(): void {
    this.#onChange();
  }

  /** See {@link Derivation.key}. */
  key({ family }: PodForward): string {
    return `podForward IPv${family}`;
  }

  /** See {@link Derivation.derive}. */
  derive(wanted: readonly PodForward[]): Derived {
    const objects = wanted.flatMap((forward) =>
      VARIANTS.filter((variant) =>
        this.#policies[variant].forwardPolicy(forward.family) === NF_DROP
      ).map((variant) => forwardChain(forward, variant))
    );
    return { objects, compare: false };
  }

  /** See {@link Derivation.isOutdated}. */
  isOutdated(): boolean {
    return false;
  }

  /** See {@link Derivation.listen}: whoever reads the policies calls {@link PodForwarding.look}. */
  async listen(onChange: () => void, signal: AbortSignal): Promise<void> {
    this.#onChange = onChange;
    const { promise, resolve } = Promise.withResolvers<void>();
    signal.addEventListener("abort", () => resolve());
    if (!signal.aborted) await promise;
    this.#onChange = () => {};
  }
}
