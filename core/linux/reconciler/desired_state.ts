/**
 * What owners want to be in the kernel.
 *
 * @module
 */

import type { DesiredView, KernelItem, Wanted } from "./kernel_table.ts";

/** Told that the object under a key is another than before, or none. */
export type OnDesired = (kind: string, key: string, before: KernelItem | undefined) => void;

/**
 * Objects by kind and key, each wanted by an owner. If several owners want an object under the same key, as two leases
 * with one VTEP do, the last to say so has it. When that one gives it up, the one before has it again.
 */
export class DesiredState implements DesiredView {
  readonly #keyOf: (object: KernelItem) => string;
  readonly #current = new Map<string, Map<string, Wanted>>();
  /** Other owners' objects under the same key, the latest last; few keys have any. */
  readonly #others = new Map<string, readonly Wanted[]>();
  readonly #owners = new Map<string, readonly Wanted[]>();

  /** Nothing is wanted yet. */
  constructor(keyOf: (object: KernelItem) => string) {
    this.#keyOf = keyOf;
  }

  /** See {@link DesiredView.get}. */
  get(kind: string, key: string): Wanted | undefined {
    return this.#current.get(kind)?.get(key);
  }

  /** See {@link DesiredView.of}. */
  of(kind: string): ReadonlyMap<string, Wanted> {
    return this.#of(kind);
  }

  /** What an owner wants. */
  ofOwner(owner: string): readonly Wanted[] {
    return this.#owners.get(owner) ?? [];
  }

  /** Replaces what an owner wants. Reports each key whose object was set, or is another or none now. */
  set(owner: string, objects: readonly KernelItem[], onDesired: OnDesired): void {
    const before = this.ofOwner(owner);
    const now = objects.map((object) => ({ owner, key: this.#keyOf(object), object }));
    for (const wanted of now) this.#put(wanted, onDesired);
    if (before.length > 0) {
      const keys = new Set(now.map(({ key }) => key));
      for (const wanted of before) if (!keys.has(wanted.key)) this.#remove(wanted, onDesired);
    }
    if (now.length > 0) this.#owners.set(owner, now);
    else this.#owners.delete(owner);
  }

  #put(wanted: Wanted, onDesired: OnDesired): void {
    const { owner, key, object: { kind } } = wanted;
    const current = this.#of(kind);
    const before = current.get(key);
    if (before !== undefined && before.owner !== owner) {
      this.#setOthers(key, [...this.#othersThan(key, owner), before]);
    }
    current.set(key, wanted);
    onDesired(kind, key, before?.object);
  }

  #remove({ owner, key, object: { kind } }: Wanted, onDesired: OnDesired): void {
    const current = this.#of(kind);
    const before = current.get(key);
    if (before === undefined) return;
    const others = this.#othersThan(key, owner);
    if (before.owner !== owner) {
      this.#setOthers(key, others);
      return;
    }
    const next = others.at(-1);
    if (next === undefined) current.delete(key);
    else current.set(key, next);
    this.#setOthers(key, others.slice(0, -1));
    onDesired(kind, key, before.object);
  }

  #of(kind: string): Map<string, Wanted> {
    let objects = this.#current.get(kind);
    if (objects === undefined) this.#current.set(kind, objects = new Map());
    return objects;
  }

  #othersThan(key: string, owner: string): readonly Wanted[] {
    return this.#others.get(key)?.filter((wanted) => wanted.owner !== owner) ?? [];
  }

  #setOthers(key: string, others: readonly Wanted[]): void {
    if (others.length > 0) this.#others.set(key, others);
    else this.#others.delete(key);
  }
}
