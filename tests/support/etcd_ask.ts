/**
 * For etcd_tls_test.ts: a process that asks an etcd for the net-conf, as an agent does that starts:
 * `etcd_ask.ts OPTIONS`, with {@link EtcdStoreOptions} as JSON. It prints what came of it.
 *
 * @module
 */

import { messageOf } from "@denim/core";
import { EtcdStore, type EtcdStoreOptions } from "@denim/core/stores/etcd";
import { NEVER } from "./wait.ts";

const options: Omit<EtcdStoreOptions, "log"> = JSON.parse(Deno.args[0]!);
const log = { debug() {}, info: console.log, warn: console.log, error: console.log };
await using store = EtcdStore.open({ ...options, log });
const asked = store.networkConfig(NEVER);
console.log(await asked.then(() => "there is one", messageOf));
