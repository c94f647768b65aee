/**
 * What an agent says of itself and of its peers over its API, in JSON. Times are ISO 8601 in UTC.
 *
 * @module
 */

import type { Health } from "./mesh/peer_health.ts";

/** Where the agent serves its API, unless it is told otherwise. */
export const DEFAULT_API_SOCKET = "/run/denim/agent.sock";

/** `/status`: this node. */
export interface StatusReport {
  /** denim's version. */
  readonly version: string;
  /** Whether pods can be attached. */
  readonly ready: boolean;
  /** Why not; `null` if they can. */
  readonly unready: string | null;
  /** When the agent started. */
  readonly startedAt: string;
  /** Where leases live. */
  readonly store: {
    /** Its kind and place; `null` while it is being opened. */
    readonly description: string | null;
    /** Whether it can be used. */
    readonly reachable: boolean;
    /** For how long it could not, in seconds; 0 if it can. */
    readonly outageSeconds: number;
  };
  /** The node; `null` before it has its lease and its data path. */
  readonly node: NodeReport | null;
  /** The latest warnings and errors, the oldest first: what was mended, what failed. */
  readonly lately: readonly {
    /** When it was said last. */
    readonly at: string;
    /** `warn` or `error`. */
    readonly level: string;
    /** The event's name, as in the log. */
    readonly event: string;
    /** The sentence. */
    readonly message: string;
    /** How often in a row. */
    readonly times: number;
  }[];
}

/** `/clock`: what time it is where leases live. */
export interface ClockReport {
  /** How far this host's clock is ahead, in seconds; `null` if the store tells no time. */
  readonly aheadSeconds: number | null;
}

/** A node that has its lease. */
export interface NodeReport {
  /** The type of the backend that carries pods' packets. */
  readonly backend: string;
  /** The types of backends that the cluster is changing from, which still reach some peers. */
  readonly formerBackends: readonly string[];
  /** The devices by which pods' packets travel, but for the outer interface. */
  readonly devices: readonly string[];
  /** Those of them that are WireGuard's. */
  readonly wireguard: readonly WireguardReport[];
  /** The largest packet that a pod may send, in bytes. */
  readonly mtuBytes: number;
  /** The cluster's networks. */
  readonly networks: readonly string[];
  /** This node's subnets, one a family. */
  readonly subnets: readonly string[];
  /** When the lease ends unless it is renewed; `null` if it never does, or that is not known. */
  readonly leaseEndsAt: string | null;
  /** The interface by which packets to other nodes leave. */
  readonly outer: {
    /** Its name. */
    readonly name: string;
    /** The largest packet that it takes, in bytes. */
    readonly mtuBytes: number;
    /** The addresses at which other nodes reach this one. */
    readonly publicIps: readonly string[];
  };
  /** Numbers of other nodes. */
  readonly peers: {
    /** Those that a data path reaches. */
    readonly followed: number;
    /** Those that this node does not follow. */
    readonly refused: number;
    /** Those that probes find in trouble. */
    readonly troubled: number;
  };
  /** How often others changed the kernel's state and denim put it right, by kind of object. */
  readonly repairs: Readonly<Record<string, number>>;
}

/** A device of WireGuard's. */
export interface WireguardReport {
  /** Its name. */
  readonly device: string;
  /** Whose it is: `kernel`, or the program's that made it, such as `wireguard-go`. */
  readonly by: string;
  /** The UDP port on which it is to listen. */
  readonly listenPort: number;
}

/** `/peers`: the other nodes. */
export interface PeersReport {
  /** Those that a data path reaches. */
  readonly peers: readonly PeerReport[];
  /** Leases that this node does not follow, and why. */
  readonly refused: readonly { readonly key: string; readonly reason: string }[];
}

/** How another node is, as probes over the data path show; all `null` if it is not probed. */
export interface PeerHealthReport {
  /** `ok`, `unknown`, or what the trouble is; `null` if the peer is not probed. */
  readonly health: Health | null;
  /** Since when. */
  readonly healthSince: string | null;
  /** How long an answer takes, in milliseconds; `null` before the first one. */
  readonly roundTripMs: number | null;
  /** Which share of the latest probes was lost, from 0 to 1; `null` before the first one. */
  readonly loss: number | null;
  /** The largest packet that reaches it, in bytes; `null` if that is not known. */
  readonly pathMtuBytes: number | null;
}

/** One family's half of another node. */
export interface PeerReport extends PeerHealthReport {
  /** The subnet of its pods. */
  readonly subnet: string;
  /** Its address on the underlay. */
  readonly publicIp: string;
  /** The type of the backend that reaches it. */
  readonly backend: string;
  /** The device by which packets to its subnet leave; `null` if they have no route of their own. */
  readonly device: string | null;
  /** Whether they go to its own address, without a tunnel. */
  readonly direct: boolean;
  /** When it came, published something else, or began to be reached in another way. */
  readonly changedAt: string;
  /** What WireGuard says of it; `null` if it is not WireGuard that reaches it. */
  readonly wireguard: WireguardPeerReport | null;
}

/** A peer of a device of WireGuard's. */
export interface WireguardPeerReport {
  /** Where its packets go now: `10.99.0.2:51820`; `null` if that is not known. */
  readonly endpoint: string | null;
  /** When the two agreed on keys the last time; `null` if they never did. */
  readonly handshakeAt: string | null;
  /** How much came from it, headers included, in bytes. */
  readonly receivedBytes: number;
  /** How much went to it, headers included, in bytes. */
  readonly sentBytes: number;
}
