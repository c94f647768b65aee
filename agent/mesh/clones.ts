/**
 * Machines that have what only one may have, such as copies of a virtual machine. denim's agent on the newer one ends by
 * itself within moments, and is started again and again: so who has seen one says so for a while.
 *
 * @module
 */

import { type Cidr, type Clock, EventCounter, MAX_SLEEP_MS } from "@denim/core";
import type { Trouble } from "./mesh_report.ts";

/** For so long a clone is told of after it was seen last, in milliseconds. */
const KEEP_MS = 30_000;

/** What {@link Clones} works with. */
export interface ClonesOptions {
  /** By which it forgets. */
  readonly clock: Pick<Clock, "nowMs">;
  /** The subnets of those that are there now, as far as leases tell. */
  readonly present: () => readonly Cidr[];
  /** Told when there is another trouble, or one less. */
  readonly onChange: () => void;
}

/** The clones that a node has seen lately. */
export class Clones {
  readonly #options: ClonesOptions;
  readonly #seen = new Map<string, { readonly sinceMs: number; untilMs: number }>();
  readonly #sights = new EventCounter();

  /** Has seen none. */
  constructor(options: ClonesOptions) {
    this.#options = options;
  }

  /** Two machines are there for these subnets, or one that has them is another's clone. */
  saw(subnets: readonly Cidr[]): void {
    this.#extend(subnets);
    this.#sights.add();
  }

  #extend(subnets: readonly Cidr[]): void {
    const untilMs = this.#options.clock.nowMs() + KEEP_MS;
    for (const subnet of subnets) {
      const before = this.#seen.get(`${subnet}`);
      if (before !== undefined) {
        before.untilMs = untilMs;
        continue;
      }
      this.#seen.set(`${subnet}`, { sinceMs: Date.now(), untilMs });
      this.#options.onChange();
    }
  }

  /** Those that were seen lately. */
  troubles(): Trouble[] {
    return [...this.#seen].map(([subnet, { sinceMs }]) => ({ subnet, health: "clone", sinceMs }));
  }

  /** Forgets those that were not seen for long, until the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, present, onChange } = this.#options;
    for (;;) {
      const { count } = this.#sights;
      this.#extend(present());
      const nowMs = clock.nowMs();
      let nextMs = Infinity;
      for (const [subnet, { untilMs }] of this.#seen) {
        if (untilMs > nowMs) nextMs = Math.min(nextMs, untilMs);
        else if (this.#seen.delete(subnet)) onChange();
      }
      if (!await this.#sights.after(count, Math.min(nextMs - nowMs, MAX_SLEEP_MS), signal)) return;
    }
  }
}
