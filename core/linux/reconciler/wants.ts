/**
 * What several owners want to be there.
 *
 * @module
 */

/** What one owner wants. */
export interface Want<T> {
  /** Who wants it. */
  readonly owner: string;
  /** What should be there. */
  readonly object: T;
}

/**
 * What owners want, by key. Where several want something of the same key, as two leases of one VTEP do, the
 * last to say so has it; when that one gives it up, the one before.
 */
export class Wants<T> {
  readonly #current = new Map<string, Want<T>>();
  /** Those that have to wait, for the few keys that several want. */
  readonly #waiting = new Map<string, readonly Want<T>[]>();

  /** How many keys have an object. */
  get size(): number {
    return this.#current.size;
  }

  /** What should be there under a key. */
  get(key: string): Want<T> | undefined {
    return this.#current.get(key);
  }

  /** Whether anything should. */
  has(key: string): boolean {
    return this.#current.has(key);
  }

  /** The keys. */
  keys(): Iterable<string> {
    return this.#current.keys();
  }

  /** What should be there. */
  values(): Iterable<Want<T>> {
    return this.#current.values();
  }

  /** Keys, with what should be there. */
  [Symbol.iterator](): Iterator<[string, Want<T>]> {
    return this.#current.entries();
  }

  /** Notes that an owner wants an object under a key, in place of what it wanted there before. */
  set(key: string, owner: string, object: T): void {
    const before = this.#current.get(key);
    if (before !== undefined && before.owner !== owner) {
      this.#wait(key, [...this.#others(key, owner), before]);
    }
    this.#current.set(key, { owner, object });
  }

  /** Notes that an owner wants it no longer. Tells whether the key has another object now, or none. */
  delete(key: string, owner: string): boolean {
    const current = this.#current.get(key);
    if (current === undefined) return false;
    const others = this.#others(key, owner);
    const wins = current.owner === owner;
    if (wins) {
      const next = others.at(-1);
      if (next === undefined) this.#current.delete(key);
      else this.#current.set(key, next);
    }
    this.#wait(key, wins ? others.slice(0, -1) : others);
    return wins;
  }

  #others(key: string, owner: string): readonly Want<T>[] {
    return this.#waiting.get(key)?.filter((want) => want.owner !== owner) ?? [];
  }

  #wait(key: string, wants: readonly Want<T>[]): void {
    if (wants.length > 0) this.#waiting.set(key, wants);
    else this.#waiting.delete(key);
  }
}
