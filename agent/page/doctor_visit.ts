/**
 * What `denim doctor` finds on this host, for the page. The doctor is a program of its own, so that its looking around
 * holds up nothing of the agent.
 *
 * @module
 */

import { messageOf, RuntimeError, throwDefect } from "@denim/core";
import type { Finding } from "../doctor/check.ts";

/** For so long findings are handed out again, in milliseconds: whoever asks can't keep the host busy. */
const FRESH_MS = 10_000;

/** What the doctor said. */
export interface DoctorReport {
  /** When, in milliseconds since 1970. */
  readonly atMs: number;
  /** What is wrong. */
  readonly findings: readonly Finding[];
}

/** Asks the doctor, once for all who ask at the same time. */
export class DoctorVisit {
  readonly #program: readonly [string, ...string[]];
  #last: Promise<DoctorReport> | undefined;
  #atMs = -Infinity;

  /** @param program the words that run `denim doctor --json` */
  constructor(program: readonly [string, ...string[]]) {
    this.#program = program;
  }

  /** What is found now, or was a moment ago. Rejects with a RuntimeError if the doctor cannot be asked. */
  report(): Promise<DoctorReport> {
    if (this.#last === undefined || performance.now() - this.#atMs > FRESH_MS) {
      this.#atMs = Infinity;
      this.#last = this.#run().finally(() => this.#atMs = performance.now());
    }
    return this.#last;
  }

  async #run(): Promise<DoctorReport> {
    const [command, ...args] = this.#program;
    try {
      const { code, stdout, stderr } = await new Deno.Command(command, { args, stdin: "null" })
        .output();
      const decoder = new TextDecoder();
      // 1 says that there are findings, or that it failed: then there is no JSON.
      if (stdout.length === 0) throw new RuntimeError(decoder.decode(stderr).trim() || `${code}`);
      return { atMs: Date.now(), findings: JSON.parse(decoder.decode(stdout)) };
    } catch (error) {
      throwDefect(error);
      throw new RuntimeError(`denim doctor fails: ${messageOf(error)}`, { cause: error });
    }
  }
}
