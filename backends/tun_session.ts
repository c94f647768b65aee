/**
 * Most of a backend whose data path is in user space: the TUN device, which peer gets a packet, and which packets a
 * peer may send. What is left to write is how a packet gets from one node to another.
 *
 * @module
 */

import {
  type BackendSession,
  Backoff,
  Cidr,
  Complaints,
  type Family,
  IpAddress,
  type KernelState,
  type Lease,
  messageOf,
  type NodeContext,
  type Peer,
  type PeerHalf,
  sleep,
  throwDefect,
  tunPeerState,
  tunState,
} from "@denim/core";
import { TunPackets } from "@denim/core/linux";

/** What a backend adds. */
export interface TunSessionOptions<PeerData> {
  /** The name of its TUN device, at most 15 octets. */
  readonly device: string;
  /** The largest packet that a pod may send, in bytes. */
  readonly mtuBytes: number;
  /** What the node publishes with its lease, by family; by default nothing. */
  readonly publishes?: ReadonlyMap<Family, PeerData>;
  /**
   * Called once, when packets may travel. An error that it throws, or that the function throws which it returns, ends
   * the agent if it is a defect (see `isDefect`).
   *
   * @param receive takes a packet that came from another node, and the address that it came from; a packet whose
   * source is not a pod of the peer at that address is dropped
   * @param signal aborted when all of it is to end
   * @returns a function that sends a packet to a peer; the packet is a view that is valid during the call
   */
  readonly start: (
    receive: (packet: Uint8Array, from: string) => void,
    signal: AbortSignal,
  ) => (to: PeerHalf<PeerData>, packet: Uint8Array<ArrayBuffer>) => void;
}

/** Waits before a device that was deleted is opened again. The reconciler makes it within the first one. */
const MIN_REOPEN_MS = 100, MAX_REOPEN_MS = 5_000;
/** Where source and destination stand in a packet (RFC 791, RFC 8200), and how long they are. */
const ADDRESSES = {
  4: { source: 12, destination: 16, bytes: 4 },
  6: { source: 8, destination: 24, bytes: 16 },
};

/**
 * A session whose packets travel as `options.start` says.
 *
 * ```ts
 * import { tunSession } from "@denim/backends/tun-session";
 * import type { Backend } from "@denim/core";
 * import { createSocket } from "node:dgram";
 * import * as z from "zod";
 *
 * // Pods' packets, each in a UDP datagram, for networks with IPv4.
 * export const plain: Backend = {
 *   type: "plain",
 *   leaseType: "plain",
 *   options: z.unknown(),
 *   peerData: z.unknown(),
 *   open: (node) =>
 *     Promise.resolve(tunSession(node, {
 *       device: "denim-plain",
 *       mtuBytes: node.outer.mtuBytes - 28, // IPv4's header and UDP's
 *       start(receive, signal) {
 *         const socket = createSocket({ type: "udp4", signal });
 *         socket.bind(8286, `${node.outer.addresses.get(4)}`);
 *         socket.on("message", (packet, { address }) => receive(packet, address));
 *         return ({ publicIp }, packet) => socket.send(packet.slice(), 8286, `${publicIp}`);
 *       },
 *     })),
 * };
 * console.log(plain.type); // plain
 * ```
 */
export function tunSession<PeerData>(
  node: NodeContext,
  options: TunSessionOptions<PeerData>,
): BackendSession<PeerData> {
  return new TunSession(node, options);
}

class TunSession<PeerData> implements BackendSession<PeerData> {
  readonly refusesStrangers = true;
  readonly mtuBytes: number;
  readonly publishes: ReadonlyMap<Family, PeerData>;
  readonly #node: NodeContext;
  readonly #options: TunSessionOptions<PeerData>;
  readonly #closed = new AbortController();
  readonly #peers = new Map<string, Peer<PeerData>>();
  readonly #bySubnet = new Map<string, PeerHalf<PeerData>>();
  /** The lengths of peers' subnets so far: in Kubernetes they may differ from net-conf's `SubnetLen`. */
  readonly #lengths: Readonly<Record<Family, Set<number>>> = { 4: new Set(), 6: new Set() };

  constructor(node: NodeContext, options: TunSessionOptions<PeerData>) {
    this.#node = node;
    this.#options = options;
    this.mtuBytes = options.mtuBytes;
    this.publishes = options.publishes ?? new Map();
  }

  nodeState(own: Lease | undefined): KernelState {
    const { device: name, mtuBytes } = this.#options;
    return tunState(this.#node, { name, mtuBytes }, own);
  }

  peerState(peer: Peer<PeerData>): KernelState {
    return tunPeerState(this.#node, () => this.#options.device, peer);
  }

  onLeased(): Promise<void> {
    return Promise.try(() => this.#start());
  }

  #start(): void {
    const { signal } = this.#closed;
    let tun: TunPackets | undefined;
    const send = this.#options.start((packet, from) => {
      if (this.#half(packet, "source")?.publicIp.toString() === from) tun?.write(packet);
    }, signal);
    const { log, fail } = this.#node;
    const { device } = this.#options;
    const complaints = new Complaints();
    const backoff = new Backoff({ minMs: MIN_REOPEN_MS, maxMs: MAX_REOPEN_MS });
    const run = async () => {
      do {
        try {
          using opened = tun = new TunPackets(device);
          if (complaints.resolve()) log.info("device-back", `device ${device} is open again`);
          backoff.reset();
          for await (const packet of opened.read(signal)) {
            if (signal.aborted) return;
            const to = this.#half(packet, "destination");
            if (to !== undefined) send(to, packet);
          }
        } catch (error) {
          throwDefect(error);
          const why = messageOf(error);
          if (complaints.isNew(why)) {
            log.warn(
              "device-gone",
              `${why}; no packet travels until device ${device} is open again`,
            );
          }
        } finally {
          tun = undefined;
        }
      } while (await sleep(backoff.next(), signal));
    };
    run().catch(fail);
  }

  /** The half of the peer that a packet is from or for; `undefined` if there is none. */
  #half(packet: Uint8Array, which: "source" | "destination"): PeerHalf<PeerData> | undefined {
    const version = (packet[0] ?? 0) >> 4;
    if (version !== 4 && version !== 6) return undefined;
    const { [which]: at, bytes } = ADDRESSES[version];
    if (packet.length < at + bytes) return undefined;
    const address = IpAddress.fromBytes(packet.subarray(at, at + bytes));
    for (const length of this.#lengths[version]) {
      const half = this.#bySubnet.get(`${new Cidr(address, length)}`);
      if (half !== undefined) return half;
    }
    return undefined;
  }

  peersChanged(put: Iterable<Peer<PeerData>>, removed: Iterable<string>): void {
    for (const key of removed) this.#remove(key);
    for (const peer of put) {
      this.#remove(peer.key);
      this.#peers.set(peer.key, peer);
      for (const half of peer.halves) {
        this.#lengths[half.subnet.family].add(half.subnet.prefixLength);
        this.#bySubnet.set(`${half.subnet}`, half);
      }
    }
  }

  #remove(key: string): void {
    for (const { subnet } of this.#peers.get(key)?.halves ?? []) this.#bySubnet.delete(`${subnet}`);
    this.#peers.delete(key);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort();
    return Promise.resolve();
  }
}
