/**
 * The UDP backend, as flannel has it: one TUN device for the whole network. Each packet travels as it is in one UDP
 * datagram to the node that has the destination. It serves nodes whose kernel has no VXLAN, and networks that let none
 * through.
 *
 * Threads of the agent carry the packets: while the agent does not run, none travel.
 *
 * @module
 */

import {
  anyCase,
  type Backend,
  type BackendSession,
  type Cidr,
  type Family,
  type KernelState,
  type Lease,
  MAX_PACKET_BYTES,
  type NodeContext,
  outerMtuBytes,
  type Peer,
  tunnelMtuBytes,
  tunPeerState,
  tunState,
} from "@denim/core";
import * as z from "zod";
import { DataPath } from "./data_path.ts";
import { OVERHEAD_BYTES } from "./ip.ts";

/** flannel's name for the device. */
const DEVICE = "flannel0";
/** flannel's port. */
const DEFAULT_PORT = 8285;
/** Peers with smaller subnets than net-conf's may come: more than the network has room for. */
const MIN_CAPACITY = 1 << 12;
const MAX_CAPACITY = 1 << 18;

/** net-conf's `Backend` object, with flannel's names and defaults, and denim's own. */
export interface UdpOptions {
  /** The UDP port (8285, which 0 stands for as well). */
  readonly Port: number;
  /** The MTU of the outer network, in bytes, at most the outer device's, which 0 stands for (0). denim's own. */
  readonly MTU: number;
  /**
   * Whether the kernel hands over and takes packets in series, as far as it can (true). denim's own; switch it off for a
   * device whose driver does that wrong.
   */
  readonly Offloads: boolean;
  /**
   * Whether denim nodes leave the checksums of pods' packets undone among themselves: UDP's own covers all
   * of them (true). denim's own.
   */
  readonly PartialChecksums: boolean;
}

const options: z.ZodType<UdpOptions> = anyCase(z.object({
  Port: z.int().min(0).max(65_535).default(0),
  MTU: z.int().min(0).max(MAX_PACKET_BYTES).default(0),
  Offloads: z.boolean().default(true),
  PartialChecksums: z.boolean().default(true),
}));

/** What a node publishes for each family; flannel's publishes nothing, and reads nothing. */
export interface UdpPeerData {
  /** What only denim's nodes understand. */
  readonly denim: {
    /** Whether the node takes packets whose TCP or UDP checksum is the pseudo header's sum alone. */
    readonly partialChecksums: boolean;
  };
}

/** Every node can be reached, whatever its lease says; an ability that can't be read counts as missing. */
const peerData: z.ZodType<UdpPeerData> = z.object({
  denim: z.object({ partialChecksums: z.boolean() }),
}).catch({ denim: { partialChecksums: false } });

/** The backend, for `runAgent`. */
export const udp: Backend<UdpOptions, UdpPeerData> = {
  type: "udp",
  leaseType: "",
  options,
  peerData,
  needs: (node, options) => {
    const device = { name: DEVICE, mtuBytes: mtuOf(node, options) };
    return {
      state: tunState(node, device, undefined),
      udpPort: options.Port || DEFAULT_PORT,
    };
  },
  open: (node, options) => Promise.try(() => new UdpSession(node, options)),
};

class UdpSession implements BackendSession<UdpPeerData> {
  readonly refusesStrangers = true;
  readonly mtuBytes: number;
  readonly publishes: ReadonlyMap<Family, UdpPeerData>;
  readonly #node: NodeContext;
  readonly #dataPath: DataPath;
  /** The subnets of each peer, by its lease's key. */
  readonly #subnets = new Map<string, readonly Cidr[]>();

  constructor(node: NodeContext, options: UdpOptions) {
    const { config, outer, log, metrics, fail } = node;
    this.#node = node;
    const families = config.families.map(({ family }) => family);
    this.mtuBytes = mtuOf(node, options);
    const subnets = config.families.reduce(
      (sum, { network, subnetLength }) => sum + 2 ** (subnetLength - network.prefixLength),
      0,
    );
    this.#dataPath = DataPath.open({
      device: DEVICE,
      addresses: families.map((family) => outer.addresses.get(family)!),
      port: options.Port || DEFAULT_PORT,
      capacity: powerOfTwo(Math.min(Math.max(4 * subnets, MIN_CAPACITY), MAX_CAPACITY)),
      offloads: options.Offloads,
      hasDevice: () => node.kernel.hasDevice(DEVICE),
      log,
      metrics,
      fail,
    });
    const denim = { partialChecksums: options.PartialChecksums && this.#dataPath.takesPartial };
    this.publishes = new Map(families.map((family) => [family, { denim }]));
  }

  nodeState(own: Lease | undefined): KernelState {
    return tunState(this.#node, { name: DEVICE, mtuBytes: this.mtuBytes }, own);
  }

  peerState(peer: Peer<UdpPeerData>): KernelState {
    return tunPeerState(this.#node, () => DEVICE, peer);
  }

  onLeased(own: Lease): Promise<void> {
    return this.#dataPath.start(own.halves.map(({ subnet }) => subnet));
  }

  peersChanged(put: Iterable<Peer<UdpPeerData>>, removed: Iterable<string>): void {
    for (const key of removed) {
      for (const subnet of this.#subnets.get(key) ?? []) this.#dataPath.remove(subnet);
      this.#subnets.delete(key);
    }
    for (const { key, halves } of put) {
      this.#subnets.set(key, halves.map(({ subnet }) => subnet));
      for (const { subnet, publicIp, data } of halves) {
        this.#dataPath.put({ subnet, publicIp, partialChecksums: data.denim.partialChecksums });
      }
    }
  }

  /** Ends the threads. The device stays. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#dataPath[Symbol.asyncDispose]();
  }
}

/** What a datagram leaves for a pod's packet, whichever family carries it. */
function mtuOf(node: NodeContext, { MTU }: UdpOptions): number {
  const outerBytes = outerMtuBytes(node, MTU);
  return Math.min(
    ...node.config.families.map(({ family }) =>
      tunnelMtuBytes("udp", outerBytes, OVERHEAD_BYTES[family], family)
    ),
  );
}

function powerOfTwo(least: number): number {
  return 2 ** Math.ceil(Math.log2(least));
}
