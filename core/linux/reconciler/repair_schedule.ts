/**
 * When the reconciler takes which step, and what it logs of repairs. See repair_pacing.ts for what a repair is.
 *
 * @module
 */

import type { Logger } from "../../log.ts";
import type { Counter, Metrics } from "../../metrics.ts";
import type { AnyStep } from "./kernel_table.ts";
import { type Contest, MAX_WAIT_MS, RepairPacing } from "./repair_pacing.ts";

/** A step that has to wait. */
export interface Delay {
  /** The object's kind. */
  readonly kind: string;
  /** Until when, on the schedule's clock. */
  readonly untilMs: number;
}

/** What a {@link RepairSchedule} works with. */
export interface RepairScheduleOptions {
  /** Takes what operators should know. */
  readonly log: Logger;
  /** Takes the number of repairs. */
  readonly metrics: Metrics;
  /** The clock, in milliseconds. */
  readonly now: () => number;
}

/**
 * Tells what owners ask for, which is done at once, from repairs, which are paced. Holds back steps until they are due.
 */
export class RepairSchedule {
  readonly #options: RepairScheduleOptions;
  readonly #pacing = new RepairPacing();
  readonly #counters = new Map<string, Counter>();
  /** Whether all is asked for, as there is nothing to repair before all owners have said what they want. */
  #starting = true;
  /** Keys under which an owner asked for something else since it was last done. */
  readonly #requested = new Set<string>();
  /** Steps that have to wait, by key. */
  readonly #delays = new Map<string, Delay>();
  /** Carriers that come and go, by key, and until when the comparison of what they carry has to wait. */
  readonly #comparisons = new Map<string, number>();
  /** Repairs that were not logged yet. */
  #repairs = 0;
  #firstRepair: string | undefined;
  #contests: Contest[] = [];

  /** Nothing is asked for yet. */
  constructor(options: RepairScheduleOptions) {
    this.#options = options;
  }

  /** An owner asks for something else under a key: that is not a repair, and waits for nothing. */
  request(key: string): void {
    if (!this.#starting) this.#requested.add(key);
    this.#delays.delete(key);
  }

  #isRequested(key: string): boolean {
    return this.#starting || this.#requested.has(key);
  }

  /** Whether a step of a key is known to be necessary, and waits. */
  isDelayed(key: string): boolean {
    return this.#delays.has(key);
  }

  /** Whether nothing waits at all. */
  get isIdle(): boolean {
    return this.#delays.size === 0;
  }

  /** When the next delay ends; Infinity if there is none. */
  nextMs(): number {
    let nextMs = Infinity;
    for (const { untilMs } of this.#delays.values()) nextMs = Math.min(nextMs, untilMs);
    for (const untilMs of this.#comparisons.values()) nextMs = Math.min(nextMs, untilMs);
    return nextMs;
  }

  /**
   * Decides whether a step has to wait: because it is a repair that is not due, or because the repair of an object that
   * it needs waits. If so, notes until when.
   */
  delay({ object: { kind }, key }: AnyStep, needs: readonly string[]): boolean {
    for (const need of needs) {
      const delay = this.#delays.get(need);
      if (delay === undefined) continue;
      this.#delays.set(key, { kind, untilMs: delay.untilMs });
      return true;
    }
    if (this.#isRequested(key)) return false;
    const nowMs = this.#options.now();
    const waitMs = this.#pacing.waitMs(key, nowMs);
    if (waitMs <= 0) return false;
    this.#delays.set(key, { kind, untilMs: nowMs + waitMs });
    return true;
  }

  /** Forgets the delays of a kind: its objects are compared, and each step decided about again. */
  forgetDelays(kind: string): void {
    for (const [key, delay] of this.#delays) if (delay.kind === kind) this.#delays.delete(key);
  }

  /** The delays that have ended, each once. */
  takeDue(): { readonly steps: readonly (Delay & { readonly key: string })[]; carriers: string[] } {
    const nowMs = this.#options.now();
    const steps = [...this.#delays].filter(([, { untilMs }]) => untilMs <= nowMs)
      .map(([key, delay]) => ({ key, ...delay }));
    for (const { key } of steps) this.#delays.delete(key);
    const carriers = [...this.#comparisons].filter(([, untilMs]) => untilMs <= nowMs)
      .map(([key]) => key);
    for (const key of carriers) this.#comparisons.delete(key);
    return { steps, carriers };
  }

  /**
   * A carrier is usable again, so that what it carries has to be compared. Whether that is due now: it waits if the
   * carrier comes and goes all the time.
   */
  isComparisonDue(carrier: string): boolean {
    const key = `the state of ${carrier}`;
    const nowMs = this.#options.now();
    const waitMs = this.#pacing.waitMs(key, nowMs);
    if (waitMs > 0) {
      this.#comparisons.set(carrier, nowMs + waitMs);
      return false;
    }
    this.#contest(key, nowMs);
    return true;
  }

  /** A step was taken. With `carried`, what it repaired was lost with its carrier, and is not counted by itself. */
  done(step: AnyStep, carried: boolean): void {
    const { key, object: { kind } } = step;
    if (this.#isRequested(key)) return;
    if (!carried) {
      this.#contest(key, this.#options.now());
      if (this.#pacing.isContested(key)) return;
      this.#firstRepair ??= stepText(step);
    }
    if (this.#firstRepair !== undefined) this.#repairs++;
    this.#counter(kind).add();
  }

  #contest(key: string, nowMs: number): void {
    const contest = this.#pacing.repaired(key, nowMs);
    if (contest !== undefined) this.#contests.push(contest);
  }

  #counter(kind: string): Counter {
    let counter = this.#counters.get(kind);
    if (counter === undefined) {
      const help = "Objects in the kernel that others changed and denim put right.";
      counter = this.#options.metrics.counter("denim_reconciler_repairs_total", help, { kind });
      this.#counters.set(kind, counter);
    }
    return counter;
  }

  /**
   * All steps of a pass were taken, failed or were delayed. What owners ask for is done, except under the keys of
   * steps that failed or wait.
   *
   * @param loaded whether all owners have said what they want
   */
  passed(failed: readonly string[], loaded: boolean): void {
    const open = [...failed, ...this.#delays.keys()].filter((key) => this.#isRequested(key));
    this.#requested.clear();
    for (const key of open) this.#requested.add(key);
    this.#starting &&= !loaded;
  }

  /** Logs the repairs since the last time, or drops them: before an agent runs, others' changes do not matter. */
  report(quiet: boolean): void {
    const repairs = this.#repairs, first = this.#firstRepair, contests = this.#contests;
    this.#repairs = 0;
    this.#firstRepair = undefined;
    this.#contests = [];
    if (quiet) return;
    const { log, now } = this.#options;
    if (repairs > 0) {
      log.warn("drift-repaired", `another program changed the kernel's state; repaired: ${first}`, {
        steps: repairs,
      });
    }
    if (contests.length === 0) return;
    const [{ repairs: times, sinceMs }] = contests as [Contest];
    log.warn(
      "drift-contested",
      `something keeps changing ${namesOf(contests)}: repaired ${times} times in ` +
        `${((now() - sinceMs) / 1000).toFixed(1)} s; from now on denim waits up to ` +
        `${MAX_WAIT_MS / 1000} s before each repair; find the program that does it, and stop it`,
    );
  }

  /** Forgets objects that were left alone for long enough, and logs which of them were contested. */
  forgetCalm(): void {
    const calm = this.#pacing.removeCalm(this.#options.now());
    if (calm.length === 0) return;
    this.#options.log.info("drift-contest-over", `nothing changes ${namesOf(calm)} any more`);
  }
}

/** A step as operators read it. */
function stepText({ action, key }: AnyStep): string {
  return `${action} ${key}`;
}

function namesOf(contests: readonly Contest[]): string {
  const more = contests.length > 1 ? ` and ${contests.length - 1} more` : "";
  return `${contests[0]!.key}${more}`;
}
