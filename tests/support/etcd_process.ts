/**
 * For etcd_load_test.ts: a process of its own that uses a store, `etcd_process.ts URL FROM COUNT`. It prints
 * "ready" when the store is open and waits for a line on its standard input. Then it leases subnets to
 * COUNT nodes, all at once, and prints each key or error.
 *
 * @module
 */

import { type Family, IpAddress, messageOf } from "@denim/core";
import { EtcdStore } from "@denim/core/stores/etcd";

const [url, from, count] = [Deno.args[0]!, Number(Deno.args[1]), Number(Deno.args[2])];
const { signal } = new AbortController();
const log = { debug() {}, info() {}, warn: console.error, error: console.error };
await using store = EtcdStore.open({ endpoints: [url], prefix: "/coreos.com/network", log });
await store.networkConfig(signal);
console.log("ready");
await Deno.stdin.read(new Uint8Array(1));
await Promise.all(Array.from({ length: count }, async (_, index) => {
  const number = BigInt(from + index);
  const request = {
    publicIps: new Map<Family, IpAddress>([
      [4, new IpAddress(4, 0x0a63_0000n + number)],
      [6, new IpAddress(6, IpAddress.parse("fd99::").value + number)],
    ]),
    previousSubnets: [],
    backendType: "vxlan",
    backendData: new Map(),
  };
  console.log(await store.acquire(request, signal).then(({ key }) => key, messageOf));
}));
