/**
 * Saying what is wrong once, rather than with each attempt.
 *
 * @module
 */

/** Remembers what was already said of things that are tried again until they work. */
export class Complaints {
  readonly #said = new Map<string, Set<string>>();

  /**
   * Whether a reason was not said yet since the trouble began. The caller says it then.
   *
   * @param about tells apart things that fail independently of each other
   */
  isNew(reason: string, about = ""): boolean {
    const said = this.#said.get(about);
    if (said?.has(reason)) return false;
    if (said === undefined) this.#said.set(about, new Set([reason]));
    else said.add(reason);
    return true;
  }

  /** It works, or is gone: what is said next is new again. Tells whether anything had been said. */
  resolve(about = ""): boolean {
    return this.#said.delete(about);
  }
}
