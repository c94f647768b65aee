import { SqliteStore } from "./mod.ts";
import { leaseStoreContract } from "../../../tests/contracts/lease_store.ts";

const log = { debug() {}, info() {}, warn() {}, error() {} };

leaseStoreContract("sqlite", () => {
  const directory = Deno.makeTempDirSync({ prefix: "denim-test-" });
  const path = `${directory}/denim.db`;
  const hand = SqliteStore.open(path, { log });
  const { signal } = new AbortController();
  return {
    open: (log) => SqliteStore.open(path, { log }),
    put: (leases) => hand.putLeases(leases, signal),
    remove: (keys) => hand.removeLeases(keys, signal),
    async [Symbol.asyncDispose]() {
      await hand[Symbol.asyncDispose]();
      Deno.removeSync(directory, { recursive: true });
    },
  };
});
