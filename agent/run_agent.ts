/**
 * `denim agent`: from arguments to an exit code.
 *
 * @module
 */

import {
  ConfigError,
  type LeaseAdmin,
  type Logger,
  messageOf,
  MetricsRegistry,
  RuntimeError,
} from "@denim/core";
import type { AnyBackend } from "./data_paths.ts";
import { type AgentFlags, agentHelp, parseAgentFlags } from "./flags.ts";
import { Health } from "./health.ts";
import { createLogger } from "./log.ts";
import { runNode } from "./node_agent.ts";
import { openStore } from "./open_store.ts";
import { requireRoot } from "./privileges.ts";
import { untilStopped } from "./run_command.ts";

/** What `runAgent` is given. */
export interface RunAgentOptions {
  /** The backends that net-conf may name: `[...builtin, mine]`. */
  readonly backends: readonly AnyBackend[];
  /** The arguments behind `denim agent`; the program's own unless given. */
  readonly args?: readonly string[];
}

/**
 * Runs the node agent until SIGTERM or SIGINT, and resolves to the exit code: 0 stopped as asked, 1 failed
 * at run time, 2 wrong usage or configuration.
 */
export function runAgent(options: RunAgentOptions): Promise<number> {
  return untilStopped("stopped", async (signal) => {
    let log = createLogger({ format: "text" });
    try {
      const flags = parseAgentFlags(options.args ?? Deno.args, Deno.env.toObject());
      if (flags === "help") {
        console.log(agentHelp());
        return 0;
      }
      log = createLogger({ format: flags.logFormat, debug: flags.debug });
      requireRoot("denim agent");
      await serve(flags, options.backends, log, signal);
      log.info("stopped", "stopped; the data path stays as it is");
      return 0;
    } catch (error) {
      if (signal.aborted) return 0;
      log.error("failed", messageOf(error));
      return error instanceof ConfigError ? 2 : 1;
    }
  });
}

async function serve(
  flags: AgentFlags,
  backends: readonly AnyBackend[],
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  await using health = flags.healthz && Health.serve(flags.healthz, log);
  await using store = await openStore(flags.store, log, { patient: true });
  log.info("store-opened", `leases live in ${store.description}`);
  if (flags.store.kind === "sqlite") await seed(flags, store, log, signal);
  else if (flags.netConfigPath !== undefined) {
    // A cluster's net-conf is its administrator's to write.
    log.warn(
      "net-conf-ignored",
      `--net-config-path ${flags.netConfigPath} is ignored: it is for the embedded store; ` +
        `\`denim config set ${flags.netConfigPath}\` writes a net-conf into etcd`,
    );
  }
  await runNode({
    store,
    backends,
    interface: flags,
    subnetFile: flags.subnetFile,
    renewMarginMs: flags.renewMarginMs,
    log,
    metrics: new MetricsRegistry(),
    onReadiness: (unready) => health?.tell(unready),
  }, signal);
}

/** Gives a store that has no net-conf the one from the file. */
async function seed(
  flags: AgentFlags,
  store: LeaseAdmin,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  if (flags.netConfigPath === undefined) return;
  let text;
  try {
    text = await Deno.readTextFile(flags.netConfigPath);
  } catch (error) {
    throw new RuntimeError(`--net-config-path ${flags.netConfigPath}: ${messageOf(error)}`);
  }
  try {
    if (await store.setNetworkConfig(text, { ifAbsent: true }, signal)) {
      log.info("net-conf-seeded", `net-conf taken from ${flags.netConfigPath}`);
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(`${flags.netConfigPath}: ${error.message}`);
  }
}
