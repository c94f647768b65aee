/**
 * What a backend is given when it starts on a node, for its tests.
 *
 * @module
 */

import {
  type Family,
  IpAddress,
  MetricsRegistry,
  type NodeContext,
  NodeScope,
  parseNetworkConfig,
} from "@denim/core";

import { RecordingLog } from "./recording_log.ts";
import { NEVER } from "./wait.ts";

/** A {@link NodeContext} that a test can look into. */
export interface TestNodeContext extends NodeContext {
  /** What was said. */
  readonly log: RecordingLog;
  /** What was counted. */
  readonly metrics: MetricsRegistry;
  /** What the node was ended with, in order. */
  readonly failures: unknown[];
}

/** What a test has otherwise. */
export interface NodeContextChanges
  extends Partial<Pick<NodeContext, "held" | "signal" | "scope" | "overlapsHosts">> {
  /** net-conf's keys, beside `Network`. */
  readonly netConf?: Readonly<Record<string, unknown>>;
  /** What the outer interface is like. */
  readonly outer?: Partial<NodeContext["outer"]>;
  /** What the kernel answers; it knows nothing unless given. */
  readonly kernel?: Partial<NodeContext["kernel"]>;
}

/** The first node of a cluster with the network 10.5.0.0/16, at 10.99.0.1 and fd99::1 on its device eth0. */
export function nodeContext(changes: NodeContextChanges = {}): TestNodeContext {
  const { netConf, outer, kernel, held, signal = NEVER, scope = new NodeScope() } = changes;
  const { overlapsHosts = false } = changes;
  const addresses = new Map<Family, IpAddress>([
    [4, IpAddress.parse("10.99.0.1")],
    [6, IpAddress.parse("fd99::1")],
  ]);
  const failures: unknown[] = [];
  return {
    config: parseNetworkConfig(JSON.stringify({ Network: "10.5.0.0/16", ...netConf })),
    outer: { name: "eth0", mtuBytes: 1500, addresses, publicIps: addresses, ...outer },
    overlapsHosts,
    held,
    kernel: {
      macOf: () => undefined,
      hasDevice: () => false,
      routeTo: () => undefined,
      ...kernel,
    },
    log: new RecordingLog(),
    metrics: new MetricsRegistry(),
    scope,
    signal,
    fail: (error) => void failures.push(error),
    failures,
  };
}
