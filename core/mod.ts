/**
 * denim's vocabulary: what a backend, a store, the agent and their tests name in their own interfaces. Almost all of it
 * is values and functions of their arguments alone; what waits takes an `AbortSignal`, and nothing here touches the
 * kernel, the network or a file.
 *
 * A program that must start fast imports single modules instead (`@denim/core/ip`, `@denim/core/errors` …): this one
 * loads zod.
 *
 * @module
 */

// Addresses.
export {
  addressBits,
  Cidr,
  FAMILIES,
  type Family,
  IpAddress,
  MAX_PACKET_BYTES,
  MIN_MTU_BYTES,
} from "./ip.ts";
export { MacAddress } from "./mac.ts";

// The cluster's configuration, and what a node says of itself to the CNI plugin.
export {
  anyCase,
  type FamilyConfig,
  fitsConfig,
  type NetworkConfig,
  networksOf,
  parseNetworkConfig,
  readConfig,
  withinNetworks,
  WRITE_NET_CONF,
} from "./net_conf.ts";
export {
  DEFAULT_SUBNET_FILE,
  formatSubnetEnv,
  parseSubnetEnv,
  type SubnetEnv,
  type SubnetEnvHalf,
} from "./subnet_env.ts";

// Leases, where they live, and which subnets hosts are in.
export * from "./host_network.ts";
export * from "./routable_leases.ts";
export * from "./lease.ts";
export * from "./lease_policy.ts";
export * from "./lease_reader.ts";
export * from "./lease_store.ts";
export { usually } from "./usual.ts";
export * from "./store_metrics.ts";
export * from "./stored_net_conf.ts";

// Backends, and the peers that they reach.
export {
  type Backend,
  type BackendSession,
  directRoute,
  type KernelReader,
  type NodeContext,
  type NodeNeeds,
  type OuterInterface,
  outerMtuBytes,
  type Peer,
  type PeerHalf,
  subnetRoute,
  tunnelMtuBytes,
  tunPeerState,
  tunState,
  wholeNetworkState,
} from "./backend.ts";
export { NodeScope } from "./node_scope.ts";
export { type PeerChanges, PeerTable } from "./peer_table.ts";

// What the kernel should look like.
export * from "./kernel_state.ts";
export { parseWireguardKey, WireguardSecret } from "./wireguard_key.ts";

// Much that is alike, in little memory.
export { type PackedRow, PackedRows } from "./packed_rows.ts";
export { NO_ROW, RowIndex, withRoom } from "./row_index.ts";

// What goes wrong, and how it is told and counted.
export * from "./errors.ts";
export { Complaints } from "./complaints.ts";
export { type Log, type LogFields, type Logger } from "./log.ts";
export {
  type Counter,
  type Histogram,
  type Labels,
  type Metrics,
  MetricsRegistry,
  NO_METRICS,
  type Sample,
} from "./metrics.ts";
export { formatMetrics, METRICS_MEDIA_TYPE } from "./metrics_text.ts";
export { Outage, OutageCount } from "./outage.ts";

// Waiting.
export { Backoff, type BackoffOptions } from "./backoff.ts";
export { type Clock, clockAheadMs, SYSTEM_CLOCK } from "./clock.ts";
export { EventCounter } from "./event_counter.ts";
export { MAX_SLEEP_MS, msToTick, sleep } from "./sleep.ts";
