/**
 * The cluster's store: leases in etcd, with flannel's keys and values, so that denim's and flannel's nodes
 * share one cluster.
 *
 * @module
 */

export { EtcdStore, type EtcdStoreOptions } from "./etcd_store.ts";
export type { CreateEtcd3 } from "./etcd3.ts";
export type { SettingNames, TlsFiles } from "./tls.ts";
