/**
 * Writes to an etcd from a thread in another network namespace: `setns` moves one thread, and all that a worker opens is
 * opened on its own.
 *
 * @module
 */

import { Etcd3 } from "etcd3";
import { Buffer } from "node:buffer";
import { NetworkNamespace } from "@denim/core/linux/namespace";

/** What the thread is asked: to begin, or to write or delete keys. */
export type WriterRequest =
  | { readonly kind: "open"; readonly path: string; readonly url: string }
  | { readonly kind: "put"; readonly values: readonly (readonly [key: string, value: string])[] }
  | { readonly kind: "delete"; readonly keys: readonly string[] };

/** When etcd had answered, in milliseconds since 1970; or what it complained of. */
export type WriterAnswer = { readonly answeredAtMs: number } | { readonly error: string };

/** As many operations as etcd takes in one transaction. */
const MAX_OPERATIONS = 128;
/** As of nodes' leases. */
const TTL_SECONDS = 86_400;

let etcd: Etcd3;
let lease: string;

async function answer(request: WriterRequest): Promise<void> {
  if (request.kind === "open") {
    using namespace = NetworkNamespace.open(request.path);
    namespace.enter();
    etcd = new Etcd3({ hosts: request.url });
    ({ ID: lease } = await etcd.leaseClient.leaseGrant({ TTL: TTL_SECONDS }));
    return;
  }
  const operations = request.kind === "put"
    ? request.values.map(([key, value]) => ({
      request_put: { key: Buffer.from(key), value: Buffer.from(value), lease },
    }))
    : request.keys.map((key) => ({ request_delete_range: { key: Buffer.from(key) } }));
  for (let at = 0; at < operations.length; at += MAX_OPERATIONS) {
    await etcd.kv.txn({ compare: [], success: operations.slice(at, at + MAX_OPERATIONS) });
  }
}

/** This thread's side of the worker. The library that declares it is not for published packages. */
const worker = globalThis as unknown as {
  onmessage: (event: MessageEvent<WriterRequest>) => void;
  postMessage(answer: WriterAnswer): void;
};

worker.onmessage = async ({ data }) => {
  try {
    await answer(data);
    worker.postMessage({ answeredAtMs: performance.timeOrigin + performance.now() });
  } catch (error) {
    worker.postMessage({ error: String(error) });
  }
};
