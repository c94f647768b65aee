/**
 * A command that does one thing and ends.
 *
 * @module
 */

import { errorReport } from "@denim/core/errors";
import { type Flag, flagsHelp, type ParsedFlags, parseFlags } from "./flag_table.ts";
import { COMMON_FLAGS, type CommonFlag } from "./common_flags.ts";
import { exitCode, untilStopped } from "./until_stopped.ts";

/**
 * A command.
 *
 * @typeParam F its own flags
 */
export interface Command<F extends Flag> {
  /** Its name, for messages: `denim leases`. */
  readonly name: string;
  /** What help says above the flags: usage, and what the command does. */
  readonly help: string;
  /** Its own flags; each command also has `--debug` and `--help`. */
  readonly flags: readonly F[];
  /** The variables that stand for flags; not read unless given. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Whether it takes arguments that are not flags; it does not unless given. */
  readonly takesOperands?: boolean;
  /** What is said if SIGTERM or SIGINT stops it. */
  readonly stopped: string;
  /** Which signals stop it, too; none unless given. */
  readonly stopSignals?: readonly Deno.Signal[];
  /** Does it, and resolves to the exit code. Rejects with an ExpectedError. */
  run(flags: ParsedFlags<F | CommonFlag>, signal: AbortSignal): Promise<number>;
}

/**
 * Runs a command and resolves to its exit code: that of `run`, or, if it fails, 2 for a ConfigError and 1 for all
 * else, with the message on standard error; with `--debug` also with its causes, of a defect with its stack.
 */
export async function runCommand<F extends Flag>(
  command: Command<F>,
  args: readonly string[],
): Promise<number> {
  let causes = false;
  try {
    const table = [...command.flags, ...COMMON_FLAGS];
    const flags = parseFlags<F | CommonFlag>(command.name, table, {
      args,
      ...command.environment && { environment: command.environment },
      takesOperands: command.takesOperands ?? false,
    });
    if (typeof flags === "string") {
      console.log(`${command.help}\n${flagsHelp(table)}\n`);
      return 0;
    }
    causes = flags.values.debug;
    const run = (signal: AbortSignal) => command.run(flags, signal);
    return await untilStopped(command.stopped, run, command.stopSignals);
  } catch (error) {
    console.error(`${command.name}: ${errorReport(error, { causes })}`);
    return exitCode(error);
  }
}
