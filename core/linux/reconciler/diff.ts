/**
 * What lies on devices, and the steps from what is there to what should be.
 *
 * @module
 */

import type { DeviceAddress, Gateway, KernelObject, Link } from "../../kernel_state.ts";
import { addressKind, goesAlong } from "../objects/address.ts";
import { forwardingKind } from "../objects/forwarding.ts";
import { type DeviceUp, upKind } from "../objects/link.ts";
import { fdbKind, neighbourKind } from "../objects/neighbour.ts";
import { nexthopKind } from "../objects/nexthop.ts";
import type { ObjectKind } from "../objects/object_kind.ts";
import { routeKind } from "../objects/route.ts";

/** What lies on devices; devices themselves are dealt with first. */
export type Entry = Exclude<KernelObject, Link | Gateway> | DeviceUp;
/** Which kinds there are. */
export type EntryKind = Entry["kind"];

/** All kinds, in the order in which things are made: each needs what stands before it. */
export const KINDS = {
  up: upKind,
  address: addressKind,
  fdb: fdbKind,
  neighbour: neighbourKind,
  nexthop: nexthopKind,
  route: routeKind,
  forwarding: forwardingKind,
} as { readonly [K in EntryKind]: ObjectKind<Entry> };
/** The same, as a list. */
export const ORDER = Object.keys(KINDS) as readonly EntryKind[];

/** A step that makes the kernel more like what it should be. */
export interface Change<T> {
  /** "put" makes it or makes it right; "remove" takes it away. */
  readonly action: "put" | "remove";
  /** What it is about … */
  readonly object: T;
  /** … and its key. */
  readonly key: string;
  /** Whether the kernel has an object of ours under the same key. */
  readonly known: boolean;
  /** Whether it was right, and is put again since another step takes it along. */
  readonly again?: boolean;
}

/**
 * The steps from what is `found` to what is `wanted`, both by key: first all that is to be made, then, in
 * the other direction, what has to go, so that no packet finds a gap. What was `held` before is denim's
 * even where another's stands in its place now.
 */
export function diff(
  wanted: ReadonlyMap<string, Entry>,
  found: ReadonlyMap<string, Entry>,
  held: (key: string) => boolean = () => false,
): Change<Entry>[] {
  const puts = new Map<EntryKind, Change<Entry>[]>(ORDER.map((kind) => [kind, []]));
  const removes = new Map<EntryKind, Change<Entry>[]>(ORDER.map((kind) => [kind, []]));
  for (const [key, object] of wanted) {
    const there = found.get(key);
    if (there !== undefined && KINDS[object.kind].equal(object, there)) continue;
    const known = there !== undefined || held(key);
    puts.get(object.kind)!.push({ action: "put", object, key, known });
  }
  for (const [key, object] of found) {
    if (!wanted.has(key) && KINDS[object.kind].remove !== undefined) {
      removes.get(object.kind)!.push({ action: "remove", object, key, known: true });
    }
  }
  return [
    ...ORDER.flatMap((kind) => puts.get(kind)!),
    ...ORDER.toReversed().flatMap((kind) => removes.get(kind)!),
  ];
}

/** Steps in which addresses that take wanted ones along go first, and those are then put again. */
export function orderAddresses(
  changes: readonly Change<Entry>[],
  wanted: Iterable<[string, { readonly object: Entry }]>,
): readonly Change<Entry>[] {
  const removes = changes.filter(({ action, object }) =>
    action === "remove" && object.kind === "address"
  );
  if (removes.length === 0) return changes;
  const first = new Set<Change<Entry>>();
  const again = new Map<string, Change<Entry>>();
  for (const [key, { object }] of wanted) {
    if (object.kind !== "address") continue;
    for (const remove of removes) {
      if (!goesAlong(remove.object as DeviceAddress, object)) continue;
      first.add(remove);
      again.set(key, { action: "put", object, key, known: true, again: true });
    }
  }
  const rest = changes.filter((change) => !first.has(change) && !again.has(change.key));
  return [...first, ...again.values(), ...rest];
}
