/**
 * From what an owner wants (pods' packets pass) to chains of the iptables whose FORWARD drops them.
 *
 * @module
 */

import { Complaints } from "../../complaints.ts";
import { messageOf, throwDefect } from "../../errors.ts";
import type { Cidr, Family } from "../../ip.ts";
import type { PodForward } from "../../kernel_state.ts";
import type { Logger } from "../../log.ts";
import type { Derivation, Derived } from "../reconciler/kernel_table.ts";
import { NF_DROP } from "../uapi/netfilter.ts";
import { forwardDrop } from "./forward_drops.ts";
import {
  forwardChain,
  IPTABLES_KINDS,
  type IptablesChain,
  type IptablesVariant,
} from "./iptables_chain.ts";
import type { IptablesPort } from "./iptables_table.ts";

/** What {@link PodForwarding} works with. */
export interface PodForwardingOptions {
  /** Where FORWARD's policies, and what else drops, are read. */
  readonly ports: Readonly<
    Record<IptablesVariant, Pick<IptablesPort, "forwardPolicy" | "foreignDrops">>
  >;
  /** Takes what operators should know. */
  readonly log: Logger;
}

const VARIANTS = ["nft", "legacy"] as const;

/** Has a chain for each family and iptables in which FORWARD's policy is DROP. */
export class PodForwarding implements Derivation {
  /** See {@link Derivation.owner}. */
  readonly owner = "pods' packets pass";
  /** See {@link Derivation.kinds}. */
  readonly kinds: readonly IptablesChain["kind"][] = Object.values(IPTABLES_KINDS);
  readonly #options: PodForwardingOptions;
  readonly #complaints = new Complaints();
  /** Where FORWARD's policy is DROP: an iptables and a family. */
  readonly #dropping = new Set<string>();
  #onChange = () => {};

  /** Nothing is wanted yet. */
  constructor(options: PodForwardingOptions) {
    this.#options = options;
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
    const networks = wanted.flatMap((forward) => forward.networks);
    if (networks.length > 0) this.#ask(() => this.#report(networks));
    const objects = wanted.flatMap((forward) =>
      VARIANTS.filter((variant) => this.#drops(variant, forward.family))
        .map((variant) => forwardChain(forward, variant))
    );
    return { objects, compare: false };
  }

  /** Whether FORWARD's policy is DROP; what it was the last time, if it can't be read. */
  #drops(variant: IptablesVariant, family: Family): boolean {
    const key = `${variant} ${family}`;
    this.#ask(() => {
      const policy = this.#options.ports[variant].forwardPolicy(family);
      if (policy === NF_DROP) this.#dropping.add(key);
      else this.#dropping.delete(key);
    });
    return this.#dropping.has(key);
  }

  /** What can't be read, which the log says once, hinders nothing else. */
  #ask(question: () => void): void {
    try {
      question();
    } catch (error) {
      throwDefect(error);
      const message = `cannot tell whether iptables drops pods' packets: ${messageOf(error)}`;
      if (this.#complaints.isNew(message)) this.#options.log.warn("forwarding-unknown", message);
    }
  }

  /** Names each chain once that drops what denim cannot let pass. */
  #report(networks: readonly Cidr[]): void {
    const { ports, log } = this.#options;
    for (const variant of VARIANTS) {
      for (const chain of ports[variant].foreignDrops(networks)) {
        const drop = forwardDrop(chain, networks);
        if (drop === undefined) continue;
        const message = `${drop.evidence}; no rule of denim's can lift that: ${drop.remedy}`;
        if (this.#complaints.isNew(message)) log.warn("forwarding-dropped", message);
      }
    }
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
