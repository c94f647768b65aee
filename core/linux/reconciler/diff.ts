/**
 * The steps from what a table has to what is wanted of it.
 *
 * @module
 */

import type { AnyStep, AnyTable, KernelItem } from "./kernel_table.ts";
import type { Comparison } from "./kind_objects.ts";

/** One kind of a table's objects, or some of them. */
export interface DiffKind {
  /** What is wanted; what is known to be there as wanted may be left out. Gone through once, with the puts. */
  readonly wanted: Iterable<Comparison>;
  /** What the kernel has and may have to go, by key. */
  readonly found: ReadonlyMap<string, KernelItem>;
  /** Whether anything is wanted under a key. */
  isWanted(key: string): boolean;
}

/** Steps from what a table has to what is wanted of it. */
export interface Steps {
  /** What is to be made, in the order of kinds: found out while somebody asks, as there may be hundreds of thousands. */
  readonly puts: Iterable<AnyStep>;
  /** What has to go, in the opposite order. */
  readonly removals: AnyStep[];
}

/**
 * The steps, for kinds in the order in which they are made. All that is to be made comes first, then what has to go: so a
 * packet that no longer finds the old way finds the new one.
 */
export function diff(table: AnyTable, kinds: readonly DiffKind[]): Steps {
  const removals: AnyStep[] = [];
  for (const { found, isWanted } of kinds.toReversed()) {
    for (const [key, object] of found) {
      if (!isWanted(key) && table.ours(object, true)) {
        removals.push({ action: "remove", object, key });
      }
    }
  }
  return { puts: putsOf(table, kinds), removals };
}

function* putsOf(table: AnyTable, kinds: readonly DiffKind[]): Generator<AnyStep, void, void> {
  for (const { wanted } of kinds) {
    for (const { row, key, object, there, wasThere } of wanted) {
      if (table.hasPlace?.(object) === false) continue;
      if (there !== undefined && table.equal(object, there)) continue;
      const mayReplace = there !== undefined || wasThere;
      yield { action: "put", object, key, row, mayReplace };
    }
  }
}
