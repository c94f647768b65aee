/**
 * `denim agent`: from arguments to an exit code.
 *
 * @module
 */

import {
  errorReport,
  isDefect,
  type Logger,
  messageOf,
  MetricsRegistry,
  sleep,
  SYSTEM_CLOCK,
} from "@denim/core";
import { allowNoFreeMemory } from "@denim/core/linux";
import type { AnyBackend } from "./net_conf.ts";
import config from "./deno.json" with { type: "json" };
import type { ParsedFlags } from "./flag_table.ts";
import {
  type AgentFlag,
  agentHelp,
  ignoredFlags,
  interfaceChoice,
  masqueradeChoice,
  parseAgentFlags,
} from "./flags.ts";
import { CniServer } from "./cni_server.ts";
import { keepHeapSmall } from "./heap.ts";
import { createLogger } from "./log.ts";
import { runNode } from "./node_agent.ts";
import { Page } from "./page/page_routes.ts";
import { requireRoot } from "./privileges.ts";
import { observeProcess } from "./process_metrics.ts";
import { RecentLog } from "./recent_log.ts";
import { ServiceManager } from "./service_manager.ts";
import { type AgentState, apiRoutes, healthRoutes } from "./status_routes.ts";
import { StatusServer } from "./status_server.ts";
import { SubnetFile } from "./subnet_file.ts";
import { chooseStore } from "./stores/mod.ts";
import { exitCode, untilStopped } from "./until_stopped.ts";

/** The kernel reports what the start has made, and is compared once more, within this time of the node's readiness. */
const START_ENDS_MS = 3_000;
/** So long an agent waits for the one before to end: Kubernetes starts a pod's successor while a deleted pod still ends. */
const HANDOVER_MS = 5_000;

/** What `runAgent` is given. */
export interface RunAgentOptions {
  /** The backends that net-conf may name: `[...builtin, mine]`. */
  readonly backends: readonly AnyBackend[];
  /** The arguments behind `denim agent`; the program's own unless given. */
  readonly args?: readonly string[];
}

/**
 * Runs the node agent until SIGTERM or SIGINT, and resolves to the exit code: 0 stopped as asked, 1 failed
 * at run time, 2 wrong usage or configuration. Whatever ends the agent is in its log: an expected error with its
 * message, and with `--debug` its causes; a defect of denim with its stack. A defect leaves the data path as it is.
 */
export async function runAgent(options: RunAgentOptions): Promise<number> {
  let log = createLogger({ format: "text" });
  let causes = false;
  let stopping: AbortSignal | undefined;
  let manager: ServiceManager | undefined;
  try {
    const flags = parseAgentFlags(options.args ?? Deno.args, Deno.env.toObject());
    if (typeof flags === "string") {
      console.log(flags === "help" ? agentHelp() : `denim ${config.version}`);
      return 0;
    }
    causes = flags.values.debug;
    log = createLogger({ format: flags.values["log-format"], debug: flags.values.debug });
    const told = manager = new ServiceManager(Deno.env, log);
    await untilStopped("stopped", (signal) => {
      stopping = signal;
      return serve(flags, options.backends, told, log, signal);
    });
    manager.stop("stopped");
    log.info("stopped", "stopped; the data path stays as it is");
    return 0;
  } catch (error) {
    const defect = isDefect(error);
    if (stopping?.aborted && !defect) return 0;
    manager?.stop(`failed: ${messageOf(error)}`);
    log.error(defect ? "defect" : "failed", errorReport(error, { causes }));
    return exitCode(error);
  }
}

async function serve(
  flags: ParsedFlags<AgentFlag>,
  backends: readonly AnyBackend[],
  manager: ServiceManager,
  writtenLog: Logger,
  signal: AbortSignal,
): Promise<void> {
  const { values } = flags;
  const log = new RecentLog(writtenLog);
  const ignored = ignoredFlags(flags);
  if (ignored.length > 0) {
    log.debug("flags-ignored", `flags without effect: ${ignored.join(", ")}`);
  }
  requireRoot("denim agent");
  using _claim = await new SubnetFile(values["subnet-file"], log).claim(HANDOVER_MS, signal);
  allowNoFreeMemory();
  const { kind, spec } = chooseStore(flags);
  const metrics = new MetricsRegistry();
  observeProcess(metrics);
  const state: AgentState = {
    unready: "it is starting",
    store: undefined,
    node: undefined,
    startedAtMs: Date.now(),
    metrics,
    recent: log,
  };
  const status = () => {
    if (state.unready !== undefined) return `not ready: ${state.unready}`;
    return `ready; other nodes: ${metrics.value("denim_peers", { state: "current" })}`;
  };
  manager.tell(status(), false);
  manager.beat(status, SYSTEM_CLOCK, signal);
  let starting = true;
  const page = new Page(state, {
    apiSocket: values["api-socket"],
    subnetFile: values["subnet-file"],
  });
  const port = values["healthz-port"];
  await using _health = port === 0 ? undefined : StatusServer.serve(
    `${values["healthz-ip"]}`,
    port,
    {
      routes: { ...healthRoutes(state), ...page.routesAt(values["healthz-ip"], values.page) },
      log,
    },
  );
  const local = { routes: { ...apiRoutes(state), ...page.routes({ anyName: false }) }, log };
  await using _api = await StatusServer.serveLocally(values["api-socket"], local);
  // Before the servers, which wait until nobody follows any more.
  using _page = page;
  const cniCalls = values["cni-calls"];
  await using _cni = cniCalls === undefined
    ? undefined
    : new CniServer({ path: cniCalls, log, metrics });
  await using store = await kind.open(spec, {
    netConfFile: {
      path: values["net-config-path"],
      isNamed: flags.source("net-config-path") !== "default",
    },
    log,
    metrics,
    signal,
  });
  state.store = store.description;
  log.info("store-opened", `leases live in ${store.description}`);
  await runNode({
    store,
    backends,
    interface: interfaceChoice(values),
    subnetFile: values["subnet-file"],
    masquerade: masqueradeChoice(values),
    blackholeRoute: values["ip-blackhole-route"],
    forwardRules: values["iptables-forward-rules"],
    iptablesResyncMs: values["iptables-resync"] * 1000,
    renewMarginMs: values["subnet-lease-renew-margin"],
    log,
    metrics,
    probePeers: values["probe-peers"],
    onReadiness: (unready) => {
      state.unready = unready;
      manager.tell(status(), unready === undefined);
      if (!starting || unready !== undefined) return;
      starting = false;
      void sleep(START_ENDS_MS, signal).then((over) => over && keepHeapSmall());
    },
    onNode: (node) => state.node = node,
  }, signal);
}
