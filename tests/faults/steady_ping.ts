/**
 * Debian's `ping` without a pause between two pods, read line by line: which requests were answered, and
 * when.
 *
 * @module
 */

import type { IpAddress } from "@denim/core";
import type { Pod } from "@denim/agent/lab";
import { linesOf } from "../support/lines.ts";
import { eventually } from "../support/wait.ts";

/** The time between two requests, in milliseconds. */
export const INTERVAL_MS = 5;
/** So many answers in a row are steady. */
const STEADY = 20;

/** The time as `ping -D` prints it, in milliseconds since 1970. */
export function wallClockMs(): number {
  return performance.timeOrigin + performance.now();
}

/** What a ping came to. */
export interface SteadyPingResult {
  /** The requests that nobody answered. */
  readonly lost: number;
  /** When answers had come back after the last that is missing; `undefined` if none is missing. */
  readonly backAtMs: number | undefined;
}

/** A ping under way. */
export class SteadyPing implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #reading: Promise<void>;
  /** When each request was answered, by its number, from 1. */
  readonly #answers = new Map<number, number>();
  #latest = 0;
  /** The first request that counts. */
  #first = 0;

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#reading = this.#read();
  }

  /** Starts one, and waits until it is steady. */
  static async start(from: Pick<Pod, "open">, to: IpAddress): Promise<SteadyPing> {
    using namespace = from.open();
    const command = new Deno.Command("ping", {
      args: ["-D", "-i", `${INTERVAL_MS / 1000}`, `${to}`],
      stdin: "null",
      stdout: "piped",
      stderr: "null",
    });
    const ping = new SteadyPing(namespace.run(() => command.spawn()));
    try {
      await ping.steady(10_000);
      ping.#first = ping.#latest;
      return ping;
    } catch (error) {
      await ping[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #read(): Promise<void> {
    for await (const line of linesOf(this.#process.stdout)) {
      const answer = /^\[([\d.]+)\] \d+ bytes from .* icmp_seq=(\d+) /.exec(line);
      if (answer === null) continue;
      // 16 bits on the wire, more than a fault lasts.
      const sequence = Number(answer[2]);
      this.#answers.set(sequence, Number(answer[1]) * 1000);
      this.#latest = Math.max(this.#latest, sequence);
    }
  }

  /** Waits until, from now on, a number of requests were answered without a gap. */
  async steady(patienceMs: number): Promise<void> {
    // What ping has said and nobody has read yet is of before.
    const sinceMs = wallClockMs();
    let seen = this.#latest;
    let row = 0;
    await eventually(`${STEADY} pings answered in a row`, () => {
      for (; seen < this.#latest; seen++) {
        row = (this.#answers.get(seen + 1) ?? 0) >= sinceMs ? row + 1 : 0;
      }
      return row >= STEADY;
    }, patienceMs);
  }

  /** Ends it, and counts. */
  async stop(): Promise<SteadyPingResult> {
    await this[Symbol.asyncDispose]();
    let lost = 0;
    let backAtMs: number | undefined;
    for (let sequence = this.#first; sequence < this.#latest; sequence++) {
      if (this.#answers.has(sequence)) continue;
      lost++;
      backAtMs = this.#answers.get(sequence + 1);
    }
    return { lost, backAtMs };
  }

  /** Ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#process.kill("SIGINT");
    } catch {
      // It has ended.
    }
    await this.#process.status;
    await this.#reading;
  }
}
