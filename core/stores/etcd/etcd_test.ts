import { EtcdServer } from "../../../tests/support/etcd_server.ts";
import { leaseStoreContract } from "../../../tests/contracts/lease_store.ts";
import { formatLeaseValue, type Lease } from "../../mod.ts";
import { EtcdStore } from "./mod.ts";

const PREFIX = "/coreos.com/network";

/** Writes leases with etcdctl, as a person would. */
function put(server: EtcdServer, leases: readonly Lease[]): void {
  for (const lease of leases) {
    const args = [`${PREFIX}/subnets/${lease.key}`, formatLeaseValue(lease)];
    if (lease.expiresAtMs !== undefined) {
      const seconds = Math.round((lease.expiresAtMs - Date.now()) / 1000);
      const [id] = /[0-9a-f]{16}/.exec(server.ctl("lease", "grant", `${seconds}`))!;
      args.push("--lease", id);
    }
    server.ctl("put", ...args);
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
