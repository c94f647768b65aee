/**
 * An agent whose lease is renewed a moment after it was leased, where the flag's largest margin would wait
 * a minute. Takes the agent's flags that say where the store's file and subnet.env are.
 *
 * @module
 */

import { builtin } from "@denim/backends";
import { LEASE_TTL_MS, NO_METRICS } from "@denim/core";
import assert from "node:assert/strict";
import { parseAgentFlags } from "../../agent/flags.ts";
import { createLogger } from "../../agent/log.ts";
import { runNode } from "../../agent/node_agent.ts";
import { chooseStore } from "../../agent/stores/mod.ts";

const flags = parseAgentFlags(Deno.args, {});
assert.ok(typeof flags !== "string");
const log = createLogger({ format: "text" });
const stopping = new AbortController();
Deno.addSignalListener("SIGTERM", () => stopping.abort());
const { kind, spec } = chooseStore(flags);
await using store = await kind.open(spec, {
  netConfFile: { path: flags.values["net-config-path"], isNamed: false },
  log,
  metrics: NO_METRICS,
  signal: stopping.signal,
});
await runNode({
  store,
  backends: builtin,
  interface: { iface: [], ifaceRegex: [], ifaceCanReach: undefined, publicIps: new Map() },
  subnetFile: flags.values["subnet-file"],
  forwardRules: true,
  iptablesResyncMs: 5_000,
  renewMarginMs: LEASE_TTL_MS - 100,
  probePeers: false,
  log,
  metrics: NO_METRICS,
  onReadiness: () => {},
}, stopping.signal);
