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
import type { NodeMasquerade } from "./masquerade.ts";
import {
  type CniVersion,
  LATEST_CNI_VERSION,
  type NetworkConf,
  readCniVersion,
  readNetworkConf,
} from "./network_conf.ts";
import { formatError, formatVersions } from "./result.ts";
import type { Helpers, LaterWork, Removal } from "./work.ts";

/** Carries out a command, and returns what goes to standard output. Throws what went wrong. */
type Command = (
  conf: NetworkConf,
  variables: CniVariables,
  helpers: Helpers,
) => string | LaterWork | Removal;

/** Pods wait for ADD and DEL. The modules of the other commands are loaded only when they are used. */
const COMMANDS: Readonly<Record<string, Command>> = {
  ADD: add,
  DEL: del,
  CHECK: (conf, variables) => async () => (await import("./check.ts")).check(conf, variables),
  STATUS: (conf, variables) => async () => (await import("./status.ts")).status(conf, variables),
  GC: (conf, variables) => async () => (await import("./gc.ts")).gc(conf, variables),
};

/** What a runtime gives the plugin. */
export interface Question {
  /** Reads a variable of the environment. */
  readonly read: ReadVariable;
  /** Reads standard input to its end. */
  readonly readInput: () => string;
  /** Takes what goes to standard error, which ends in a runtime's log. */
  readonly warn: (line: string) => void;
}

/** The plugin's answer to the runtime. */
export interface Answer {
  /** JSON for standard output, or nothing. */
  readonly output: string;
  /** Whether the command failed; the exit code is 1 then. */
  readonly failed: boolean;
}

/** A DEL by denim itself that was understood, and of which nothing is done yet. */
export interface BegunRemoval {
  /** See {@link Removal}. */
  readonly device: string;
  /** Does it. */
  readonly finish: () => Answer;
}

/**
 * Carries out the command that the environment names. Never throws: every failure becomes the spec's JSON. A defect of
 * denim also goes to standard error, with its stack. An ADD or DEL that denim does itself is done when this function
 * returns, in the namespace of its caller's thread. Of anything else nothing is done yet: the function that it returns
 * does it.
 */
export function answer(question: Question): Answer | (() => Promise<Answer>) {
  const begun = begin(question);
  return "device" in begun ? begun.finish() : begun;
}

/**
 * As {@link answer}, but of a DEL that denim does itself nothing is done yet either.
 *
 * @param masquerade one that an agent keeps open
 */
export function begin(
  { read, readInput, warn }: Question,
  masquerade?: NodeMasquerade,
): Answer | (() => Promise<Answer>) | BegunRemoval {
  let cniVersion: CniVersion = LATEST_CNI_VERSION;
  const succeed = (output: string): Answer => ({ output, failed: false });
  const fail = (error: unknown): Answer => {
    if (error instanceof DelegateError) return { output: error.output, failed: true };
    const failure = toCniError(error);
    // A runtime may show the message alone. Its log has the stack as well.
    if (hasDefect(error)) warn(failure.details);
    return { output: formatError(cniVersion, failure), failed: true };
  };
  const attempt = <T>(work: () => T): T | Answer => {
    try {
      return work();
    } catch (error) {
      return fail(error);
    }
  };
  return attempt(() => {
    const name = read("CNI_COMMAND") ?? "";
    if (name === "VERSION") {
      return succeed(formatVersions(spokenVersion(readInput)));
    }
    const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name]! : refuse(name);
    const variables = readVariables(name, read);
    const json = ConfObject.parse(readInput(), "the network configuration on standard input");
    cniVersion = readCniVersion(json) ?? LATEST_CNI_VERSION;
    const done = command(readNetworkConf(json), variables, { warn, masquerade });
    if (typeof done === "string") return succeed(done);
    if (typeof done === "function") return () => done().then(succeed, fail);
    const { device, finish } = done;
    return { device, finish: () => attempt(() => succeed(finish())) };
  });
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
