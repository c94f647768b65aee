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

/** The device by which this node's packets to other nodes leave. */
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

/** What a backend may ask the kernel. It changes nothing: that is the reconciler's part. */
export interface KernelReader {
  /** The Ethernet address of a device; `undefined` if there is no such device. */
  macOf(device: string): MacAddress | undefined;
  /** Whether there is such a device. */
  hasDevice(device: string): boolean;
  /**
   * How the kernel would send a packet to an address now: by which device, and by which gateway, which is `undefined` if
   * the address is on the link. `undefined` if there is no route.
   */
  routeTo(
    address: IpAddress,
  ): { readonly device: string; readonly gateway: IpAddress | undefined } | undefined;
}

/** What a backend is given when it starts on a node. */
export interface NodeContext {
  /** The cluster's net-conf. */
  readonly config: NetworkConfig;
  /** The device by which packets to other nodes leave. */
  readonly outer: OuterInterface;
  /** Whether the pods' networks overlap that of the hosts: then a route to a whole network would take hosts' packets. */
  readonly overlapsHosts: boolean;
  /** The lease that this node certainly held in its last run, so that it can go on as it was. */
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
  /** The subnet of the peer's pods. */
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

/** What a backend has of a node before the node has a lease. */
export interface NodeNeeds {
  /** What the kernel has then: a session's `nodeState` without a lease. */
  readonly state: KernelState;
  /** The UDP port on which the agent itself listens; none unless given. */
  readonly udpPort?: number;
}

/**
 * A kind of network between nodes, as net-conf's `Backend.Type` names it.
 *
 * @example Each peer's subnet is routed by the peer's own address
 * ```ts
 * import { type Backend, type BackendSession, directRoute } from "@denim/core";
 * import * as z from "zod";
 *
 * export const direct: Backend = {
 *   type: "direct",
 *   leaseType: "direct",
 *   options: z.unknown(),
 *   peerData: z.unknown(),
 *   open: (node) =>
 *     Promise.resolve<BackendSession>({
 *       mtuBytes: node.outer.mtuBytes,
 *       publishes: new Map(),
 *       followsUnderlay: true,
 *       nodeState: () => [],
 *       peerState: ({ halves }) => halves.flatMap((half) => directRoute(node, half) ?? []),
 *       [Symbol.asyncDispose]: () => Promise.resolve(),
 *     }),
 * };
 * console.log(direct.type); // direct
 * ```
 */
export interface Backend<Options = unknown, PeerData = unknown> {
  /** What `Backend.Type` in net-conf says: "vxlan". */
  readonly type: string;
  /** What `BackendType` in leases says: the type, but "" for those that flannel writes without one. */
  readonly leaseType: string;
  /**
   * Whether several nodes may be reached at one public IP, as behind NAT: what they publish tells them apart. Unless it
   * says so, a node does not follow a peer that has its own public IP, as only a cloned machine's does.
   */
  readonly sharesPublicIp?: boolean;
  /** Reads net-conf's `Backend` object, whose keys come in any case; see `anyCase`. */
  readonly options: ZodType<Options>;
  /** Reads a half's `BackendData`. This node does not follow a lease that it refuses. */
  readonly peerData: ZodType<PeerData>;
  /**
   * What the backend has of a node before it has a lease, without starting: no port is taken, no command is run. For
   * `denim config check`, which can't tell beforehand what the node says to a backend that lacks it. Throws as
   * `open` does.
   */
  needs?(node: NodeContext, options: Options): NodeNeeds;
  /**
   * Starts the backend on this node. It may ask the kernel, but changes nothing in it.
   *
   * @throws {ConfigError} if net-conf asks for what can't be
   * @throws {RuntimeError} if the node lacks what the backend needs
   */
  open(node: NodeContext, options: Options): Promise<BackendSession<PeerData>>;
}

/**
 * A backend at work on a node. `nodeState` and `peerState` are pure: the same arguments give the same kernel state,
 * so that a table of cases tests a backend. They are two functions so that news of one peer costs the work of one
 * peer, however many there are.
 *
 * The agent disposes of it when the node stops, when a session of the same backend takes its place, and otherwise once it
 * reaches no peer any more.
 */
export interface BackendSession<PeerData = unknown> extends AsyncDisposable {
  /** The largest packet that a pod may send, in bytes. */
  readonly mtuBytes: number;
  /** What this node publishes with its lease, one value a family; empty if it has nothing to say. */
  readonly publishes: ReadonlyMap<Family, PeerData>;
  /**
   * What the node itself needs. The devices in it are denim's own: the reconciler removes what others put on them.
   *
   * @param own the node's lease; `undefined` before it has one, for what can be there already
   */
  nodeState(own: Lease | undefined): KernelState;
  /** What one peer adds. */
  peerState(peer: Peer<PeerData>): KernelState;
  /**
   * What a peer publishes that only this node may have, as a cloned machine does: "VTEP MAC 02:…". This node does not
   * follow such a peer.
   */
  conflict?(peer: Peer<PeerData>): string | undefined;
  /**
   * Whether `peerState` depends on what `routeTo` says of the underlay. If it does, the agent calls `peerState` again for
   * every peer when the underlay's routes or devices change.
   */
  readonly followsUnderlay?: boolean;
  /**
   * Whether packets are taken from peers alone. While the cluster changes its backend such a session hears of a peer, by
   * `peerState` and `peersChanged`, some time before packets to that peer go by it, and keeps it for some time after:
   * the other node learns later of what this one does.
   */
  readonly refusesStrangers?: boolean;
  /**
   * Whether the session has to know of peers; true unless given. If none has to, the agent does not follow leases, which
   * spares the store a watch for each node.
   */
  readonly reachesPeers?: boolean;
  /**
   * Called once, when the node holds its lease and what `nodeState` asked for is there, before any peer is reached.
   *
   * @throws {RuntimeError} if the node can't go on
   */
  onLeased?(own: Lease): Promise<void>;
  /** For data paths in user space: the peers that are new or have changed, and the keys of those that left. */
  peersChanged?(put: Iterable<Peer<PeerData>>, removed: Iterable<string>): void;
}

/**
 * The route to a peer's subnet by the peer's own address, without a tunnel; `undefined` if the peer is not on the outer
 * device's own link: then a router in between, which knows nothing of pods, would have to carry their packets.
 *
 * @example
 * ```ts
 * import { Cidr, directRoute, IpAddress } from "@denim/core";
 * const outer = { name: "eth0", mtuBytes: 1500, addresses: new Map(), publicIps: new Map() };
 * const kernel = {
 *   macOf: () => undefined,
 *   hasDevice: () => true,
 *   routeTo: () => ({ device: "eth0", gateway: undefined }),
 * };
 * const peer = { subnet: Cidr.parse("10.5.2.0/24"), publicIp: IpAddress.parse("10.99.0.2") };
 * const objects = directRoute({ kernel, outer }, peer) ?? [];
 * console.log(objects.map(({ kind }) => kind)); // [ "nexthop", "route" ]
 * ```
 */
export function directRoute(
  { kernel, outer }: Pick<NodeContext, "kernel" | "outer">,
  { subnet, publicIp }: Pick<PeerHalf<unknown>, "subnet" | "publicIp">,
): KernelState | undefined {
  const route = kernel.routeTo(publicIp);
  if (route?.device !== outer.name || route.gateway !== undefined) return undefined;
  return subnetRoute(subnet, outer.name, publicIp);
}

/**
 * The route to a peer's subnet by a device and a gateway.
 *
 * @param via the gateway; the subnet's first address, unless given, which stands for the peer on a tunnel's device
 */
export function subnetRoute(
  subnet: Cidr,
  device: string,
  via: IpAddress = subnet.address,
): KernelState {
  const id = nexthopId(subnet);
  return [
    { kind: "nexthop", id, device, via },
    { kind: "route", destination: subnet, nexthopId: id },
  ];
}

/** Room, in packets, for what comes while the program that reads a TUN device has no processor. */
const TUN_QUEUE_LENGTH = 1000;

/**
 * What a node needs if its packets to all others go by one TUN device: the device, and what {@link wholeNetworkState}
 * says.
 *
 * @param name the device's name, at most 15 octets
 * @param mtuBytes the largest packet that a pod may send
 * @param own the node's lease
 */
export function tunState(
  node: Pick<NodeContext, "config" | "overlapsHosts">,
  { name, mtuBytes }: { readonly name: string; readonly mtuBytes: number },
  own: Lease | undefined,
): KernelState {
  const info = { type: "tun", queueLength: TUN_QUEUE_LENGTH } as const;
  return [{ kind: "link", name, mtuBytes, info }, ...wholeNetworkState(node, () => name, own)];
}

/**
 * What leads a node's packets to all others by a device, once there is a lease: in each family the device's address and
 * one route for the whole network. Where that overlaps the hosts' network there is no such route: see
 * {@link tunPeerState}.
 *
 * @param device the name of a family's device
 * @param own the node's lease
 */
export function wholeNetworkState(
  { config, overlapsHosts }: Pick<NodeContext, "config" | "overlapsHosts">,
  device: (family: Family) => string,
  own: Lease | undefined,
): KernelState {
  return config.families.flatMap(({ family, network }): KernelState => {
    const source = own && leaseHalf(own, family)?.subnet.address;
    if (source === undefined) return [];
    // A host's prefix: it names a source for the node's own packets, and makes no route.
    const prefixLength = addressBits(family);
    const name = device(family);
    const address = { kind: "address", device: name, address: source, prefixLength } as const;
    return overlapsHosts
      ? [address]
      : [address, { kind: "route", destination: network, device: name, source }];
  });
}

/**
 * What one peer adds to {@link wholeNetworkState}: nothing, as one route leads to all of them. But if the pods' networks overlap
 * that of the hosts, the route would take the packets of hosts behind a router, and a network on the outer device's
 * link would take pods' packets: then each peer's subnet has a route of its own.
 *
 * @param device the name of a family's device
 */
export function tunPeerState(
  { overlapsHosts }: Pick<NodeContext, "overlapsHosts">,
  device: (family: Family) => string,
  { halves }: Peer<unknown>,
): KernelState {
  if (!overlapsHosts) return [];
  return halves.flatMap(({ subnet }) => subnetRoute(subnet, device(subnet.family)));
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
