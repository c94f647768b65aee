/**
 * Most of a backend whose data path is in user space: the TUN device, who gets which packet, and who may
 * send which. What is left to write is how a packet gets from one node to another.
 *
 * @module
 */

import {
  type BackendSession,
  Cidr,
  type Family,
  IpAddress,
  type KernelState,
  type Lease,
  messageOf,
  type NodeContext,
  type Peer,
  type PeerHalf,
  sleep,
  tunState,
} from "@denim/core";
import { TunPackets } from "@denim/core/linux";

/** What a backend adds. */
export interface TunSessionOptions<PeerData> {
  /** The name of its TUN device, at most 15 octets. */
  readonly device: string;
  /** The largest packet that a pod may send, in bytes. */
  readonly mtuBytes: number;
  /** What the node publishes with its lease; nothing unless given. */
  readonly publishes?: ReadonlyMap<Family, PeerData>;
  /**
   * Called once, when packets may travel. What comes from another node is given to `receive` with the
   * address that it came from. Returns what sends a packet to a peer; the packet is a view that is good
   * during the call. All of it ends when the signal is aborted.
   */
  readonly start: (
    receive: (packet: Uint8Array, from: string) => void,
    signal: AbortSignal,
  ) => (to: PeerHalf<PeerData>, packet: Uint8Array<ArrayBuffer>) => void;
}

/** The wait before a device that was taken away is opened again; by then the reconciler has made it. */
const REOPEN_MS = 100;
/** Where source and destination stand in a packet (RFC 791, RFC 8200), and how long they are. */
const ADDRESSES = {
  4: { source: 12, destination: 16, bytes: 4 },
  6: { source: 8, destination: 24, bytes: 16 },
};

/** A session that carries packets by `options.start`. */
export function tunSession<PeerData>(
  node: NodeContext,
  options: TunSessionOptions<PeerData>,
): BackendSession<PeerData> {
  return new TunSession(node, options);
}

class TunSession<PeerData> implements BackendSession<PeerData> {
  readonly mtuBytes: number;
  readonly publishes: ReadonlyMap<Family, PeerData>;
  readonly #node: NodeContext;
  readonly #options: TunSessionOptions<PeerData>;
  readonly #closed = new AbortController();
  readonly #peers = new Map<string, Peer<PeerData>>();
  readonly #bySubnet = new Map<string, PeerHalf<PeerData>>();

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

  peerState(): KernelState {
    return [];
  }

  onLeased(): Promise<void> {
    const signal = this.#closed.signal;
    let tun: TunPackets | undefined;
    const send = this.#options.start((packet, from) => {
      if (this.#half(packet, "source")?.publicIp.toString() === from) tun?.write(packet);
    }, signal);
    const run = async () => {
      do {
        try {
          using opened = tun = new TunPackets(this.#options.device);
          for await (const packet of opened.read(signal)) {
            const to = this.#half(packet, "destination");
            if (to !== undefined) send(to, packet);
          }
        } catch (error) {
          this.#node.log.warn(
            "tun-reopened",
            `${this.#options.device}: ${messageOf(error)}; opening it again`,
          );
        }
        tun = undefined;
      } while (await sleep(REOPEN_MS, signal));
    };
    run();
    return Promise.resolve();
  }

  /** The peer, in one family, that a packet is from or for; `undefined` where it is none's. */
  #half(packet: Uint8Array, which: "source" | "destination"): PeerHalf<PeerData> | undefined {
    const version = (packet[0] ?? 0) >> 4;
    if (version !== 4 && version !== 6) return undefined;
    const { [which]: at, bytes } = ADDRESSES[version];
    const config = this.#node.config.families.find(({ family }) => family === version);
    if (config === undefined || packet.length < at + bytes) return undefined;
    const address = IpAddress.fromBytes(packet.subarray(at, at + bytes));
    return this.#bySubnet.get(`${new Cidr(address, config.subnetLength)}`);
  }

  peersChanged(put: Iterable<Peer<PeerData>>, removed: Iterable<string>): void {
    for (const key of removed) this.#forget(key);
    for (const peer of put) {
      this.#forget(peer.key);
      this.#peers.set(peer.key, peer);
      for (const half of peer.halves) this.#bySubnet.set(`${half.subnet}`, half);
    }
  }

  #forget(key: string): void {
    for (const { subnet } of this.#peers.get(key)?.halves ?? []) this.#bySubnet.delete(`${subnet}`);
    this.#peers.delete(key);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort();
    return Promise.resolve();
  }
}
