/**
 * Finding rows of columns by hashes of their keys.
 *
 * @module
 */

/** In place of a row: there is none. */
export const NO_ROW: number = -1;

/** A place at which no search goes on. */
const FREE = -1;
/** One at which a search goes on. */
const REMOVED = -2;

/** Numbers of rows by the hashes of their keys, in open addressing: 16 bytes a row. Which key a row has, others know. */
export class RowIndex {
  /** A row's number, {@link FREE} or {@link REMOVED}. */
  #places = new Int32Array(16).fill(FREE);
  /** The places that are not {@link FREE}. */
  #taken = 0;
  #size = 0;
  /** The hash of each row. */
  #hashes = new Int32Array(8);

  /** The first row of a hash of which `isIt` is true, or {@link NO_ROW}. */
  find(hash: number, isIt: (row: number) => boolean): number {
    const mask = this.#places.length - 1;
    for (let place = hash & mask;; place = place + 1 & mask) {
      const row = this.#places[place]!;
      if (row === FREE) return NO_ROW;
      if (row !== REMOVED && this.#hashes[row] === hash && isIt(row)) return row;
    }
  }

  /** Adds a row that is not there, under an integer of 32 bits whose lowest bits differ. */
  add(hash: number, row: number): void {
    if ((this.#taken + 1) * 4 > this.#places.length * 3) this.#makeRoom();
    this.#hashes = withRoom(this.#hashes, row);
    this.#hashes[row] = hash;
    this.#enter(hash, row);
    this.#size++;
  }

  /** Removes a row that is there. */
  remove(row: number): void {
    const mask = this.#places.length - 1;
    let place = this.#hashes[row]! & mask;
    while (this.#places[place] !== row) place = place + 1 & mask;
    this.#places[place] = REMOVED;
    this.#size--;
  }

  #enter(hash: number, row: number): void {
    const mask = this.#places.length - 1;
    let place = hash & mask;
    while (this.#places[place]! >= 0) place = place + 1 & mask;
    if (this.#places[place] === FREE) this.#taken++;
    this.#places[place] = row;
  }

  /** Makes room for twice as many rows as there are, and forgets places of removed ones. */
  #makeRoom(): void {
    let length = 16;
    while (length < (this.#size + 1) * 2) length *= 2;
    const before = this.#places;
    this.#places = new Int32Array(length).fill(FREE);
    this.#taken = 0;
    for (const row of before) if (row >= 0) this.#enter(this.#hashes[row]!, row);
  }
}

/** A column that has a place at an index: the same one, or a longer copy. */
export function withRoom<Column extends Float64Array | Int32Array | Uint8Array>(
  column: Column,
  index: number,
): Column {
  if (index < column.length) return column;
  const longer = new (column.constructor as new (length: number) => Column)(
    Math.max(8, Math.ceil(index * 1.5)),
  );
  longer.set(column);
  return longer;
}
