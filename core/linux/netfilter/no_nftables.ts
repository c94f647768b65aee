/**
 * nftables on a kernel that has none: an agent that masquerades nobody does without.
 *
 * @module
 */

import { RuntimeError } from "../../errors.ts";
import type { LinuxError } from "../sys/linux_error.ts";
import type { Step, StepFailure } from "../reconciler/kernel_table.ts";
import type { FoundNftTable, NftTable } from "./nft_table.ts";
import { NO_CHAIN } from "./iptables_chain.ts";
import type { IptablesPort } from "./iptables_table.ts";
import { lacksNftables, nftTableKey } from "./nft_connection.ts";
import type { NftTableKeeper } from "./nftables.ts";

/**
 * Opens nftables, or takes it for a place without tables if the kernel has none. Throws any other error.
 *
 * @param open opens it, and throws a LinuxError if it cannot
 */
export function nftablesIfThere(open: () => NftTableKeeper): NftTableKeeper {
  try {
    return open();
  } catch (error) {
    if (!lacksNftables(error)) throw error;
    return new NoNftables(error);
  }
}

/** iptables-nft on such a kernel: nothing is there, and nothing is asked of it. */
export const NO_IPTABLES_NFT: IptablesPort = {
  read: () => NO_CHAIN,
  contentOf: () => ({ inParent: [], rules: [] }),
  put: () => {
    throw new RuntimeError("the kernel has no nftables for iptables-nft's rules");
  },
  remove: () => {},
  forwardPolicy: () => undefined,
  foreignDrops: () => [],
  mayMiss: () => false,
  listen: () => Promise.resolve(),
};

/** A place without tables, in which none can be made. */
class NoNftables implements NftTableKeeper {
  readonly isThere = false;
  readonly #cause: LinuxError;

  constructor(cause: LinuxError) {
    this.#cause = cause;
  }

  key(object: FoundNftTable): string {
    return nftTableKey(object);
  }

  equal(): boolean {
    return false;
  }

  ours(): boolean {
    return false;
  }

  dump(): FoundNftTable[] {
    return [];
  }

  isInPlace(): boolean {
    return false;
  }

  apply(
    steps: readonly Step<NftTable, FoundNftTable>[],
  ): readonly StepFailure<NftTable, FoundNftTable>[] {
    const error = new RuntimeError(
      "the kernel has no nftables, by which net-conf has denim masquerade (EnableNFTables is true): " +
        "load its module nf_tables, leave EnableNFTables out, or start the agent without --ip-masq",
      { cause: this.#cause },
    );
    return steps.map((step) => ({ step, error }));
  }

  listen(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.dispose](): void {}
}
