/**
 * nftables on a kernel that has none: an agent that masquerades nobody does without.
 *
 * @module
 */

import { RuntimeError } from "../../errors.ts";
import { EINVAL, EOPNOTSUPP, EPROTONOSUPPORT, LinuxError } from "../sys/linux_error.ts";
import type { Step, StepFailure } from "../reconciler/kernel_table.ts";
import type { FoundNftTable, NftTable } from "./nft_table.ts";
import { nftTableKey } from "./nft_connection.ts";
import type { NftTableKeeper } from "./nftables.ts";

/** What the kernel says if it lacks nftables, or all of netfilter. */
const NOT_THERE: readonly number[] = [EINVAL, EOPNOTSUPP, EPROTONOSUPPORT];

/** Whether an error that nftables could not be opened with says that the kernel has none. */
export function lacksNftables(error: unknown): error is LinuxError {
  return error instanceof LinuxError && NOT_THERE.includes(error.errno);
}

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

/** A place without tables, in which none can be made. */
class NoNftables implements NftTableKeeper {
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

  hasChain(): boolean {
    return false;
  }

  apply(
    steps: readonly Step<NftTable, FoundNftTable>[],
  ): readonly StepFailure<NftTable, FoundNftTable>[] {
    const error = new RuntimeError(
      "the kernel has no nftables, by which denim masquerades: load its module nf_tables, or start " +
        "the agent without --ip-masq",
      { cause: this.#cause },
    );
    return steps.map((step) => ({ step, error }));
  }

  listen(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.dispose](): void {}
}
