/**
 * Opens the store that flags name, and loads no other.
 *
 * @module
 */

import type { LeaseAdmin, LeaseStore, Logger } from "@denim/core";
import type { StoreSpec } from "./flags.ts";

/**
 * Opens a store. Throws a ConfigError or a RuntimeError where it can't be used.
 *
 * @param patient whether to wait for a store that does not answer, rather than to reject
 */
export async function openStore(
  spec: StoreSpec,
  log: Logger,
  { patient }: { readonly patient: boolean },
): Promise<LeaseStore & LeaseAdmin> {
  if (spec.kind === "sqlite") {
    const { SqliteStore } = await import("@denim/core/stores/sqlite");
    return SqliteStore.open(spec.path, { log, patient });
  }
  const { EtcdStore } = await import("@denim/core/stores/etcd");
  return EtcdStore.open({ ...spec, log, patient, names: ETCD_FLAGS });
}

/** How messages of the etcd store name what flags give it. */
const ETCD_FLAGS = {
  caFile: "--etcd-cafile",
  certFile: "--etcd-certfile",
  keyFile: "--etcd-keyfile",
  username: "--etcd-username",
  password: "--etcd-password",
};
