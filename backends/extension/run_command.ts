/**
 * Runs a command of net-conf's, with a time limit.
 *
 * @module
 */

import { RuntimeError, throwDefect } from "@denim/core";

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

/** What a command wrote, without white space around it; of each no more than {@link MAX_OUTPUT_BYTES}. */
export interface CommandOutput {
  /** To standard output. */
  readonly output: string;
  /** To standard error. */
  readonly errors: string;
  /** Whether it wrote more than that to standard output. */
  readonly cut: boolean;
}

/** How much of what a command writes is kept, in bytes. */
export const MAX_OUTPUT_BYTES = 65_536;

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
  let killed = false;
  const kill = () => {
    killed = true;
    try {
      Deno.kill(-child.pid, "SIGKILL");
    } catch (error) {
      // The process has ended already.
      throwDefect(error);
    }
  };
  ending.addEventListener("abort", kill);
  try {
    const [{ success, code }, stdout, stderr] = await Promise.all([
      child.status,
      read(child.stdout),
      read(child.stderr),
      write(child.stdin, `${input}\n`),
    ]);
    const [output, errors] = [stdout.text, stderr.text];
    if (success && !killed) return { output, errors, cut: stdout.cut };
    signal.throwIfAborted();
    const how = killed
      // Also if the shell has ended, but left a child that holds its output.
      ? `took longer than ${timeoutMs / 1000} s and was killed`
      : `failed with exit code ${code}`;
    const said = [errors, output].filter((text) => text !== "").join("; ");
    throw new RuntimeError(`${name} ${how}${said && `: ${said}`}`);
  } finally {
    ending.removeEventListener("abort", kill);
  }
}

/** Reads a stream to its end, but keeps its beginning alone: a command may write without end. */
async function read(stream: ReadableStream<Uint8Array>): Promise<{ text: string; cut: boolean }> {
  const kept: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    if (bytes < MAX_OUTPUT_BYTES) kept.push(chunk.subarray(0, MAX_OUTPUT_BYTES - bytes));
    bytes += chunk.length;
  }
  const text = await new Blob(kept as Uint8Array<ArrayBuffer>[]).text();
  return { text: text.trim(), cut: bytes > MAX_OUTPUT_BYTES };
}

/** A command need not read its input. */
async function write(stream: WritableStream<Uint8Array>, text: string): Promise<void> {
  try {
    const writer = stream.getWriter();
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  } catch (error) {
    // The command has closed its input, or has ended.
    throwDefect(error);
  }
}
