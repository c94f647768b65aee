/**
 * What a check finds: it goes on after the first thing that is wrong.
 *
 * @module
 */

import { type Logger, messageOf, throwDefect } from "@denim/core";
import { exitCode } from "./until_stopped.ts";

/** Gathers what is wrong, each as one line. */
export class Findings {
  readonly #errors: { readonly text: string; readonly code: number }[] = [];
  readonly #warnings: string[] = [];
  readonly #notes: string[] = [];

  /** For parts of the agent: what they warn of is found. */
  readonly log: Logger = {
    debug: () => {},
    info: () => {},
    warn: (_event, message) => this.warn(message),
    error: (_event, message) => this.fail(message),
  };

  /** What the agent would refuse to start for. */
  get errors(): readonly string[] {
    return this.#errors.map(({ text }) => text);
  }

  /** What a person should know of. */
  get warnings(): readonly string[] {
    return this.#warnings;
  }

  /** What is as it should be. */
  get notes(): readonly string[] {
    return this.#notes;
  }

  /** The exit code: 0 if there is no error, 2 if a setting is wrong, 1 if something else is. */
  get code(): number {
    return Math.max(0, ...this.#errors.map(({ code }) => code));
  }

  /** The agent would refuse to start: for a setting, or, with `runtime`, for what the node lacks. */
  fail(text: string, kind: "config" | "runtime" = "runtime"): void {
    const code = kind === "config" ? 2 : 1;
    if (!this.errors.includes(text)) this.#errors.push({ text, code });
  }

  /** The agent would start, and say this. */
  warn(text: string): void {
    if (!this.#warnings.includes(text)) this.#warnings.push(text);
  }

  /** Something is as it should be. */
  note(text: string): void {
    this.#notes.push(text);
  }

  /** Does what may fail, and takes the failure for a finding. Rejects with a defect. */
  async attempt<T>(work: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      throwDefect(error);
      this.fail(messageOf(error), exitCode(error) === 2 ? "config" : "runtime");
      return undefined;
    }
  }
}
