/**
 * What owners want to be in the kernel.
 *
 * @module
 */

import type { DesiredView, KernelItem, Wanted } from "./kernel_table.ts";
import { KindObjects, NO_OBJECT } from "./kind_objects.ts";

/** Told that the object under a key, in a row, is another than before, or none. */
export type OnDesired = (
  kind: string,
  key: string,
  now: KernelItem | undefined,
  before: KernelItem | undefined,
  row: number,
) => void;

/** An object's number is its row, and above these bits the number of its kind. */
const ROW_BITS = 24;
const ROW_MASK = (1 << ROW_BITS) - 1;

/**
 * Objects by kind and key, each wanted by an owner. If several owners want an object under the same key, as two leases
 * with one VTEP do, the last to say so has it. When that one gives it up, the one before has it again.
 */
export class DesiredState implements DesiredView {
  readonly #keyOf: (object: KernelItem) => string;
  readonly #kinds: KindObjects[] = [];
  readonly #kindNumbers = new Map<string, number>();
  /** Other owners' objects under the same key, the latest last; few keys have any. */
  readonly #others = new Map<string, readonly Wanted[]>();
  /** Owners by number, and their numbers. */
  readonly #owners: string[] = [];
  readonly #ownerNumbers = new Map<string, number>();
  readonly #unused: number[] = [];
  /** The number of each owner's latest object, where the chain of its objects begins. */
  readonly #latest: number[] = [];

  /** Nothing is wanted yet. */
  constructor(keyOf: (object: KernelItem) => string) {
    this.#keyOf = keyOf;
  }

  /** See {@link DesiredView.get}. */
  get(kind: string, key: string): Wanted | undefined {
    return this.of(kind).get(key);
  }

  /** See {@link DesiredView.of}. */
  of(kind: string): KindObjects {
    return this.#kinds[this.#numberOf(kind)]!;
  }

  /** What an owner wants. */
  ofOwner(owner: string): readonly Wanted[] {
    const number = this.#ownerNumbers.get(owner);
    const wanted: Wanted[] = [];
    if (number === undefined) return wanted;
    for (let object = this.#latest[number]!; object !== NO_OBJECT; object = this.#next(object)) {
      wanted.push(this.#kinds[object >> ROW_BITS]!.at(object & ROW_MASK));
    }
    for (const others of this.#others.values()) {
      wanted.push(...others.filter((other) => other.owner === owner));
    }
    return wanted.reverse();
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
    if (now.length === 0) this.#forgetOwner(owner);
  }

  #put({ owner, key, object }: Wanted, onDesired: OnDesired): void {
    const { kind } = object;
    const objects = this.of(kind);
    const before = objects.find(key);
    const number = this.#ownerNumber(owner);
    let row: number;
    if (before === undefined) this.#link(kind, row = objects.add(key, object, number));
    else {
      row = before.row;
      const has = objects.ownerAt(before.row);
      if (has !== number) {
        const other = { owner: this.#owners[has]!, key, object: before.value };
        this.#setOthers(key, [...this.#othersThan(key, owner), other]);
        this.#unlink(kind, before.row);
      }
      objects.replace(before, object, number);
      if (has !== number) this.#link(kind, before.row);
    }
    onDesired(kind, key, object, before?.value, row);
  }

  #remove({ owner, key, object: { kind } }: Wanted, onDesired: OnDesired): void {
    const objects = this.of(kind);
    const before = objects.find(key);
    if (before === undefined) return;
    const others = this.#othersThan(key, owner);
    if (this.#owners[objects.ownerAt(before.row)] !== owner) {
      this.#setOthers(key, others);
      return;
    }
    const next = others.at(-1);
    this.#unlink(kind, before.row);
    if (next === undefined) objects.remove(before);
    else {
      objects.replace(before, next.object, this.#ownerNumber(next.owner));
      this.#link(kind, before.row);
    }
    this.#setOthers(key, others.slice(0, -1));
    onDesired(kind, key, next?.object, before.value, before.row);
  }

  /** Adds an object to its owner's chain. */
  #link(kind: string, row: number): void {
    const objects = this.of(kind);
    const owner = objects.ownerAt(row);
    objects.setNext(row, this.#latest[owner]!);
    this.#latest[owner] = this.#numberOf(kind) << ROW_BITS | row;
  }

  /** Takes an object out of its owner's chain. */
  #unlink(kind: string, row: number): void {
    const number = this.#numberOf(kind) << ROW_BITS | row;
    const objects = this.of(kind);
    const owner = objects.ownerAt(row);
    const after = objects.nextAt(row);
    let object = this.#latest[owner]!;
    if (object === number) {
      this.#latest[owner] = after;
      return;
    }
    while (this.#next(object) !== number) object = this.#next(object);
    this.#kinds[object >> ROW_BITS]!.setNext(object & ROW_MASK, after);
  }

  #next(object: number): number {
    return this.#kinds[object >> ROW_BITS]!.nextAt(object & ROW_MASK);
  }

  #numberOf(kind: string): number {
    let number = this.#kindNumbers.get(kind);
    if (number === undefined) {
      number = this.#kinds.push(new KindObjects(this.#keyOf, (owner) => this.#owners[owner]!)) - 1;
      this.#kindNumbers.set(kind, number);
    }
    return number;
  }

  #ownerNumber(owner: string): number {
    let number = this.#ownerNumbers.get(owner);
    if (number === undefined) {
      number = this.#unused.pop() ?? this.#owners.length;
      this.#owners[number] = owner;
      this.#latest[number] = NO_OBJECT;
      this.#ownerNumbers.set(owner, number);
    }
    return number;
  }

  #forgetOwner(owner: string): void {
    const number = this.#ownerNumbers.get(owner);
    if (number === undefined) return;
    this.#ownerNumbers.delete(owner);
    this.#unused.push(number);
  }

  #othersThan(key: string, owner: string): readonly Wanted[] {
    return this.#others.get(key)?.filter((wanted) => wanted.owner !== owner) ?? [];
  }

  #setOthers(key: string, others: readonly Wanted[]): void {
    if (others.length > 0) this.#others.set(key, others);
    else this.#others.delete(key);
  }
}
