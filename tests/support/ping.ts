/**
 * Debian's `ping`, run inside a namespace: an instrument that shares no code with denim.
 *
 * @module
 */

import type { NetworkNamespace } from "@denim/core/linux/namespace";
import { linesOf } from "./lines.ts";
import { eventually } from "./wait.ts";

/** What a run of `ping` came to. */
export interface PingCount {
  /** How many requests were sent. */
  readonly sent: number;
  /** How many were answered. */
  readonly received: number;
}

/** How long an answer may be away before none is waited for any more, in milliseconds. */
const ANSWER_MS = 1000;

/** A `ping` under way. */
export class RunningPing {
  readonly #process: Deno.ChildProcess;
  readonly #summary: Promise<string>;
  /** The number of the latest request that was answered. */
  #latest = 0;

  /** Starts it in a namespace, with ping's own arguments: those of one that is to be stopped are without `-q`. */
  constructor(namespace: NetworkNamespace, args: readonly string[]) {
    const command = new Deno.Command("ping", {
      args: [...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
    this.#process = namespace.run(() => command.spawn());
    this.#summary = this.#read();
  }

  /** Reads what it prints, and returns that but for the answers. */
  async #read(): Promise<string> {
    const { stdout, stderr } = this.#process;
    const errors = new Response(stderr).text();
    let rest = "";
    for await (const line of linesOf(stdout)) {
      const sequence = /^\d+ bytes from .* icmp_seq=(\d+) /.exec(line)?.[1];
      if (sequence === undefined) rest += `${line}\n`;
      // 16 bits on the wire; one that was overtaken is no step back.
      else this.#latest += Math.max(0, (Number(sequence) - this.#latest) << 16 >> 16);
    }
    return rest + await errors;
  }

  /** Waits for the answer to a request of this number, or to a later one. */
  async reaches(count: number): Promise<void> {
    await eventually(`answer ${count}`, () => this.#latest >= count);
  }

  /** Ends it, and counts. What is under way at the end is neither lost nor sent, if packets arrive by then. */
  async stop(): Promise<PingCount> {
    const before = this.#latest;
    const arrive = () => this.#latest > before;
    await eventually("an answer", arrive, ANSWER_MS).catch(() => {});
    this.#process.kill("SIGINT");
    const { sent, received } = await this.finish();
    return { sent: arrive() ? this.#latest : sent, received };
  }

  /** Waits for its own end, and counts. */
  async finish(): Promise<PingCount> {
    const text = await this.#summary;
    const counts = /(\d+) packets transmitted, (\d+) received/.exec(text);
    if (counts === null) throw new Error(`ping said: ${text}`);
    return { sent: Number(counts[1]), received: Number(counts[2]) };
  }
}
