/**
 * The objects of one kind: what is wanted, and what the kernel has.
 *
 * @module
 */

import { type PackedRow, PackedRows } from "../../packed_rows.ts";
import { withRoom } from "../../row_index.ts";
import type { KernelItem, Wanted, WantedObjects } from "./kernel_table.ts";

/** Bits of {@link KindObjects.#marks}: the kernel has what is wanted; the listing under way has shown it. */
const AS_WANTED = 1, LISTED = 2;
/** Ends the chain of an owner's objects. */
export const NO_OBJECT = -1;

/**
 * Wanted objects by key, each of one owner, and what the kernel has under these and other keys, as far as is known.
 * Almost always the kernel has what is wanted: then there is one row of some 30 bytes for both, as there are hundreds of
 * thousands.
 */
export class KindObjects implements WantedObjects {
  readonly #keyOf: (object: KernelItem) => string;
  readonly #ownerOf: (owner: number) => string;
  readonly #wanted: PackedRows<KernelItem>;
  /** For each wanted object its owner's number, the next object of this owner, and marks. */
  #owners = new Int32Array(8);
  #next = new Int32Array(8);
  #marks = new Uint8Array(8);
  /** What else the kernel has: other than is wanted, or not wanted at all. */
  #others = new Map<string, KernelItem>();

  /**
   * Nothing is wanted yet, and nothing known.
   *
   * @param keyOf gives an object's key
   * @param ownerOf gives an owner's name by its number
   */
  constructor(keyOf: (object: KernelItem) => string, ownerOf: (owner: number) => string) {
    this.#keyOf = keyOf;
    this.#ownerOf = ownerOf;
    this.#wanted = new PackedRows(keyOf);
  }

  /** See {@link WantedObjects.size}. */
  get size(): number {
    return this.#wanted.size;
  }

  /** What is wanted under a key, and its row. */
  find(key: string): PackedRow<KernelItem> | undefined {
    return this.#wanted.find(key);
  }

  /** See {@link WantedObjects.has}. */
  has(key: string): boolean {
    return this.find(key) !== undefined;
  }

  /** See {@link WantedObjects.get}. */
  get(key: string): Wanted | undefined {
    const found = this.find(key);
    return found && { owner: this.#ownerOf(this.#owners[found.row]!), key, object: found.value };
  }

  /** See {@link WantedObjects.values}. */
  *values(): Generator<Wanted, void, void> {
    for (const row of this.#wanted.rows()) yield this.at(row);
  }

  /** What is wanted in a row. */
  at(row: number): Wanted {
    const object = this.#wanted.at(row);
    return { owner: this.#ownerOf(this.#owners[row]!), key: this.#keyOf(object), object };
  }

  /** The number of the owner of a row. */
  ownerAt(row: number): number {
    return this.#owners[row]!;
  }

  /** The next object of the same owner, as {@link DesiredState} numbers objects of all kinds; or {@link NO_OBJECT}. */
  nextAt(row: number): number {
    return this.#next[row]!;
  }

  /** See {@link KindObjects.nextAt}. */
  setNext(row: number, next: number): void {
    this.#next[row] = next;
  }

  /** Wants an object under a key under which nothing is wanted. Returns its row. */
  add(key: string, object: KernelItem, owner: number): number {
    const row = this.#wanted.add(object, key);
    this.#owners = withRoom(this.#owners, row);
    this.#next = withRoom(this.#next, row);
    this.#marks = withRoom(this.#marks, row);
    this.#owners[row] = owner;
    this.#next[row] = NO_OBJECT;
    this.#marks[row] = 0;
    return row;
  }

  /** Wants another object in the place of one that was found. */
  replace({ row, value }: PackedRow<KernelItem>, object: KernelItem, owner: number): void {
    this.#keepOther(row, value);
    this.#wanted.replace(row, object);
    this.#owners[row] = owner;
  }

  /** Wants an object that was found no more. */
  remove({ row, value }: PackedRow<KernelItem>): void {
    this.#keepOther(row, value);
    this.#wanted.remove(row);
  }

  /** The kernel goes on having what is wanted no more. */
  #keepOther(row: number, object: KernelItem): void {
    if ((this.#marks[row]! & AS_WANTED) !== 0) this.#others.set(this.#keyOf(object), object);
    this.#marks[row] = 0;
  }

  /** What the kernel has and nobody wants, or not so, by key. */
  get others(): ReadonlyMap<string, KernelItem> {
    return this.#others;
  }

  /** What the kernel has under a key, as far as is known: what was put, reported or listed last. */
  there(key: string): KernelItem | undefined {
    const found = this.find(key);
    if (found !== undefined && (this.#marks[found.row]! & AS_WANTED) !== 0) return found.value;
    return this.#others.get(key);
  }

  /** Whether the kernel has anything under a key, as far as is known. */
  isThere(key: string): boolean {
    return this.there(key) !== undefined;
  }

  /** The kernel has this now, which is not what is wanted. */
  setThere(key: string, object: KernelItem): void {
    this.setGone(key);
    this.#others.set(key, object);
  }

  /** The kernel has now what is wanted under a key; returns false if nothing is. */
  setAsWanted(key: string): boolean {
    const found = this.find(key);
    if (found === undefined) return false;
    this.#marks[found.row]! |= AS_WANTED;
    this.#others.delete(key);
    return true;
  }

  /** The kernel has nothing under a key. Returns whether it had anything. */
  setGone(key: string): boolean {
    const wasThere = this.isThere(key);
    const found = this.find(key);
    if (found !== undefined) this.#marks[found.row]! &= ~AS_WANTED;
    this.#others.delete(key);
    return wasThere;
  }

  /** All that the kernel has is about to be listed. Until {@link KindObjects.endListing} what was known stays so. */
  startListing(): void {
    for (let row = 0; row < this.#marks.length; row++) this.#marks[row]! &= ~LISTED;
  }

  /** The kernel has what is wanted in a row. */
  list(row: number): void {
    this.#marks[row]! |= LISTED;
  }

  /** Whether it was listed that the kernel has what is wanted in a row. */
  isListed(row: number): boolean {
    return (this.#marks[row]! & LISTED) !== 0;
  }

  /** What is wanted and was not listed, by key. */
  *unlisted(): Generator<readonly [key: string, object: KernelItem], void, void> {
    for (const row of this.#wanted.rows()) {
      if (this.isListed(row)) continue;
      const object = this.#wanted.at(row);
      yield [this.#keyOf(object), object];
    }
  }

  /** The kernel has what was listed, and besides `others`, by key, and nothing else. */
  endListing(others: Map<string, KernelItem>): void {
    for (const row of this.#wanted.rows()) {
      const marks = this.#marks[row]!;
      this.#marks[row] = (marks & LISTED) === 0 ? marks & ~AS_WANTED : marks | AS_WANTED;
    }
    this.#others = others;
  }
}
