/**
 * From what an owner wants (packets are masqueraded) to nftables' tables.
 *
 * @module
 */

import { FAMILIES, type Family } from "../../ip.ts";
import type { Masquerade } from "../../kernel_state.ts";
import type { Logger } from "../../log.ts";
import type { Derivation, Derived } from "../reconciler/kernel_table.ts";
import { masqueradeTable } from "./masquerade.ts";
import type { NftTable } from "./nft_table.ts";
import type { NftTableKeeper } from "./nftables.ts";

/** flanneld's rules of iptables: the chain, and the rule by which packets get there (iptables.go). */
const FLANNEL_CHAIN = "FLANNEL-POSTRTG";
const FLANNEL_JUMP = `POSTROUTING -m comment --comment "flanneld masq" -j ${FLANNEL_CHAIN}`;

/** What {@link Masquerading} works with. */
export interface MasqueradingOptions {
  /** Where the tables are. */
  readonly nftables: Pick<NftTableKeeper, "hasChain">;
  /** Told of flanneld's rules that stay. */
  readonly log: Logger;
}

/** Has a table for each family that is masqueraded. */
export class Masquerading implements Derivation {
  /** See {@link Derivation.owner}. */
  readonly owner = "masquerade";
  /** See {@link Derivation.kinds}. */
  readonly kinds: readonly NftTable["kind"][] = ["nftTable"];
  readonly #options: MasqueradingOptions;
  #isWanted = false;

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
    const wasWanted = this.#isWanted;
    this.#isWanted = masquerades.length > 0;
    if (this.#isWanted && !wasWanted) {
      for (const family of FAMILIES) this.#reportFlannel(family);
    }
    return { objects: masquerades.map(masqueradeTable), compare: false };
  }

  /** Names flanneld's rules of iptables-nft, which others may have built upon. */
  #reportFlannel(family: Family): void {
    const { nftables, log } = this.#options;
    if (!nftables.hasChain(family, "nat", FLANNEL_CHAIN)) return;
    const iptables = `${family === 4 ? "iptables" : "ip6tables"} -w -t nat`;
    log.warn(
      "flannel-rules-left",
      "flanneld's masquerade rules of iptables are still there and do no harm beside denim's; " +
        `remove them: ${iptables} -D ${FLANNEL_JUMP}; ` +
        `${iptables} -F ${FLANNEL_CHAIN}; ${iptables} -X ${FLANNEL_CHAIN}`,
    );
  }

  /** See {@link Derivation.isOutdated}. */
  isOutdated(): boolean {
    return false;
  }

  /** See {@link Derivation.listen}: what the tables are depends on nothing in the kernel. */
  listen(): Promise<void> {
    return Promise.resolve();
  }
}
