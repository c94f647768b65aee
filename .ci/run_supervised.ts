/**
 * Runs a program that must not hang.
 *
 * @module
 */

/** How a program is run. */
export interface SupervisedOptions {
  /** The program's arguments. */
  readonly args: readonly string[];
  /** The folder that it runs in. */
  readonly cwd: string;
  /** What is added to its environment. */
  readonly env: Readonly<Record<string, string>>;
  /** The longest time without a word from it, in milliseconds. */
  readonly silenceMs: number;
  /** Takes what it writes; to standard output and error unless given. */
  readonly write?: (bytes: Uint8Array) => void;
}

/** How it ended. */
export interface SupervisedResult {
  /** Whether it ended by itself, with exit code 0. */
  readonly success: boolean;
  /** The last line that it wrote before it was stopped for its silence; `undefined` if it ended by itself. */
  readonly hungAt?: string;
}

/** How long an interrupted program may take to write its report. */
const REPORT_MS = 10_000;

/**
 * Runs a program and passes on what it writes. Interrupts it (SIGINT, upon which `deno test` still writes its
 * report) if it says nothing for too long, and kills it if that does not help.
 */
export async function runSupervised(
  command: string,
  { args, cwd, env, silenceMs, write = (bytes) => Deno.stdout.writeSync(bytes) }: SupervisedOptions,
): Promise<SupervisedResult> {
  const child = new Deno.Command(command, {
    args: [...args],
    cwd,
    env: { ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let hungAt: string | undefined;
  let last = "";
  let killer: ReturnType<typeof setTimeout> | undefined;
  const interrupt = () => {
    hungAt = last.split("\n").findLast((line) => line.trim() !== "") ?? "";
    child.kill("SIGINT");
    killer = setTimeout(() => child.kill("SIGKILL"), REPORT_MS);
  };
  let timer = setTimeout(interrupt, silenceMs);
  const decoder = new TextDecoder();
  const follow = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
    for await (const bytes of stream) {
      write(bytes);
      last = (last + decoder.decode(bytes, { stream: true })).slice(-2_000);
      if (hungAt !== undefined) continue;
      clearTimeout(timer);
      timer = setTimeout(interrupt, silenceMs);
    }
  };
  // What a test left running may hold the pipes open: the program's own end is what counts.
  const output = Promise.all([follow(child.stdout), follow(child.stderr)]);
  const { success } = await child.status;
  clearTimeout(timer);
  clearTimeout(killer);
  await Promise.race([output, new Promise((resolve) => setTimeout(resolve, 1_000))]);
  return { success: success && hungAt === undefined, ...hungAt === undefined ? {} : { hungAt } };
}
