/**
 * The agent's answers over HTTP: health and metrics for all who may ask, status and peers for those who may open the
 * agent's socket. Reading only: nothing here steers the node.
 *
 * @module
 */

import {
  type BackendSession,
  expiryMs,
  formatMetrics,
  type Lease,
  METRICS_MEDIA_TYPE,
  type MetricsRegistry,
  type NetworkConfig,
  type OuterInterface,
  STORE_OUTAGE_SECONDS,
} from "@denim/core";
import config from "./deno.json" with { type: "json" };
import { type MeshReport } from "./mesh/mesh_report.ts";
import { isTrouble } from "./mesh/peer_health.ts";
import type { ProbedHalf } from "./mesh/prober.ts";
import type { PacketWay } from "./page/packet_way.ts";
import type { PeerList } from "./peer_list.ts";
import type { RecentLog } from "./recent_log.ts";
import type { Routes } from "./status_server.ts";
import type {
  ClockReport,
  NodeReport,
  PeersReport,
  StatusReport,
  WireguardReport,
} from "./status_report.ts";
import { wireguardPeers, wireguardReports } from "./wireguard_report.ts";

/** A node as those see it who only look. */
export interface NodeView {
  /** The node's lease; `undefined` before it has one. */
  readonly lease: Lease | undefined;
  /** The net-conf that it follows. */
  readonly config: NetworkConfig;
  /** Its data paths, the current one first. */
  readonly paths: readonly {
    /** The kind of network. */
    readonly backend: { readonly type: string };
    /** The backend at work. */
    readonly session: Pick<BackendSession, "mtuBytes" | "nodeState">;
    /** The leases that it knows. */
    readonly peers: { refused(): Iterable<readonly [key: string, reason: string]> };
  }[];
  /** The devices by which pods' packets travel, but for the outer interface. */
  readonly devices: readonly string[];
  /** The interface by which packets to other nodes leave. */
  readonly outer: OuterInterface;
  /** The peers that data paths reach. */
  readonly peers: PeerList;
  /** The way of a packet from a pod here to each half of a peer; `undefined` if there is no such peer. */
  ways(key: string): readonly PacketWay[] | undefined;
  /** How a peer's halves are, in their order; nothing of those that are not probed. */
  health(key: string): readonly (ProbedHalf | undefined)[];
  /** How far this host's clock is ahead of the store's, in milliseconds; `undefined` if the store does not tell. */
  clockAheadMs(signal: AbortSignal): Promise<number | undefined>;
  /** What all nodes together find wrong between them. Rejects with a RuntimeError if the store cannot say. */
  mesh(signal: AbortSignal): Promise<MeshReport>;
}

/** What the agent knows of itself; its parts fill it in. */
export interface AgentState {
  /** Why the node is not ready; `undefined` if it is. */
  unready: string | undefined;
  /** Where leases live; `undefined` while the store is being opened. */
  store: string | undefined;
  /** The node; `undefined` before there is one. */
  node: NodeView | undefined;
  /** When the agent started, in milliseconds since 1970. */
  readonly startedAtMs: number;
  /** What it counts. */
  readonly metrics: MetricsRegistry;
  /** What it said lately. */
  readonly recent: RecentLog;
}

/**
 * `/healthz` and `/readyz` as flannel serves them (503 says in its body why the node is not ready), and `/metrics` for
 * Prometheus.
 */
export function healthRoutes(state: Readonly<Pick<AgentState, "unready" | "metrics">>): Routes {
  return {
    "/healthz": () => new Response("denim is running"),
    "/readyz": () =>
      state.unready === undefined
        ? new Response("denim is ready")
        : new Response(`denim is not ready: ${state.unready}`, { status: 503 }),
    "/metrics": () =>
      new Response(formatMetrics(state.metrics.samples()), {
        headers: { "Content-Type": METRICS_MEDIA_TYPE },
      }),
  };
}

/** How long the store may take to tell of the mesh, or the time. */
const STORE_TIMEOUT_MS = 4_000;

/** All that the agent answers: {@link healthRoutes}, and `/status`, `/peers`, `/mesh` and `/clock` in JSON. */
export function apiRoutes(state: Readonly<AgentState>): Routes {
  const ask = async <Answer>(question: (node: NodeView, signal: AbortSignal) => Promise<Answer>) =>
    state.node === undefined
      ? new Response("the agent is starting", { status: 503 })
      : Response.json(await question(state.node, AbortSignal.timeout(STORE_TIMEOUT_MS)));
  return {
    ...healthRoutes(state),
    "/status": () => Response.json(statusReport(state)),
    "/peers": () => Response.json(peersReport(state.node)),
    "/mesh": () => ask((node, signal) => node.mesh(signal)),
    "/clock": () => ask(clockReport),
  };
}

/** `/status`: this node. */
export function statusReport(state: Readonly<AgentState>): StatusReport {
  const { unready, store, node, startedAtMs, metrics, recent } = state;
  const samples = metrics.samples();
  const outageSeconds = Math.max(
    0,
    ...samples.filter(({ name }) => name === STORE_OUTAGE_SECONDS).map(({ value }) => value),
  );
  const repairs = samples.filter(({ name }) => name === "denim_reconciler_repairs_total")
    .map(({ labels, value }) => [labels.kind!, value] as const);
  return {
    version: config.version,
    ready: unready === undefined,
    unready: unready ?? null,
    startedAt: isoTime(startedAtMs),
    store: {
      description: store ?? null,
      reachable: outageSeconds === 0,
      outageSeconds,
    },
    node: node?.lease === undefined
      ? null
      : nodeReport(node, node.lease, Object.fromEntries(repairs)),
    lately: recent.lines.map(({ atMs, ...line }) => ({ at: isoTime(atMs), ...line })),
  };
}

function nodeReport(node: NodeView, lease: Lease, repairs: NodeReport["repairs"]): NodeReport {
  const { paths, outer, peers, devices } = node;
  const [current, ...former] = paths;
  const endMs = expiryMs(lease.expiry);
  return {
    backend: current!.backend.type,
    formerBackends: former.map(({ backend }) => backend.type),
    devices,
    wireguard: wireguardOf(node),
    mtuBytes: current!.session.mtuBytes,
    networks: node.config.families.map(({ network }) => `${network}`),
    subnets: lease.halves.map(({ subnet }) => `${subnet}`),
    leaseEndsAt: endMs === undefined ? null : isoTime(endMs),
    outer: {
      name: outer.name,
      mtuBytes: outer.mtuBytes,
      publicIps: [...outer.publicIps.values()].map(String),
    },
    peers: { followed: peers.size, refused: refusedOf(node).length, troubled: troubledOf(node) },
    repairs,
  };
}

function wireguardOf({ paths, lease }: NodeView): WireguardReport[] {
  return wireguardReports(paths.flatMap(({ session }) => session.nodeState(lease)));
}

/** How many peers probes find in trouble. */
function troubledOf(node: NodeView): number {
  return [...node.peers].filter(({ key }) =>
    node.health(key).some((half) => half !== undefined && isTrouble(half.health))
  ).length;
}

function refusedOf({ paths }: NodeView): PeersReport["refused"] {
  return paths.flatMap(({ peers }) =>
    [...peers.refused()].map(([key, reason]) => ({ key, reason }))
  );
}

async function clockReport(node: NodeView, signal: AbortSignal): Promise<ClockReport> {
  const aheadMs = await node.clockAheadMs(signal);
  return { aheadSeconds: aheadMs === undefined ? null : aheadMs / 1000 };
}

function peersReport(node: NodeView | undefined): PeersReport {
  if (node === undefined) return { peers: [], refused: [] };
  // Many peers share their times, and there may be thousands of peers.
  const times = new Map<number, string>();
  const time = (ms: number) => {
    let text = times.get(ms);
    if (text === undefined) times.set(ms, text = isoTime(ms));
    return text;
  };
  const spoken = wireguardPeers(wireguardOf(node));
  return {
    peers: [...node.peers].flatMap(({ key, way, halves, changedAtMs }) => {
      const probed = node.health(key);
      return halves.map(({ subnet, publicIp, device, isDirect }, index) => {
        const half = probed[index];
        return {
          subnet: `${subnet}`,
          publicIp: `${publicIp}`,
          backend: way.backend,
          device: device ?? null,
          direct: isDirect,
          changedAt: time(changedAtMs),
          wireguard: spoken.get(`${subnet}`) ?? null,
          health: half?.health ?? null,
          healthSince: half === undefined ? null : time(half.sinceMs),
          roundTripMs: half?.roundTripMs === undefined ? null : toMicroseconds(half.roundTripMs),
          loss: half?.loss ?? null,
          pathMtuBytes: half?.pathMtuBytes ?? null,
        };
      });
    }),
    refused: refusedOf(node),
  };
}

/** Milliseconds without what no clock of a probe tells. */
function toMicroseconds(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}
