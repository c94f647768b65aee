import { EtcdServer } from "../../../tests/support/etcd_server.ts";
import { leaseStoreContract } from "../../../tests/contracts/lease_store.ts";
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
