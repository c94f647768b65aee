/**
 * denim's vocabulary: addresses, net-conf, leases, peers, kernel state, and the two interfaces that
 * everything swappable stands behind, `LeaseStore` and `Backend`. Pure: no I/O, no clock of its own.
 *
 * @module
 */

export * from "./backend.ts";
export * from "./backoff.ts";
export * from "./complaints.ts";
export * from "./errors.ts";
export * from "./event_counter.ts";
export * from "./ip.ts";
export * from "./kernel_state.ts";
export * from "./lease.ts";
export * from "./lease_policy.ts";
export * from "./lease_reader.ts";
export * from "./lease_store.ts";
export * from "./log.ts";
export * from "./mac.ts";
export * from "./metrics.ts";
export * from "./net_conf.ts";
export * from "./outage.ts";
export * from "./peer_table.ts";
export * from "./sleep.ts";
export * from "./store_metrics.ts";
export * from "./stored_net_conf.ts";
export * from "./subnet_allocator.ts";
export * from "./subnet_env.ts";
