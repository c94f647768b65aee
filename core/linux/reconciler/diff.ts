/**
 * The steps from what a table has to what is wanted of it.
 *
 * @module
 */

import type { AnyStep, AnyTable, KernelItem } from "./kernel_table.ts";

/** One kind of a table's objects, or some of them. */
export interface DiffKind {
  /** What is wanted, by key; what is known to be there as wanted may be left out. */
  readonly wanted: Iterable<readonly [key: string, object: KernelItem]>;
  /** Whether anything is wanted under a key. */
  isWanted(key: string): boolean;
  /** What the kernel has, by key. */
  readonly found: ReadonlyMap<string, KernelItem>;
  /** Whether denim had an object under a key before, so that it may replace what has taken its place. */
  wasKnown(key: string): boolean;
}

/**
 * The steps, for kinds in the order in which they are made: first all that is to be made, then, in the opposite
 * order, what has to go. So a packet that no longer finds the old way finds the new one.
 */
export function diff(table: AnyTable, kinds: readonly DiffKind[]): AnyStep[] {
  const steps: AnyStep[] = [];
  for (const { wanted, found, wasKnown } of kinds) {
    for (const [key, object] of wanted) {
      if (table.hasPlace?.(object) === false) continue;
      const there = found.get(key);
      if (there !== undefined && table.equal(object, there)) continue;
      steps.push({
        action: "put",
        object,
        key,
        mayReplace: there !== undefined || wasKnown(key),
      });
    }
  }
  for (const { found, isWanted } of kinds.toReversed()) {
    for (const [key, object] of found) {
      if (!isWanted(key) && table.ours(object, true)) {
        steps.push({ action: "remove", object, key });
      }
    }
  }
  return steps;
}
