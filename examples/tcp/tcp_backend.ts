/**
 * A backend of one's own: pods' packets travel in TCP connections, for networks that let nothing else
 * through. Each node reads what its pods send to other nodes from a TUN device, and has one connection to
 * each peer to send it by; what comes in by its peers' connections goes to the device.
 *
 * @module
 */

import * as denim from "@denim/core";
import { TunPackets } from "@denim/core/linux";
import { z } from "zod";

const DEVICE = "denim-tcp";
const RETRY_MS = 200;
/** How many packets wait for a connection before more are dropped, as a device would. */
const QUEUED_PACKETS = 1000;

/** What net-conf's `Backend` object may say beside its `Type`: the port; any free one unless given. */
const options = denim.anyCase(z.object({ Port: z.int().min(0).max(65_535).default(0) }));
/** What a node publishes: where it listens. */
const peerData = z.object({ Port: z.int() });
type PeerData = z.output<typeof peerData>;

/** The backend, for `runAgent`. */
export const tcp: denim.Backend<z.output<typeof options>, PeerData> = {
  type: "tcp",
  leaseType: "tcp",
  options,
  peerData,
  open: (node, { Port }) => Promise.resolve(new TcpSession(node, Port)),
};

class TcpSession implements denim.BackendSession<PeerData> {
  readonly mtuBytes: number;
  readonly publishes: ReadonlyMap<denim.Family, PeerData>;
  readonly #node: denim.NodeContext;
  readonly #closed = new AbortController();
  readonly #listener: Deno.TcpListener;
  /** By peer: what ends the connection to it. By subnet: what takes packets for it. */
  readonly #peers = new Map<string, { ips: string[]; ending: AbortController }>();
  readonly #queues = new Map<string, ReadableStreamDefaultController<Uint8Array>>();

  constructor(node: denim.NodeContext, port: number) {
    this.#node = node;
    this.mtuBytes = node.outer.mtuBytes;
    this.#listener = Deno.listen({ hostname: "::", port });
    const { families } = node.config;
    const data = { Port: this.#listener.addr.port };
    this.publishes = new Map(families.map(({ family }) => [family, data]));
  }

  /** The device, this node's address on it, and the cluster's network behind it. */
  node(own: denim.Lease | undefined): denim.KernelState {
    const info = { type: "tun", queueLength: QUEUED_PACKETS } as const;
    const link = { kind: "link", name: DEVICE, mtuBytes: this.mtuBytes, info } as const;
    return [link, ...this.#node.config.families.flatMap(({ family, network: destination }) => {
      const source = own && denim.leaseHalf(own, family)?.subnet.address;
      const prefixLength = denim.addressBits(family);
      return source === undefined ? [] : [
        { kind: "address", device: DEVICE, address: source, prefixLength } as const,
        { kind: "route", destination, device: DEVICE, source } as const,
      ];
    })];
  }

  peer = (): denim.KernelState => [];

  /** The device is there now: packets may travel. */
  leased(): Promise<void> {
    const tun = new TunPackets(DEVICE);
    this.#closed.signal.addEventListener("abort", () => tun[Symbol.dispose]());
    const failed = (error: unknown) => this.#node.log.error(`tcp: ${denim.messageOf(error)}`);
    this.#send(tun).catch(failed);
    this.#accept(tun).catch((error) => this.#closed.signal.aborted || failed(error));
    return Promise.resolve();
  }

  peersChanged(put: Iterable<denim.Peer<PeerData>>, removed: Iterable<string>): void {
    for (const key of removed) this.#end(key);
    for (const { key, halves } of put) {
      this.#end(key);
      const ending = new AbortController();
      this.#peers.set(key, { ips: halves.map(({ publicIp }) => `${publicIp}`), ending });
      for (const half of halves) this.#connect(half, AbortSignal.any([ending.signal, this.#closed.signal]));
    }
  }

  #end(key: string): void {
    this.#peers.get(key)?.ending.abort();
    this.#peers.delete(key);
  }

  /** Keeps up a connection by which packets for a peer's subnet go. */
  async #connect({ subnet, publicIp, data }: denim.PeerHalf<PeerData>, signal: AbortSignal): Promise<void> {
    do {
      try {
        const connection = await Deno.connect({ hostname: `${publicIp}`, port: data.Port });
        connection.setNoDelay();
        const packets = new ReadableStream<Uint8Array>({
          start: (queue) => void this.#queues.set(`${subnet}`, queue),
        }, { highWaterMark: QUEUED_PACKETS });
        await packets.pipeTo(connection.writable, { signal });
      } catch (error) {
        this.#node.log.debug(`tcp: ${subnet}: ${denim.messageOf(error)}`);
      }
    } while (await denim.sleep(RETRY_MS, signal));
  }
}
