/**
 * What the commands that read or write the store have in common.
 *
 * @module
 */

import { ConfigError, type LeaseAdmin, RuntimeError, throwDefect } from "@denim/core";
import { AgentConnection } from "./agent_client.ts";
import { API_SOCKET_FLAG } from "./common_flags.ts";
import type { Flag, ParsedFlags } from "./flag_table.ts";
import { createLogger } from "./log.ts";
import { runCommand } from "./run_command.ts";
import type { StatusReport } from "./status_report.ts";
import { chooseStore, STORE_FLAGS } from "./stores/mod.ts";

/** An agent that does not say in this time where its leases are is not waited for, in milliseconds. */
const AGENT_PATIENCE_MS = 2000;

/** What every such command has beside its own flags. */
const SHARED_FLAGS = [...STORE_FLAGS, API_SOCKET_FLAG] as const;

type SharedFlag = typeof SHARED_FLAGS[number];

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
    flags: ParsedFlags<F | SharedFlag>,
    print: (text: string) => void,
    signal: AbortSignal,
  ): Promise<number | void>;
}

/** Runs a command and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage or configuration. */
export function runStoreCommand<F extends Flag>(
  command: StoreCommand<F>,
  args: readonly string[],
): Promise<number> {
  return runCommand<F | SharedFlag>({
    name: command.name,
    help: command.help,
    flags: [...command.flags, ...SHARED_FLAGS],
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
          const used = await agentsStore(flags.values["api-socket"]);
          throw new RuntimeError(
            `${missing}: there is no store ` +
              (used === undefined
                ? "yet; denim config set makes one, or name another with --store"
                : `here, and this node's agent has its leases in ${used}; give the flags by which the agent names it`),
          );
        }
        const log = createLogger({ format: "text", debug: flags.values.debug });
        return opened.use(await kind.openAdmin(spec, { log }));
      };
      return await command.run(open, flags, (text) => console.log(text), signal) ?? 0;
    },
  }, args);
}

/** Where the agent that runs here has its leases; `undefined` if none says so. */
async function agentsStore(apiSocket: string): Promise<string | undefined> {
  using agent = new AgentConnection(apiSocket);
  try {
    const status = await agent.ask("/status", AbortSignal.timeout(AGENT_PATIENCE_MS));
    return (JSON.parse(status) as StatusReport).store.description ?? undefined;
  } catch (error) {
    throwDefect(error);
    return undefined;
  }
}
