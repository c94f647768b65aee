/**
 * Debian's `ping`, run inside a namespace: an instrument that shares no code with denim.
 *
 * @module
 */

import type { NetworkNamespace } from "@denim/core/linux/namespace";

/** What a run of `ping` came to. */
export interface PingCount {
  /** How many requests were sent. */
  readonly sent: number;
  /** How many were answered. */
  readonly received: number;
}

/** A `ping` under way. */
export class RunningPing {
  readonly #process: Deno.ChildProcess;
  readonly #output: Promise<Deno.CommandOutput>;

  /** Starts it in a namespace, with ping's own arguments. */
  constructor(namespace: NetworkNamespace, args: readonly string[]) {
    const command = new Deno.Command("ping", {
      args: [...args],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
    this.#process = namespace.run(() => command.spawn());
    this.#output = this.#process.output();
  }

  /** Ends it, and counts. */
  async stop(): Promise<PingCount> {
    this.#process.kill("SIGINT");
    return await this.finish();
  }

  /** Waits for its own end, and counts. */
  async finish(): Promise<PingCount> {
    const { stdout, stderr } = await this.#output;
    const text = new TextDecoder().decode(stdout);
    const counts = /(\d+) packets transmitted, (\d+) received/.exec(text);
    if (counts === null) throw new Error(`ping said: ${text}${new TextDecoder().decode(stderr)}`);
    return { sent: Number(counts[1]), received: Number(counts[2]) };
  }
}
