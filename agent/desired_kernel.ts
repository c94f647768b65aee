/**
 * What the agent says of the kernel, as its parts see the reconciler.
 *
 * @module
 */

import type { KernelState, Logger, PodNetwork } from "@denim/core";

/** What an attempt to make the kernel as it should be came to. */
export interface Attempt {
  /** The steps that failed, each as a message for people. */
  readonly failures: readonly string[];
}

/** The part of the reconciler (core/linux) that says what should be there. */
export interface DesiredKernel {
  /** Replaces what an owner wants. Nothing happens before {@link DesiredKernel.apply}. */
  set(owner: string, state: KernelState): void;
  /** Withdraws what an owner wants. */
  delete(owner: string): void;
  /** What an owner wants. */
  wantedBy(owner: string): KernelState;
  /** Makes what was set or deleted since the last time true. */
  apply(): Attempt;
  /** Compares everything with the kernel, and mends every difference. */
  check(): Attempt;
  /** The cluster's networks: in them denim may delete what nobody wants. */
  set networks(networks: readonly PodNetwork[]);
}

/** Logs each step that failed. The reconciler tries it again. */
export function logFailures({ failures }: Attempt, log: Logger): void {
  for (const failure of failures) log.error("reconcile-failed", failure);
}
