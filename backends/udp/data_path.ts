/**
 * The threads that carry packets, with all that they work on: sockets, queues of the TUN device, the peers'
 * table, counters.
 *
 * @module
 */

import {
  type Cidr,
  type Family,
  type IpAddress,
  type Logger,
  messageOf,
  RuntimeError,
  sleep,
} from "@denim/core";
import { openTun, type TunOffloads, type TunQueue } from "@denim/core/linux/tun";
import { openRawSocket, openTunnelSockets, type TunnelSocket } from "@denim/core/linux/udp-socket";
import { Wake } from "@denim/core/linux/wake";
import { Counters, DROP, type Drop, DROPS, ICMP_ERRORS, type Way } from "./counters.ts";
import { PeerMapWriter, type PeerRecord } from "./peer_map.ts";
import type { CarrierOrder, CarrierReport, CarrierSetup } from "./carrier_messages.ts";

/** What a data path works with. */
export interface DataPathOptions {
  /** The TUN device's name. */
  readonly device: string;
  /** The addresses of the outer device, one a family. */
  readonly addresses: readonly IpAddress[];
  /** The UDP port of all nodes. */
  readonly port: number;
  /** The largest number of subnets; a power of two. */
  readonly capacity: number;
  /** Whether the kernel's offloads are to be used. */
  readonly offloads: boolean;
  /** Whether the TUN device is there. */
  readonly hasDevice: () => boolean;
  /** Where faults are told of. */
  readonly log: Logger;
  /** How many queues the TUN device has; as the cores allow unless given. */
  readonly queues?: number;
  /** Whether each queue has a thread a direction, or one for both; as the cores allow unless given. */
  readonly threadADirection?: boolean;
}

/** What was carried and dropped. */
export interface UdpCounts {
  /** Packets that went no further, by reason. */
  readonly drops: Readonly<Record<Drop, number>>;
  /** ICMP errors sent to this node's pods. */
  readonly icmpErrors: number;
  /** By peer, by its subnet as text. */
  readonly peers: ReadonlyMap<string, PeerCounts>;
}

/** What was carried to and from one peer. */
export interface PeerCounts {
  /** Packets and bytes sent to it; those that could not be. */
  readonly sent: Traffic;
  /** Packets and bytes taken from it; those that were dropped. */
  readonly received: Traffic;
}

/** Packets of one direction. */
export interface Traffic {
  /** Those carried. */
  readonly packets: number;
  /** Their bytes, without the outer headers. */
  readonly bytes: number;
  /** Those dropped. */
  readonly drops: number;
}

/** With fewer cores two threads wait for each other more than they work side by side. */
const CORES_FOR_TWO_THREADS = 4;
/** A queue for this many cores: pods need some too. */
const CORES_A_QUEUE = 4;
const MAX_QUEUES = 4;
/** How long threads may take to end: as long as one send may wait, and some. */
const END_PATIENCE_MS = 500;
/** The wait before a thread that failed is started again. */
const RESTART_MS = 1000;
/** The wait between looks for a device that is gone. */
const LOOK_MS = 20;
/** How often it is told what was dropped. */
const TELL_MS = 60_000;

/** A thread. */
interface Thread {
  readonly name: string;
  readonly queue: number;
  readonly ways: readonly Way[];
  /** What it counts. */
  readonly counters: Counters;
  worker: Worker;
  /** Settled once it carries packets, or can't. */
  readonly running: PromiseWithResolvers<void>;
  /** Resolved while it carries none. */
  ended: PromiseWithResolvers<void>;
}

function loadWorker(name: string): Worker {
  return new Worker(new URL("./carrier_worker.ts", import.meta.url), { type: "module", name });
}

/** Carries packets between one TUN device and the peers. */
export class DataPath implements AsyncDisposable {
  readonly #options: DataPathOptions;
  readonly #queues: number;
  readonly #peers: PeerMapWriter;
  readonly #counters: SharedArrayBuffer;
  readonly #wake = new Wake();
  /** For each family the sockets, one a queue. */
  readonly #sockets = new Map<Family, readonly TunnelSocket[]>();
  readonly #rawSockets = new Map<Family, Disposable & { readonly fd: number }>();
  readonly #threads: Thread[] = [];
  readonly #stopping = new AbortController();
  #tuns: TunQueue[] = [];
  #offloads: TunOffloads = { checksums: false, tcp: false, udp: false };
  #reattaching: Promise<void> | undefined;
  readonly #subnets = new Map<string, number>();

  /** Opens the sockets, and loads the threads. Throws a RuntimeError. */
  constructor(options: DataPathOptions) {
    this.#options = options;
    const cores = navigator.hardwareConcurrency;
    this.#queues = options.queues ??
      Math.min(Math.max(Math.floor(cores / CORES_A_QUEUE), 1), MAX_QUEUES);
    const apart = options.threadADirection ?? cores >= CORES_FOR_TWO_THREADS;
    const parts: readonly (readonly Way[])[] = apart
      ? [["outbound"], ["inbound"]]
      : [["outbound", "inbound"]];
    this.#peers = new PeerMapWriter(options.capacity);
    this.#counters = Counters.memory(options.capacity, parts.length * this.#queues);
    try {
      for (const address of options.addresses) {
        const { family } = address;
        this.#sockets.set(
          family,
          openTunnelSockets(address, options.port, this.#queues, options.offloads),
        );
        this.#rawSockets.set(family, openRawSocket(family));
      }
    } catch (error) {
      this.#close();
      throw new RuntimeError(`udp: ${messageOf(error)}`);
    }
    for (let queue = 0; queue < this.#queues; queue++) {
      for (const ways of parts) this.#threads.push(this.#load(queue, ways));
    }
  }

  /** Whether packets may come with their checksum left to do. */
  get takesPartial(): boolean {
    return this.#options.offloads;
  }

  /** Starts carrying packets for pods of these subnets, by the device, which is there. */
  async start(own: readonly Cidr[]): Promise<void> {
    this.#peers.setOwn(own);
    try {
      for (let queue = 0; queue < this.#queues; queue++) {
        this.#tuns.push(openTun(this.#options.device));
      }
      this.#setOffloads();
    } catch (error) {
      throw new RuntimeError(`udp: ${messageOf(error)}`);
    }
    for (const thread of this.#threads) this.#order(thread, this.#setup(thread));
    await Promise.all(this.#threads.map(({ running }) => running.promise));
    const udp = [...this.#sockets.values()].flat().map(({ offloads }) => offloads);
    this.#options.log.info("udp-started", `packets travel by UDP port ${this.#options.port}`, {
      queues: this.#queues,
      tunTcp: this.#offloads.tcp,
      tunUdp: this.#offloads.udp,
      udpSegment: udp.every(({ segment }) => segment),
      udpGro: udp.every(({ gro }) => gro),
    });
    void this.#tell();
  }

  #setOffloads(): void {
    const wanted = this.#options.offloads;
    for (const tun of this.#tuns) {
      this.#offloads = wanted ? tun.setOffloads() : tun.clearOffloads();
    }
  }

  /** Puts a peer in, or in the place of what was there for its subnet. */
  put(record: PeerRecord): void {
    if (!this.#peers.put(record, performance.now())) {
      this.#options.log.error(
        "udp-device-failed",
        `udp: ${record.subnet} is not reached: no more than ${this.#options.capacity} subnets`,
      );
      return;
    }
    this.#subnets.set(`${record.subnet}`, this.#peers.counterOf(record.subnet)!);
  }

  /** Takes a peer out. */
  remove(subnet: Cidr): void {
    this.#peers.remove(subnet, performance.now());
    this.#subnets.delete(`${subnet}`);
  }

  /** What was carried and dropped so far. */
  counts(): UdpCounts {
    const total = (way: Way, counter: number): Traffic =>
      this.#threads.map(({ counters }) => counters.ofPeer(way, counter)).reduce((sum, each) => ({
        packets: sum.packets + each.packets,
        bytes: sum.bytes + each.bytes,
        drops: sum.drops + each.drops,
      }));
    const sum = (reason: number) =>
      this.#threads.reduce((count, { counters }) => count + counters.drops(reason), 0);
    return {
      drops: Object.fromEntries(DROPS.map((name) => [name, sum(DROP[name])])) as Record<
        Drop,
        number
      >,
      icmpErrors: sum(ICMP_ERRORS),
      peers: new Map(
        [...this.#subnets].map(([subnet, counter]) => [
          subnet,
          { sent: total("outbound", counter), received: total("inbound", counter) },
        ]),
      ),
    };
  }

  /** Says from time to time what was dropped since the last time. */
  async #tell(): Promise<void> {
    let told: Partial<Record<string, number>> = {};
    while (await sleep(TELL_MS, this.#stopping.signal)) {
      const { drops } = this.counts();
      const news = Object.entries(drops).map(([name, count]) =>
        [name, count - (told[name] ?? 0)] as const
      ).filter(([, count]) => count > 0);
      told = drops;
      if (news.length > 0) {
        this.#options.log.debug(
          "packets-dropped",
          "packets were dropped",
          Object.fromEntries(news),
        );
      }
    }
  }

  #load(queue: number, ways: readonly Way[]): Thread {
    const name = `udp ${ways.length > 1 ? "" : `${ways[0]} `}${queue}`;
    const thread: Thread = {
      name,
      queue,
      ways,
      counters: new Counters(this.#counters, this.#options.capacity, this.#threads.length),
      worker: loadWorker(name),
      running: Promise.withResolvers(),
      ended: Promise.withResolvers(),
    };
    thread.ended.resolve();
    // Nobody may be waiting for it to run when it fails.
    thread.running.promise.catch(() => {});
    this.#listen(thread);
    return thread;
  }

  #listen(thread: Thread): void {
    const { log } = this.#options;
    thread.worker.onmessage = ({ data }: MessageEvent<CarrierReport>) => {
      if (data === "running") return thread.running.resolve();
      thread.ended.resolve();
      if (data === "gone") this.#reattach();
    };
    thread.worker.onerror = (event) => {
      event.preventDefault();
      thread.ended.resolve();
      thread.running.reject(new RuntimeError(`${thread.name}: ${event.message}`));
      log.error(
        "udp-thread-failed",
        `${thread.name} failed: ${event.message}; it is started again`,
      );
      void this.#restart(thread);
    };
  }

  async #restart(thread: Thread): Promise<void> {
    thread.worker.terminate();
    if (!await sleep(RESTART_MS, this.#stopping.signal) || this.#tuns.length === 0) return;
    thread.worker = loadWorker(thread.name);
    this.#listen(thread);
    this.#order(thread, this.#setup(thread));
  }

  #order(thread: Thread, order: CarrierOrder): void {
    thread.ended = Promise.withResolvers();
    thread.worker.postMessage(order);
  }

  #setup(thread: Thread): CarrierSetup {
    const { queue, ways } = thread;
    const { descriptor, header } = this.#tuns[queue]!;
    const sockets = [...this.#sockets].map(([family, all]) => [family, all[queue]!] as const);
    const fds = (descriptors: Iterable<readonly [Family, { readonly fd: number }]>) =>
      new Map(Array.from(descriptors, ([family, { fd }]) => [family, fd]));
    return {
      peers: this.#peers.shared,
      capacity: this.#peers.capacity,
      counters: this.#counters,
      number: this.#threads.indexOf(thread),
      tun: descriptor.fd,
      wake: this.#wake.fd,
      sockets: fds(sockets.map(([family, socket]) => [family, socket.descriptor] as const)),
      rawSockets: fds(this.#rawSockets),
      outbound: !ways.includes("outbound") ? undefined : {
        port: this.#options.port,
        header,
        segment: sockets.every(([, { offloads }]) => offloads.segment),
      },
      inbound: ways.includes("inbound") ? { header, ...this.#offloads } : undefined,
    };
  }

  /** The device was taken away: waits until it is there again, and goes on. */
  #reattach(): void {
    this.#reattaching ??= this.#waitForDevice().finally(() => this.#reattaching = undefined);
  }

  async #waitForDevice(): Promise<void> {
    const { log, device, hasDevice } = this.#options;
    log.warn("device-gone", `device ${device} is gone; packets wait until it is there again`);
    while (await sleep(LOOK_MS, this.#stopping.signal)) {
      try {
        if (!hasDevice()) continue;
        for (const tun of this.#tuns) tun.attach();
        this.#setOffloads();
        for (const thread of this.#threads) {
          if (thread.ways.includes("outbound")) this.#order(thread, "go on");
        }
        log.info("device-back", `packets travel by device ${device} again`);
        return;
      } catch (error) {
        log.error("udp-failed", `udp: ${messageOf(error)}`);
      }
    }
  }

  /** Ends the threads and closes everything. The device stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    this.#peers.stop();
    this.#wake.wake();
    const patience = new AbortController();
    await Promise.race([
      Promise.all(this.#threads.map(({ ended }) => ended.promise)),
      sleep(END_PATIENCE_MS, patience.signal),
    ]);
    patience.abort();
    for (const { worker } of this.#threads) worker.terminate();
    this.#close();
  }

  #close(): void {
    for (const tun of this.#tuns) tun[Symbol.dispose]();
    for (const socket of [...this.#sockets.values()].flat()) socket[Symbol.dispose]();
    for (const socket of this.#rawSockets.values()) socket[Symbol.dispose]();
    this.#wake[Symbol.dispose]();
  }
}
