/**
 * What carries pods' packets between nodes.
 *
 * @module
 */

import type { ZodType } from "zod";
import { ConfigError } from "./errors.ts";
import { addressBits, type Cidr, type Family, type IpAddress, MIN_MTU_BYTES } from "./ip.ts";
import { type KernelState, nexthopId } from "./kernel_state.ts";
import { type Lease, leaseHalf } from "./lease.ts";
import type { Logger } from "./log.ts";
import type { MacAddress } from "./mac.ts";
import type { Metrics } from "./metrics.ts";
import type { NetworkConfig } from "./net_conf.ts";
import type { NodeScope } from "./node_scope.ts";

/** The device of this node that its packets to other nodes leave by. */
export interface OuterInterface {
  /** The device's name. */
  readonly name: string;
  /** The largest IP packet that it takes, in bytes: its MTU, but at most {@link MAX_PACKET_BYTES}. */
  readonly mtuBytes: number;
  /** The device's own address, one for each enabled family. */
  readonly addresses: ReadonlyMap<Family, IpAddress>;
  /** Where the other nodes reach this one; differs from `addresses` behind NAT (`--public-ip`). */
  readonly publicIps: ReadonlyMap<Family, IpAddress>;
}

/** What a backend may ask the kernel. Answers only: changes are the reconciler's. */
export interface KernelReader {
  /** The Ethernet address of a device; `undefined` where there is no such device. */
  macOf(device: string): MacAddress | undefined;
  /** Whether there is such a device. */
  hasDevice(device: string): boolean;
  /**
   * The device by which the kernel would send a packet to an address now, and the gateway, `undefined`
   * where the address is on the link. `undefined` where there is no route.
   */
  routeTo(
    address: IpAddress,
  ): { readonly device: string; readonly gateway: IpAddress | undefined } | undefined;
}

/** What a backend is given when it starts on a node. */
export interface NodeContext {
  /** The cluster's net-conf. */
  readonly config: NetworkConfig;
  /** The device that packets to other nodes leave by. */
  readonly outer: OuterInterface;
  /** The lease that this node holds from an earlier run, so that it can go on as it was. */
  readonly held: Lease | undefined;
  /** Questions to the kernel. */
  readonly kernel: KernelReader;
  /** Where the backend says what it does. */
  readonly log: Logger;
  /** Where the backend counts what it does. */
  readonly metrics: Metrics;
  /** What one session leaves to the next on this node. */
  readonly scope: NodeScope;
  /** Aborted when the node stops: every wait of the backend ends with it. */
  readonly signal: AbortSignal;
  /**
   * Ends the node with an error of work that nobody waits for: a defect, or a `RuntimeError` if the node can't
   * go on. What is in the kernel stays.
   */
  readonly fail: (error: unknown) => void;
}

/** One family's half of a peer: its subnet, and where and how to reach it. */
export interface PeerHalf<PeerData> {
  /** The subnet that the peer's pods have their addresses from. */
  readonly subnet: Cidr;
  /** The peer's address on the underlay. */
  readonly publicIp: IpAddress;
  /** What the peer published, read and checked. */
  readonly data: PeerData;
}

/** Another node, with what its backend published for each family. */
export interface Peer<PeerData> {
  /** The key of its lease. */
  readonly key: string;
  /** One half for each family of its lease. */
  readonly halves: readonly PeerHalf<PeerData>[];
}

/** A kind of network between nodes, as net-conf's `Backend.Type` names it. */
export interface Backend<Options = unknown, PeerData = unknown> {
  /** What `Backend.Type` in net-conf says: "vxlan". */
  readonly type: string;
  /** What `BackendType` in leases says: the type, but "" for those that flannel writes without one. */
  readonly leaseType: string;
  /** Reads net-conf's `Backend` object, whose keys come in any case; see `anyCase`. */
  readonly options: ZodType<Options>;
  /** Reads a half's `BackendData`. A lease that it refuses is no peer of ours. */
  readonly peerData: ZodType<PeerData>;
  /**
   * Starts the backend on this node. It asks the kernel, but changes nothing in it. Rejects with a
   * `ConfigError` or `RuntimeError`.
   */
  open(node: NodeContext, options: Options): Promise<BackendSession<PeerData>>;
}

/**
 * A backend at work on a node. `nodeState` and `peerState` are pure: the same arguments, the same kernel state,
 * so that a backend is tested by a table. They are apart so that the news of one peer costs the work
 * of one peer, however many there are.
 *
 * It is disposed of when the node stops, and when the node goes on without it: then before a session of
 * the same backend with other options is opened, else once it reaches no peer any more.
 */
export interface BackendSession<PeerData = unknown> extends AsyncDisposable {
  /** The largest packet that a pod may send, in bytes. */
  readonly mtuBytes: number;
  /** What this node publishes with its lease, one value a family; empty where it has nothing to say. */
  readonly publishes: ReadonlyMap<Family, PeerData>;
  /**
   * What the node itself needs; without a lease, what can be there before there is one. The devices in
   * it are denim's own: what others put on them goes.
   */
  nodeState(own: Lease | undefined): KernelState;
  /** What one peer adds. */
  peerState(peer: Peer<PeerData>): KernelState;
  /**
   * What a peer publishes that this node must have alone, as a cloned machine's does: "VTEP MAC 02:…".
   * Such a peer is not followed.
   */
  conflict?(peer: Peer<PeerData>): string | undefined;
  /**
   * Whether `peerState` depends on what `routeTo` says of the underlay. If it does, `peerState` is asked again
   * of every peer when the underlay's routes or devices change.
   */
  readonly followsUnderlay?: boolean;
  /**
   * For what has to happen once the node holds its lease and what `nodeState` asked for is there, before any
   * peer is reached. Rejects with a `RuntimeError` where the node can't go on without it.
   */
  onLeased?(own: Lease): Promise<void>;
  /** For data paths in user space: the peers that are new or other than before, and those that left. */
  peersChanged?(put: Iterable<Peer<PeerData>>, removed: Iterable<string>): void;
}

/**
 * The route to a peer's subnet straight by the peer's own address, without a tunnel; `undefined` where
 * the kernel would not send a packet for that address onto the outer device's own link, so that a router
 * in between, which knows nothing of pods, would have to carry them.
 */
export function directRoute(
  { kernel, outer }: Pick<NodeContext, "kernel" | "outer">,
  { subnet, publicIp }: Pick<PeerHalf<unknown>, "subnet" | "publicIp">,
): KernelState | undefined {
  const way = kernel.routeTo(publicIp);
  if (way?.device !== outer.name || way.gateway !== undefined) return undefined;
  const id = nexthopId(subnet);
  return [
    { kind: "nexthop", id, device: outer.name, via: publicIp },
    { kind: "route", destination: subnet, nexthopId: id },
  ];
}

/** Room for what comes while the program that reads a TUN device has no processor. */
const TUN_QUEUE_LENGTH = 1000;

/**
 * What a node needs whose packets to all others go by one TUN device: the device, and with a lease, in each
 * family, its address and the one route for the whole network.
 *
 * @param name the device's name, at most 15 octets
 * @param mtuBytes the largest packet that a pod may send
 * @param own the node's lease
 */
export function tunState(
  { config }: Pick<NodeContext, "config">,
  { name, mtuBytes }: { readonly name: string; readonly mtuBytes: number },
  own: Lease | undefined,
): KernelState {
  const info = { type: "tun", queueLength: TUN_QUEUE_LENGTH } as const;
  return [
    { kind: "link", name, mtuBytes, info },
    ...config.families.flatMap(({ family, network }): KernelState => {
      const source = own && leaseHalf(own, family)?.subnet.address;
      if (source === undefined) return [];
      // A host's prefix: it names a source for the node's own packets, and makes no route.
      const prefixLength = addressBits(family);
      return [
        { kind: "address", device: name, address: source, prefixLength },
        { kind: "route", destination: network, device: name, source },
      ];
    }),
  ];
}

/**
 * The MTU of the outer network: net-conf's `Backend.MTU`, but no more than the outer device carries. If net-conf asks
 * for more, the log says so: one smaller device must not stop a node.
 *
 * @param asked `Backend.MTU`; 0 stands for the outer device's
 */
export function outerMtuBytes(
  { outer, log }: Pick<NodeContext, "outer" | "log">,
  asked: number,
): number {
  if (asked > outer.mtuBytes) {
    log.warn(
      "mtu-lowered",
      `net-conf's Backend.MTU is ${asked}, but device ${outer.name} carries packets of at most ` +
        `${outer.mtuBytes} bytes; this node uses ${outer.mtuBytes}`,
    );
    return outer.mtuBytes;
  }
  return asked || outer.mtuBytes;
}

/**
 * What a tunnel leaves of the outer MTU for a pod's packet. Throws a `ConfigError` if that is too little for the
 * family.
 *
 * @param backend the backend's type, for the message
 * @param outerBytes the outer MTU; see {@link outerMtuBytes}
 * @param overheadBytes what the tunnel adds to a packet
 */
export function tunnelMtuBytes(
  backend: string,
  outerBytes: number,
  overheadBytes: number,
  family: Family,
): number {
  const bytes = outerBytes - overheadBytes;
  const least = MIN_MTU_BYTES[family];
  if (bytes < least) {
    throw new ConfigError(
      `${backend}: an outer MTU of ${outerBytes} leaves ${bytes} bytes for pods' IPv${family} packets, ` +
        `fewer than ${least}; raise the MTU of the outer device or net-conf's Backend.MTU`,
    );
  }
  return bytes;
}
