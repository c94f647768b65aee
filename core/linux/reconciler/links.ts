/**
 * The namespace's devices, as far as they are known: as last listed, reported or made.
 *
 * @module
 */

import type { LinkState } from "../objects/link.ts";

/** Told that a device is another than before: made (`before` is undefined), removed (`now` is), or changed. */
export type OnLinkChange = (before: LinkState | undefined, now: LinkState | undefined) => void;

/** Devices by index and by name. */
export class Links {
  readonly #byIndex = new Map<number, LinkState>();
  readonly #indexes = new Map<string, number>();

  /** A device by its index. */
  at(index: number): LinkState | undefined {
    return this.#byIndex.get(index);
  }

  /** A device by its name. */
  named(name: string): LinkState | undefined {
    const index = this.#indexes.get(name);
    return index === undefined ? undefined : this.#byIndex.get(index);
  }

  /** All devices. */
  all(): LinkState[] {
    return [...this.#byIndex.values()];
  }

  /** Replaces everything by what the kernel lists now. Reports each difference. */
  replace(links: readonly LinkState[], onChange: OnLinkChange): void {
    const before = new Map(this.#byIndex);
    this.#byIndex.clear();
    this.#indexes.clear();
    for (const link of links) this.set(link);
    for (const link of links) onChange(before.get(link.index), link);
    for (const link of before.values()) {
      if (!this.#byIndex.has(link.index)) onChange(link, undefined);
    }
  }

  /** Takes note of a device as it is now. */
  set(link: LinkState): void {
    this.delete(link.index);
    this.#byIndex.set(link.index, link);
    this.#indexes.set(link.name, link.index);
  }

  /** Takes note that a device is gone. */
  delete(index: number): void {
    const name = this.#byIndex.get(index)?.name;
    this.#byIndex.delete(index);
    // Another device may have the name by now.
    if (name !== undefined && this.#indexes.get(name) === index) this.#indexes.delete(name);
  }
}
