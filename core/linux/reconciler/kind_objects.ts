/**
 * The objects of one kind: what is wanted, and what the kernel has.
 *
 * @module
 */

import { type PackedRow, PackedRows } from "../../packed_rows.ts";
import { withRoom } from "../../row_index.ts";
import type { KernelItem, Wanted, WantedObjects } from "./kernel_table.ts";

/**
 * Bits of {@link KindObjects.#marks}: the kernel has what is wanted; the listing under way has shown it; before the listing
 * it had it, too; and it may differ.
 */
const AS_WANTED = 1, LISTED = 2, WAS_THERE = 4, DIRTY = 8;
/** Fields of objects whose texts differ from object to object: a WireGuard peer's key. */
const DIFFERING = ["publicKey"];
/** Ends the chain of an owner's objects. */
export const NO_OBJECT = -1;

/** What is wanted, to be compared with what the kernel has. */
export interface Comparison {
  /** The number of its row. */
  readonly row: number;
  /** Its key. */
  readonly key: string;
  /** What is wanted. */
  readonly object: KernelItem;
  /** What the kernel has in its place; `undefined` if nothing. */
  readonly there: KernelItem | undefined;
  /** Whether it had anything there before. */
  readonly wasThere: boolean;
}

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
  /** What else it had before the listing under way. */
  #othersBefore: ReadonlyMap<string, KernelItem> = this.#others;
  /** Rows that have been {@link DIRTY}, some of which are no more; and keys under which nothing is wanted that are. */
  #dirtyRows: number[] = [];
  #dirtyKeys = new Set<string>();

  /**
   * Nothing is wanted yet, and nothing known.
   *
   * @param keyOf gives an object's key
   * @param ownerOf gives an owner's name by its number
   */
  constructor(keyOf: (object: KernelItem) => string, ownerOf: (owner: number) => string) {
    this.#keyOf = keyOf;
    this.#ownerOf = ownerOf;
    this.#wanted = new PackedRows(keyOf, DIFFERING);
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

  /** The kernel may differ from what is wanted in a row. */
  markRow(row: number): void {
    if ((this.#marks[row]! & DIRTY) !== 0) return;
    this.#marks[row]! |= DIRTY;
    this.#dirtyRows.push(row);
  }

  /** The kernel may differ from what is wanted under a key, if anything is. */
  mark(key: string): void {
    const found = this.find(key);
    if (found === undefined) this.#dirtyKeys.add(key);
    else this.markRow(found.row);
  }

  /** Whether anything is marked. */
  get isMarked(): boolean {
    return this.#dirtyRows.length > 0 || this.#dirtyKeys.size > 0;
  }

  /** Whether a key is marked under which nothing was wanted. */
  isMarkedUnwanted(key: string): boolean {
    return this.#dirtyKeys.has(key);
  }

  /** Takes all marks away. Returns what was marked. */
  takeMarks(): { readonly rows: readonly number[]; readonly keys: ReadonlySet<string> } {
    const rows = this.#dirtyRows.filter((row) => {
      const isDirty = (this.#marks[row]! & DIRTY) !== 0;
      this.#marks[row]! &= ~DIRTY;
      return isDirty;
    });
    const keys = this.#dirtyKeys;
    this.#dirtyRows = [];
    this.#dirtyKeys = new Set();
    return { rows, keys };
  }

  /** What is wanted in some rows, beside what the kernel has there, as far as is known. */
  *compare(rows: readonly number[]): Generator<Comparison, void, void> {
    for (const row of rows) {
      const object = this.#wanted.at(row);
      const key = this.#keyOf(object);
      const isThere = (this.#marks[row]! & AS_WANTED) !== 0;
      const there = isThere ? object : this.#others.get(key);
      yield { row, key, object, there, wasThere: there !== undefined };
    }
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
    this.#marks[row]! &= DIRTY;
    this.#wanted.replace(row, object);
    this.#owners[row] = owner;
  }

  /** Wants an object that was found no more. */
  remove({ row, value }: PackedRow<KernelItem>): void {
    this.#keepOther(row, value);
    this.#marks[row] = 0;
    this.#wanted.remove(row);
  }

  /** The kernel goes on having what is wanted no more. */
  #keepOther(row: number, object: KernelItem): void {
    if ((this.#marks[row]! & AS_WANTED) !== 0) this.#others.set(this.#keyOf(object), object);
  }

  /** What the kernel has and nobody wants, or not so, by key. */
  get others(): ReadonlyMap<string, KernelItem> {
    return this.#others;
  }

  /**
   * What the kernel has under a key, as far as is known: what was put, reported or listed last.
   *
   * @param found what is wanted under the key; looked up unless given
   */
  there(
    key: string,
    found: PackedRow<KernelItem> | undefined = this.find(key),
  ): KernelItem | undefined {
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
    this.setRowAsWanted(found.row, key);
    return true;
  }

  /** Whether the kernel has what is wanted in a row, as far as is known. */
  isRowAsWanted(row: number): boolean {
    return (this.#marks[row]! & AS_WANTED) !== 0;
  }

  /** The kernel has now what is wanted in a row, which has this key. */
  setRowAsWanted(row: number, key: string): void {
    this.#marks[row]! |= AS_WANTED;
    this.#others.delete(key);
  }

  /** The kernel has nothing under a key. Returns whether it had anything. */
  setGone(key: string): boolean {
    const found = this.find(key);
    const wasThere = this.there(key, found) !== undefined;
    if (found !== undefined) this.#marks[found.row]! &= ~AS_WANTED;
    this.#others.delete(key);
    return wasThere;
  }

  /** All that the kernel has is about to be listed. Until {@link KindObjects.endListing} what was known stays so. */
  startListing(): void {
    this.#othersBefore = this.#others;
    for (let row = 0; row < this.#marks.length; row++) {
      const marks = this.#marks[row]!;
      const wasThere = (marks & AS_WANTED) === 0 ? 0 : WAS_THERE;
      this.#marks[row] = marks & ~(LISTED | WAS_THERE) | wasThere;
    }
  }

  /** The kernel has what is wanted in a row. */
  list(row: number): void {
    this.#marks[row]! |= LISTED;
  }

  /** Whether it was listed that the kernel has what is wanted in a row. */
  isListed(row: number): boolean {
    return (this.#marks[row]! & LISTED) !== 0;
  }

  /** What is wanted and was not listed as such, during or after the listing. */
  *unlisted(others: ReadonlyMap<string, KernelItem>): Generator<Comparison, void, void> {
    const wanted = this.#wanted;
    for (let row = wanted.next(-1); row >= 0; row = wanted.next(row)) {
      const marks = this.#marks[row]!;
      if ((marks & LISTED) !== 0) continue;
      const object = this.#wanted.at(row);
      const key = this.#keyOf(object);
      const wasThere = (marks & WAS_THERE) !== 0 || this.#othersBefore.has(key);
      yield { row, key, object, there: others.get(key), wasThere };
    }
  }

  /** The kernel has what was listed, and besides `others`, by key, and nothing else. */
  endListing(others: Map<string, KernelItem>): void {
    const wanted = this.#wanted;
    for (let row = wanted.next(-1); row >= 0; row = wanted.next(row)) {
      const marks = this.#marks[row]!;
      this.#marks[row] = (marks & LISTED) === 0 ? marks & ~AS_WANTED : marks | AS_WANTED;
    }
    this.#others = others;
  }
}
