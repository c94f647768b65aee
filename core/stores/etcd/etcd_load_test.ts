/** Many nodes at once, and many leases. */

import { Etcd3 } from "etcd3";
import assert from "node:assert/strict";
import { node } from "../../../tests/contracts/lease_store.ts";
import { EtcdServer } from "../../../tests/support/etcd_server.ts";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { StoreProcess } from "../../../tests/support/store_process.ts";
import { parseLeaseKey } from "../../mod.ts";
import { type CreateEtcd3, EtcdStore } from "./mod.ts";
import { NEVER } from "../../../tests/support/wait.ts";

const PREFIX = "/coreos.com/network";
const PROCESSES = 8;
const NODES = 200;

function open(server: EtcdServer, log = new RecordingLog()): EtcdStore {
  return EtcdStore.open({ endpoints: [server.url], prefix: PREFIX, log });
}

/** Runs the processes, which all begin at once, and returns the lines that they print. */
async function race(server: EtcdServer): Promise<string[]> {
  const script = new URL("../../../tests/support/etcd_process.ts", import.meta.url);
  const each = NODES / PROCESSES;
  await using stack = new AsyncDisposableStack();
  const processes = Array.from(
    { length: PROCESSES },
    (_, index) => stack.use(new StoreProcess(script, server.url, index * each, each)),
  );
  for (const process of processes) await process.ready();
  for (const process of processes) await process.go();
  return (await Promise.all(processes.map((process) => process.rest()))).flat();
}

for (
  const [name, netConf] of [
    ["", { Network: "10.5.0.0/16" }],
    [" of both families", {
      Network: "10.5.0.0/16",
      EnableIPv6: true,
      IPv6Network: "fc00:5::/48",
      IPv6SubnetLen: 56,
    }],
  ] as const
) {
  Deno.test(`200 nodes of 8 processes get 200 different subnets${name} of 255`, async () => {
    await using server = await EtcdServer.start();
    await using store = open(server);
    await store.setNetworkConfig(JSON.stringify(netConf), { ifAbsent: true }, NEVER);
    const startMs = performance.now();
    const keys = await race(server);
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
    for (const family of name === "" ? [4] : [4, 6]) {
      const subnets = keys.map((key) =>
        `${parseLeaseKey(key)?.find((subnet) => subnet.family === family)}`
      );
      assert.equal(new Set(subnets).size, NODES, `IPv${family}: ${keys.join("\n")}`);
      assert.ok(!subnets.includes("undefined"), keys.join("\n"));
    }
    assert.equal((await store.leases(NEVER)).length, NODES);
    console.log(`etcd: ${NODES} nodes of ${PROCESSES} processes${name}: ${seconds} s`);
  });
}

/** Puts so many leases of 10.0.0.0/8 into etcd, all under one etcd lease. */
function fill(server: EtcdServer, count: number): void {
  const id = server.grant(3_600);
  const puts = Array.from({ length: count }, (_, n) => {
    const value = `{"PublicIP":"172.${16 + (n >> 16)}.${n >> 8 & 255}.${n & 255}",` +
      `"PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"0a:00:00:` +
      `${
        [n >> 16, n >> 8 & 255, n & 255].map((byte) => byte.toString(16).padStart(2, "0")).join(":")
      }"}}`;
    return `put ${PREFIX}/subnets/10.${(n + 1) >> 8}.${(n + 1) & 255}.0-24 ` +
      `${JSON.stringify(value)} --lease=${id}`;
  });
  for (let at = 0; at < puts.length; at += 128) server.txn(puts.slice(at, at + 128));
}

/** What a start asks of etcd: by kind, the number of requests. */
async function requests(server: EtcdServer): Promise<Record<string, number>> {
  const count = async (method: string) =>
    await server.metric("grpc_server_started_total", new RegExp(`grpc_method="${method}"`));
  const methods = ["Range", "LeaseTimeToLive", "LeaseLeases", "LeaseGrant", "Txn", "Watch"];
  return Object.fromEntries(
    await Promise.all(
      methods.map(async (method) => [method, await count(method)]),
    ),
  );
}

Deno.test("a start among N leases costs requests that grow by their pages alone", async () => {
  const seen: Record<number, Record<string, number>> = {};
  for (const leases of [100, 10_000]) {
    await using server = await EtcdServer.start();
    {
      await using store = open(server);
      await store.setNetworkConfig(
        '{"Network":"10.0.0.0/8","SubnetLen":24}',
        { ifAbsent: true },
        NEVER,
      );
    }
    fill(server, leases);
    const before = await requests(server);
    await using store = open(server);
    const ending = new AbortController();
    const startMs = performance.now();
    await store.networkConfig(NEVER);
    await store.held(node(1), NEVER);
    await store.acquire(node(1), NEVER);
    for await (const event of store.watch(ending.signal)) {
      assert.ok(event.kind === "snapshot");
      assert.equal(event.leases.length, leases + 1);
      break;
    }
    const tookMs = performance.now() - startMs;
    const after = await requests(server);
    seen[leases] = Object.fromEntries(
      Object.entries(after).map(([method, count]) => [method, count - before[method]!]),
    );
    console.log(`etcd: a start among ${leases} leases: ${tookMs.toFixed(0)} ms`, seen[leases]);
  }
  const { Range: few, ...rest } = seen[100]!;
  const { Range: many, ...same } = seen[10_000]!;
  assert.deepEqual(same, rest);
  // One reading of all: five pages of 2,000 rather than one.
  assert.equal(many! - few!, 4, `${many} and ${few} readings`);
  assert.ok(few! <= 8 && rest["LeaseTimeToLive"]! <= 1, JSON.stringify(seen[100]));
});

Deno.test("a listing whose revision is compacted between two pages is read again", async () => {
  await using server = await EtcdServer.start();
  fill(server, 4_500);
  let pages = 0;
  const createEtcd3: CreateEtcd3 = (options) => {
    const etcd = new Etcd3(options);
    const range = etcd.kv.range.bind(etcd.kv);
    etcd.kv.range = async (request, options) => {
      const page = await range(request, options);
      if (++pages !== 1) return page;
      server.ctl("put", `${PREFIX}/subnets/10.200.0.0-24`, '{"PublicIP":"10.99.0.200"}');
      server.ctl("del", `${PREFIX}/subnets/10.0.1.0-24`);
      server.ctl("compact", `${server.revision()}`);
      return page;
    };
    return etcd;
  };
  await using store = EtcdStore.open({
    endpoints: [server.url],
    prefix: PREFIX,
    log: new RecordingLog(),
    createEtcd3,
  });
  for await (const event of store.watch(NEVER)) {
    assert.ok(event.kind === "snapshot");
    const keys = new Set(event.leases.map(({ key }) => key));
    assert.equal(event.leases.length, 4_500);
    assert.ok(keys.has("10.200.0.0-24") && !keys.has("10.0.1.0-24"), "all of one revision");
    break;
  }
  // One page in vain, then a refusal, then three.
  assert.equal(pages, 4);
});

Deno.test("60,000 leases are read in pages", async () => {
  await using server = await EtcdServer.start();
  fill(server, 60_000);
  await using store = open(server);
  const before = await requests(server);
  const startMs = performance.now();
  for await (const event of store.watch(NEVER)) {
    assert.ok(event.kind === "snapshot");
    assert.equal(new Set(event.leases.map(({ key }) => key)).size, 60_000);
    break;
  }
  const tookMs = performance.now() - startMs;
  const after = await requests(server);
  assert.equal(after["Range"]! - before["Range"]!, 30);
  console.log(`etcd: 60,000 leases read in ${tookMs.toFixed(0)} ms`);
});
