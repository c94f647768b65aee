/**
 * What the commands that read or write the store have in common.
 *
 * @module
 */

import { type LeaseAdmin, RuntimeError } from "@denim/core";
import { parseStoreFlags, type StoreCommandFlags, storeHelp } from "./flags.ts";
import { createLogger } from "./log.ts";
import { openStore } from "./open_store.ts";
import { runCommand } from "./run_command.ts";

/** A command that reads or writes the store. */
export interface StoreCommand {
  /** Its name: `denim leases`. */
  readonly name: string;
  /** What help says above the store's flags. */
  readonly help: string;
  /** Its own flags, and whether they take a value. */
  readonly flags: Readonly<Record<string, "string" | "boolean">>;
  /** Whether it, with these operands, may be the one who makes an embedded store. */
  readonly creates: (operands: readonly string[]) => boolean;
  /** Does it. What it prints goes through `print`. */
  run(
    store: LeaseAdmin,
    flags: Omit<StoreCommandFlags, "store">,
    print: (text: string) => void,
    signal: AbortSignal,
  ): Promise<void>;
}

/** Runs a command and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage or configuration. */
export function runStoreCommand(command: StoreCommand, args: readonly string[]): Promise<number> {
  return runCommand(command.name, "stopped", async (signal) => {
    const flags = parseStoreFlags(command.name, command.flags, args, Deno.env.toObject());
    if (flags === "help") {
      console.log(`${command.help}\nWhere leases live:\n\n${storeHelp()}\n`);
      return 0;
    }
    const { store: spec, operands } = flags;
    if (spec.kind === "sqlite" && !command.creates(operands) && !await exists(spec.path)) {
      throw new RuntimeError(
        `sqlite:${spec.path}: there is no store yet; denim config set makes one, or name another ` +
          "with --store",
      );
    }
    const log = createLogger({ format: "text" });
    await using store = await openStore(spec, log, { patient: false });
    await command.run(store, flags, (text) => console.log(text), signal);
    return 0;
  });
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    return !(error instanceof Deno.errors.NotFound);
  }
}
