import { EtcdServer } from "../../../tests/support/etcd_server.ts";
import { leaseStoreContract } from "../../../tests/contracts/lease_store.ts";
import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { NEVER } from "../../../tests/support/wait.ts";
import { expiryMs, formatLeaseValue, type Lease } from "../../mod.ts";
import { EtcdStore } from "./mod.ts";

const PREFIX = "/coreos.com/network";

/** etcd's limit for one transaction. */
const MAX_TXN_OPS = 128;

/** Writes leases with etcdctl, as a person would: those with an end under one etcd lease. */
function put(server: EtcdServer, leases: readonly Lease[]): void {
  const ends = leases.flatMap(({ expiry }) => expiryMs(expiry) ?? []);
  const id = ends.length > 0
    ? server.grant(Math.round((Math.min(...ends) - Date.now()) / 1000))
    : undefined;
  for (let at = 0; at < leases.length; at += MAX_TXN_OPS) {
    const puts = leases.slice(at, at + MAX_TXN_OPS).map((lease) => {
      const under = lease.expiry === "never" ? "" : ` --lease=${id}`;
      return `put ${PREFIX}/subnets/${lease.key} ${
        JSON.stringify(formatLeaseValue(lease))
      }${under}`;
    });
    server.txn(puts);
  }
}

leaseStoreContract("etcd", async () => {
  const server = await EtcdServer.start();
  return {
    open: (log) => EtcdStore.open({ endpoints: [server.url], prefix: PREFIX, log }),
    put: (leases) => Promise.resolve(put(server, leases)),
    remove: (keys) => {
      for (const key of keys) server.ctl("del", `${PREFIX}/subnets/${key}`);
      return Promise.resolve();
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
});

Deno.test("etcd tells the time by HTTP; one that does not, or is away, is none that is wrong", async () => {
  const aheadMs = async (endpoint: string) => {
    await using store = EtcdStore.open({
      endpoints: [endpoint],
      prefix: PREFIX,
      log: new RecordingLog(),
    });
    return await store.clockAheadMs(NEVER);
  };
  await using server = await EtcdServer.start();
  assert.ok(Math.abs((await aheadMs(server.url))!) < 3_000);
  await server.stop();
  assert.equal(await aheadMs(server.url), undefined);
  const date = new Date(Date.now() + 3_600_000).toUTCString();
  let status = 200;
  await using other = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    () => new Response("", { status, headers: { date } }),
  );
  const url = `http://127.0.0.1:${other.addr.port}`;
  assert.ok(Math.abs((await aheadMs(url))! + 3_600_000) < 3_000);
  status = 404;
  assert.equal(await aheadMs(url), undefined);
});
