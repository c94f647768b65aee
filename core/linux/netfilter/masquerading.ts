/**
 * From what an owner wants (packets are masqueraded) to nftables' tables, or to chains of one of the two iptables.
 *
 * @module
 */

import type { Masquerade } from "../../kernel_state.ts";
import type { Derivation, Derived } from "../reconciler/kernel_table.ts";
import {
  IPTABLES_KINDS,
  type IptablesChain,
  type IptablesVariant,
  masqueradeChain,
} from "./iptables_chain.ts";
import { masqueradeTable } from "./masquerade.ts";
import type { NftTable } from "./nft_table.ts";

/** What {@link Masquerading} asks of the node. */
export interface MasqueradingOptions {
  /** Whether the kernel has nftables. */
  readonly hasNftables: boolean;
  /** Which iptables the program `iptables` is; `undefined` if there is none. */
  readonly iptablesVariant: () => IptablesVariant | undefined;
}

/** Has a table, or a chain, for each family that is masqueraded. */
export class Masquerading implements Derivation {
  /** See {@link Derivation.owner}. */
  readonly owner = "masquerade";
  /** See {@link Derivation.kinds}. */
  readonly kinds: readonly (NftTable | IptablesChain)["kind"][] = [
    ...Object.values(IPTABLES_KINDS),
    "nftTable",
  ];
  readonly #options: MasqueradingOptions;

  /** Nothing is wanted yet. */
  constructor(options: MasqueradingOptions) {
    this.#options = options;
  }

  /** See {@link Derivation.key}. */
  key({ family }: Masquerade): string {
    return `masquerade IPv${family}`;
  }

  /** See {@link Derivation.derive}. */
  derive(masquerades: readonly Masquerade[]): Derived {
    const { hasNftables } = this.#options;
    const objects = masquerades.map((masquerade) => {
      const { engine = hasNftables ? "nftables" : "iptables" } = masquerade;
      return engine === "nftables"
        ? masqueradeTable(masquerade)
        : masqueradeChain(masquerade, this.#variant());
    });
    return { objects, compare: false };
  }

  /** The iptables that operators see when they call it. iptables-nft's rules are made without a program. */
  #variant(): IptablesVariant {
    const { hasNftables, iptablesVariant } = this.#options;
    return hasNftables ? iptablesVariant() ?? "nft" : "legacy";
  }

  /** See {@link Derivation.isOutdated}. */
  isOutdated(): boolean {
    return false;
  }

  /** See {@link Derivation.listen}: which rules are made depends on nothing in the kernel that changes. */
  listen(): Promise<void> {
    return Promise.resolve();
  }
}
