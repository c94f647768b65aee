/**
 * The plugin as a runtime calls it: a command in the environment, a configuration on standard input, JSON on standard
 * output, and an exit code.
 *
 * @module
 */

import { throwDefect } from "@denim/core/errors";
import { add } from "./add.ts";
import { CNI_CODE, CniError, DelegateError, hasDefect, toCniError } from "./cni_error.ts";
import { ConfObject } from "./conf_object.ts";
import { del } from "./del.ts";
import { type CniVariables, type ReadVariable, readVariables } from "./environment.ts";
import {
  CNI_VERSIONS,
  type CniVersion,
  LATEST_CNI_VERSION,
  type NetworkConf,
  readCniVersion,
  readNetworkConf,
} from "./network_conf.ts";
import { formatError, formatVersions } from "./result.ts";

/** Carries out a command, and returns what goes to standard output. Throws what went wrong. */
type Command = (conf: NetworkConf, variables: CniVariables) => string | Promise<string>;

/** Pods wait for ADD and DEL. The modules of the other commands are loaded only when they are used. */
const COMMANDS: Readonly<Record<string, Command>> = {
  ADD: add,
  DEL: del,
  CHECK: async (...call) => (await import("./check.ts")).check(...call),
  STATUS: async (...call) => (await import("./status.ts")).status(...call),
  GC: async (...call) => (await import("./gc.ts")).gc(...call),
};

/** The plugin's answer to the runtime. */
export interface Answer {
  /** JSON for standard output, or nothing. */
  readonly output: string;
  /** Whether the command failed; the exit code is 1 then. */
  readonly failed: boolean;
}

/**
 * Carries out the command that the environment names. Never throws: every failure becomes the spec's JSON. A defect of
 * denim also goes to standard error, with its stack. If denim does an ADD or DEL itself, it is done when this function
 * returns, so that a test can run it in a namespace; the other commands return a promise.
 *
 * @param read reads a variable of the environment
 * @param readInput reads standard input to its end
 */
export function answer(read: ReadVariable, readInput: () => string): Answer | Promise<Answer> {
  let cniVersion: CniVersion = LATEST_CNI_VERSION;
  const succeed = (output: string): Answer => ({ output, failed: false });
  const fail = (error: unknown): Answer => {
    if (error instanceof DelegateError) return { output: error.output, failed: true };
    const failure = toCniError(error);
    // A runtime may show the message alone. Its log has the stack as well.
    if (hasDefect(error)) console.error(failure.details);
    return { output: formatError(cniVersion, failure), failed: true };
  };
  try {
    const name = read("CNI_COMMAND") ?? "";
    if (name === "VERSION") {
      return succeed(formatVersions(spokenVersion(readInput)));
    }
    const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name]! : refuse(name);
    const variables = readVariables(name, read);
    const json = ConfObject.parse(readInput(), "the network configuration on standard input");
    cniVersion = readCniVersion(json) ?? LATEST_CNI_VERSION;
    const output = command(readNetworkConf(json), variables);
    return typeof output === "string" ? succeed(output) : output.then(succeed, fail);
  } catch (error) {
    return fail(error);
  }
}

function refuse(name: string): never {
  const all = [...Object.keys(COMMANDS), "VERSION"].join(", ");
  const problem = name === ""
    ? "CNI_COMMAND is missing in the environment"
    : `CNI_COMMAND=${name} in the environment is not a command of CNI`;
  throw new CniError(CNI_CODE.invalidEnvironment, `${problem}; this plugin knows ${all}`);
}

/** The version for the answer to VERSION: the runtime's own (CNI spec 1.1.0), which older runtimes do not send. */
function spokenVersion(readInput: () => string): string {
  try {
    return ConfObject.parse(readInput(), "input").string("cniVersion") || LATEST_CNI_VERSION;
  } catch (error) {
    throwDefect(error);
    return LATEST_CNI_VERSION;
  }
}

/**
 * Runs the plugin with this process's environment, standard input and output, and ends the process: with 0 if the
 * command succeeded, else with 1.
 */
export async function runPlugin(): Promise<never> {
  if (!Deno.env.get("CNI_COMMAND")) {
    write(
      Deno.stderr,
      `denim's CNI plugin, for container runtimes to run. CNI versions: ${
        CNI_VERSIONS.join(", ")
      }\n`,
    );
  }
  const { output, failed } = await answer((name) => Deno.env.get(name), readStandardInput);
  write(Deno.stdout, output);
  Deno.exit(failed ? 1 : 0);
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
