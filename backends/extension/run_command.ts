/**
 * Runs a command of net-conf's, with a time limit.
 *
 * @module
 */

import { RuntimeError } from "@denim/core";

/** How a command is run. */
export interface CommandOptions {
  /** What net-conf calls it: "SubnetAddCommand". */
  readonly name: string;
  /** Given to it beside the agent's own environment. */
  readonly variables: Readonly<Record<string, string>>;
  /** Given to it on standard input, with a newline behind. */
  readonly input: string;
  /** How long it may take, in milliseconds; then it and all that it started is killed. */
  readonly timeoutMs: number;
  /** Kills it when aborted. */
  readonly signal: AbortSignal;
}

/** What a command wrote, without white space around it. */
export interface CommandOutput {
  /** To standard output. */
  readonly output: string;
  /** To standard error. */
  readonly errors: string;
}

/**
 * Runs a command line through `sh`, as flannel's documentation has it, so that it may be a small program.
 * Rejects with a RuntimeError that has its exit code or time limit, and what it wrote.
 */
export async function runCommand(
  command: string,
  { name, variables, input, timeoutMs, signal }: CommandOptions,
): Promise<CommandOutput> {
  signal.throwIfAborted();
  const child = new Deno.Command("sh", {
    args: ["-c", command],
    env: { ...variables },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    // A process group of its own, so that it can be killed with all that it started.
    detached: true,
  }).spawn();
  const late = AbortSignal.timeout(timeoutMs);
  const ending = AbortSignal.any([signal, late]);
  const kill = () => {
    try {
      Deno.kill(-child.pid, "SIGKILL");
    } catch {
      // It is gone already.
    }
  };
  ending.addEventListener("abort", kill);
  try {
    const [result] = await Promise.all([child.output(), write(child.stdin, `${input}\n`)]);
    const decoder = new TextDecoder();
    const output = decoder.decode(result.stdout).trim();
    const errors = decoder.decode(result.stderr).trim();
    if (result.success) return { output, errors };
    signal.throwIfAborted();
    const how = late.aborted
      ? `took longer than ${timeoutMs / 1000} s and was killed`
      : `failed with exit code ${result.code}`;
    const said = [errors, output].filter((text) => text !== "").join("; ");
    throw new RuntimeError(`${name} ${how}${said && `: ${said}`}`);
  } finally {
    ending.removeEventListener("abort", kill);
  }
}

/** A command need not read its input. */
async function write(stream: WritableStream<Uint8Array>, text: string): Promise<void> {
  try {
    const writer = stream.getWriter();
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  } catch {
    // It has closed it, or is gone.
  }
}
