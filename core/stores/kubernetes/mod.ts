/**
 * Kubernetes as the store: a node's podCIDRs are its lease, and its annotations, flannel's, what others know
 * of it, so that denim's and flannel's nodes share one cluster.
 *
 * @module
 */

export { DEFAULT_PREFIX } from "./annotations.ts";
export { KubernetesStore, type KubernetesStoreOptions } from "./kubernetes_store.ts";
export type { Resolve } from "./open_transport.ts";
