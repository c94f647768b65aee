/**
 * Another process that uses a store.
 *
 * @module
 */

import assert from "node:assert/strict";
import { linesOf } from "./lines.ts";

/**
 * A process that uses a store, as `sqlite_process.ts` and `etcd_process.ts` do: it prints "ready", waits for a
 * line on its standard input, and then prints what comes of what it does.
 */
export class StoreProcess implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #lines: AsyncIterator<string>;

  /** Starts the script at `url`. */
  constructor(url: URL, ...args: (string | number)[]) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", url.pathname, ...args.map(String)],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#lines = linesOf(this.#child.stdout);
  }

  /** The next line that it prints; `undefined` after the last. */
  async line(): Promise<string | undefined> {
    const { done, value } = await this.#lines.next();
    return done ? undefined : value;
  }

  /** Waits until it has its store open. */
  async ready(): Promise<void> {
    assert.equal(await this.line(), "ready");
  }

  /** Lets it begin. */
  async go(): Promise<void> {
    const writer = this.#child.stdin.getWriter();
    await writer.write(new Uint8Array([10]));
    await writer.close();
  }

  /** All lines that it still prints. */
  async rest(): Promise<string[]> {
    const lines = [];
    for (let line = await this.line(); line !== undefined; line = await this.line()) {
      lines.push(line);
    }
    return lines;
  }

  /** Ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.rest();
    await this.#child.status;
  }
}
