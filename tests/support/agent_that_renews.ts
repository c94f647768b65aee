/**
 * An agent whose lease is renewed a moment after it was leased, where the flag's smallest margin would wait
 * a minute. Arguments: the store's file, subnet.env's path.
 *
 * @module
 */

import { builtin } from "@denim/backends";
import { LEASE_TTL_MS } from "@denim/core";
import { SqliteStore } from "@denim/core/stores/sqlite";
import { createLogger } from "../../agent/log.ts";
import { runNode } from "../../agent/node_agent.ts";

const [storePath, subnetFile] = Deno.args as [string, string];
const log = createLogger({ format: "text" });
const stopping = new AbortController();
Deno.addSignalListener("SIGTERM", () => stopping.abort());
await using store = SqliteStore.open(storePath, { log });
await runNode({
  store,
  backends: builtin,
  interface: { iface: [], ifaceRegex: [], ifaceCanReach: undefined, publicIps: new Map() },
  subnetFile,
  renewMarginMs: LEASE_TTL_MS - 100,
  log,
  onReadiness: () => {},
}, stopping.signal);
