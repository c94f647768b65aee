/**
 * What the commands that read or write the store have in common.
 *
 * @module
 */

import { ConfigError, type LeaseAdmin, RuntimeError } from "@denim/core";
import type { Flag, ParsedFlags } from "./flag_table.ts";
import { createLogger } from "./log.ts";
import { runCommand } from "./run_command.ts";
import { chooseStore, STORE_FLAGS, type StoreFlag } from "./stores/mod.ts";

/**
 * A command that reads or writes the store.
 *
 * @typeParam F its own flags
 */
export interface StoreCommand<F extends Flag> {
  /** Its name, for messages: `denim leases`. */
  readonly name: string;
  /** What help says above the flags. */
  readonly help: string;
  /** Its own flags; it has the stores' beside them. */
  readonly flags: readonly F[];
  /** Whether the command, with these operands, may make a store that does not exist yet. */
  readonly creates: (operands: readonly string[]) => boolean;
  /**
   * Does it. What it prints goes through `print`; the store, if it needs it, is opened by `open`, once. Resolves to the
   * exit code, 0 unless given.
   */
  run(
    open: () => Promise<LeaseAdmin>,
    flags: ParsedFlags<F | StoreFlag>,
    print: (text: string) => void,
    signal: AbortSignal,
  ): Promise<number | void>;
}

/** Runs a command and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage or configuration. */
export function runStoreCommand<F extends Flag>(
  command: StoreCommand<F>,
  args: readonly string[],
): Promise<number> {
  return runCommand<F | StoreFlag>({
    name: command.name,
    help: command.help,
    flags: [...command.flags, ...STORE_FLAGS],
    environment: Deno.env.toObject(),
    takesOperands: true,
    stopped: "stopped",
    async run(flags, signal) {
      const { kind, spec } = chooseStore(flags);
      await using opened = new AsyncDisposableStack();
      const open = async () => {
        if (kind.openAdmin === undefined) {
          const instead = kind.administeredBy === undefined ? "" : `: ${kind.administeredBy}`;
          throw new ConfigError(
            `${command.name} does not work on the store ${kind.name}${instead}`,
          );
        }
        const missing = command.creates(flags.operands) ? undefined : await kind.missing?.(spec);
        if (missing !== undefined) {
          throw new RuntimeError(
            `${missing}: there is no store yet; denim config set makes one, or name another with --store`,
          );
        }
        const log = createLogger({ format: "text", debug: flags.values.debug });
        return opened.use(await kind.openAdmin(spec, { log }));
      };
      return await command.run(open, flags, (text) => console.log(text), signal) ?? 0;
    },
  }, args);
}
