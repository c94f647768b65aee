/**
 * The plugin as a process. It loads what asks the agent, and the plugin itself only if no agent does the work: a pod's
 * start waits for every module.
 *
 * @module
 */

import { CALL_VARIABLES, DEFAULT_CNI_SOCKET, SERVED_COMMANDS } from "./agent_socket.ts";
import { askAgent } from "./ask_agent.ts";
import { thisCaller } from "./caller.ts";

/**
 * Runs the plugin with this process's environment, standard input and output, and ends the process: with 0 if the
 * command succeeded, else with 1. An agent that serves the configuration's `cniSocket` does the work, else this
 * process.
 */
export async function runPlugin(): Promise<never> {
  const command = Deno.env.get("CNI_COMMAND");
  if (!command) {
    const { CNI_VERSIONS } = await import("./network_conf.ts");
    const versions = CNI_VERSIONS.join(", ");
    write(
      Deno.stderr,
      `denim's CNI plugin, for container runtimes to run. CNI versions: ${versions}\n`,
    );
  }
  let input: string | undefined;
  const readInput = () => input ??= readStandardInput();
  const { output, failed } = command !== undefined && SERVED_COMMANDS.includes(command)
    ? await servedOrOwn(readInput)
    : await ownWork(readInput);
  write(Deno.stdout, output);
  Deno.exit(failed ? 1 : 0);
}

/** What a call came to. */
interface Outcome {
  readonly output: string;
  readonly failed: boolean;
}

async function servedOrOwn(readInput: () => string): Promise<Outcome> {
  const socket = socketOf(readInput());
  const environment = callEnvironment();
  const call = { environment, input: readInput(), caller: thisCaller() };
  const served = socket === "" ? undefined : await askAgent(socket, call);
  if (served !== undefined) {
    write(Deno.stderr, served.errors);
    return served;
  }
  const { awaitAgent } = await import("./call_order.ts");
  awaitAgent(socket, environment);
  return await ownWork(readInput);
}

async function ownWork(readInput: () => string): Promise<Outcome> {
  const { answer } = await import("./plugin.ts");
  const answered = answer({
    read: (name) => Deno.env.get(name),
    readInput,
    warn: (line) => write(Deno.stderr, `${line}\n`),
  });
  return typeof answered === "function" ? await answered() : answered;
}

/** The agent's socket, as the configuration names it: "" for none. What else is in it, and whether it is right, is not asked here. */
function socketOf(input: string): string {
  return /"cniSocket"\s*:\s*"([^"\\]*)"/.exec(input)?.[1] ?? DEFAULT_CNI_SOCKET;
}

function callEnvironment(): Readonly<Record<string, string>> {
  const entries = CALL_VARIABLES.flatMap((name) => {
    const value = Deno.env.get(name);
    return value === undefined ? [] : [[name, value] as const];
  });
  return Object.fromEntries(entries);
}

function readStandardInput(): string {
  // A person who tries VERSION by hand gives no input.
  if (Deno.stdin.isTerminal()) return "";
  const decoder = new TextDecoder();
  const chunk = new Uint8Array(64 * 1024);
  let text = "";
  for (;;) {
    const length = Deno.stdin.readSync(chunk);
    if (length === null) return text + decoder.decode();
    text += decoder.decode(chunk.subarray(0, length), { stream: true });
  }
}

function write(to: typeof Deno.stdout, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let done = 0; done < bytes.length;) done += to.writeSync(bytes.subarray(done));
}
