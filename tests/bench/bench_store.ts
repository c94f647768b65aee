/**
 * The stores of the benches, into which leases of made-up peers are written from outside.
 *
 * @module
 */

import { formatLeaseValue, type Lease, RuntimeError } from "@denim/core";
import { SqliteStore } from "@denim/core/stores/sqlite";
import type { NetworkNamespace } from "@denim/core/linux/namespace";
import { EtcdServer } from "../support/etcd_server.ts";
import { SqliteLeases } from "../support/sqlite_leases.ts";
import type { WriterAnswer, WriterRequest } from "./etcd_writer_worker.ts";

/** A store with leases. */
export interface BenchStore extends AsyncDisposable {
  /** denim's flags that choose it. */
  readonly flags: readonly string[];
  /** Writes leases. Resolves to the time at which the store had them, in milliseconds since 1970. */
  put(leases: readonly Lease[]): Promise<number>;
  /** Deletes leases. */
  remove(keys: readonly string[]): Promise<void>;
}

/** Makes an embedded store with a net-conf. */
export async function sqliteStore(path: string, netConf: unknown): Promise<BenchStore> {
  const log = { debug() {}, info() {}, warn: console.error, error: console.error };
  {
    await using store = SqliteStore.open(path, { log });
    const never = new AbortController().signal;
    await store.setNetworkConfig(JSON.stringify(netConf), { ifAbsent: true }, never);
  }
  const leases = new SqliteLeases(path);
  return {
    flags: ["--store", `sqlite:${path}`],
    put: (all) => {
      leases.put(all);
      return Promise.resolve(performance.timeOrigin + performance.now());
    },
    remove: (keys) => Promise.resolve(leases.remove(keys)),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** flannel's, unless it is told another. */
const PREFIX = "/coreos.com/network";

/**
 * Starts an etcd with a net-conf.
 *
 * @param namespace where it runs, and where it has the address `host`
 * @param path the namespace's
 */
export async function etcdStore(
  namespace: NetworkNamespace,
  path: string,
  host: string,
  netConf: unknown,
): Promise<BenchStore> {
  await using starting = new AsyncDisposableStack();
  const server = starting.use(await EtcdServer.start({ namespace, host }));
  server.ctl("put", `${PREFIX}/config`, JSON.stringify(netConf));
  const worker = starting.adopt(
    new Worker(new URL("./etcd_writer_worker.ts", import.meta.url), { type: "module" }),
    (worker) => worker.terminate(),
  );
  const ask = async (request: WriterRequest): Promise<number> => {
    const { promise, resolve, reject } = Promise.withResolvers<WriterAnswer>();
    worker.onmessage = ({ data }: MessageEvent<WriterAnswer>) => resolve(data);
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
    worker.postMessage(request);
    const answer = await promise;
    if ("error" in answer) throw new RuntimeError(`etcd: ${answer.error}`);
    return answer.answeredAtMs;
  };
  await ask({ kind: "open", path, url: server.url });
  const owned = starting.move();
  const keyOf = (key: string) => `${PREFIX}/subnets/${key}`;
  return {
    flags: ["--etcd-endpoints", server.url],
    put: (leases) =>
      ask({
        kind: "put",
        values: leases.map((lease) => [keyOf(lease.key), formatLeaseValue(lease)] as const),
      }),
    remove: async (keys) => {
      await ask({ kind: "delete", keys: keys.map(keyOf) });
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
