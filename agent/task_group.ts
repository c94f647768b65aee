/**
 * Work that runs side by side.
 *
 * @module
 */

import { isDefect } from "@denim/core";

/** Several tasks of which none goes on without the others: the first that fails ends them all. */
export class TaskGroup {
  readonly #stop: AbortSignal;
  readonly #failing = new AbortController();
  readonly #running = new Set<Promise<void>>();
  readonly #failures: unknown[] = [];

  /** Aborted when the group is to end: because it is told to, or because a task failed. */
  readonly signal: AbortSignal;

  /** A group without tasks, which ends when `stop` is aborted. */
  constructor(stop: AbortSignal) {
    this.#stop = stop;
    this.signal = AbortSignal.any([stop, this.#failing.signal]);
  }

  /** Adds a task. It must end soon after {@link TaskGroup.signal} is aborted. */
  readonly add = (task: Promise<void>): void => {
    const watched = task.catch((error: unknown) => {
      this.#failures.push(error);
      this.#failing.abort(error);
    }).finally(() => this.#running.delete(watched));
    this.#running.add(watched);
  };

  /** Ends the group with an error of work that is not one of its tasks. */
  readonly fail = (error: unknown): void => this.add(Promise.reject(error));

  /**
   * Resolves when every task has ended, those that are added meanwhile included. Rejects if one failed, with a
   * defect if there is one among the failures. After `stop`, only a defect counts: waits that are aborted reject.
   */
  async join(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
    const defect = this.#failures.find(isDefect);
    if (defect !== undefined) throw defect;
    if (this.#failures.length > 0 && !this.#stop.aborted) throw this.#failures[0];
  }
}
