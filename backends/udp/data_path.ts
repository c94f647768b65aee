/**
 * The threads that carry packets, with all that they work on: sockets, queues of the TUN device, the peers'
 * table, counters.
 *
 * @module
 */

import {
  type Cidr,
  Complaints,
  type Family,
  type IpAddress,
  type Logger,
  messageOf,
  type Metrics,
  RuntimeError,
  sleep,
  throwDefect,
} from "@denim/core";
import { openTun, type TunOffloads, type TunQueue } from "@denim/core/linux/tun";
import { openRawSocket, openTunnelSockets, type TunnelSocket } from "@denim/core/linux/udp-socket";
import { Wake } from "@denim/core/linux/wake";
import type { CarrierOrder, CarrierReport, CarrierSetup } from "./carrier_messages.ts";
import { Counters, DROP, type Drop, DROPS, type Traffic, type Way, WAYS } from "./counters.ts";
import { PeerMapWriter, type PeerRecord } from "./peer_map.ts";

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
  /** Where the data path says what goes wrong. */
  readonly log: Logger;
  /** Where the threads' counters can be read. */
  readonly metrics: Metrics;
  /** Called with a defect of a thread, which carries nothing any more. */
  readonly fail: (error: unknown) => void;
  /** How many queues the TUN device has; by default as many as suit the number of cores. */
  readonly queues?: number;
  /** Whether each queue has a thread a direction, or one for both; by default what suits the number of cores. */
  readonly threadADirection?: boolean;
}

/** What a data path has open. */
interface Opened extends Disposable {
  readonly descriptor: { readonly fd: number };
}

/** What a data path needs of the kernel and of Deno. */
export interface DataPathHost {
  /** See {@link openTunnelSockets}. */
  openSockets(
    address: IpAddress,
    port: number,
    count: number,
    offloads: boolean,
  ): readonly (Opened & Pick<TunnelSocket, "offloads">)[];
  /** See {@link openRawSocket}. */
  openRawSocket(family: Family): Disposable & { readonly fd: number };
  /** See {@link openTun}. */
  openTun(device: string): Opened & Omit<TunQueue, "descriptor" | "name">;
  /** Starts a thread of carrier_worker.ts. */
  loadThread(name: string): CarrierThread;
}

/** A thread, as {@link Worker} has it. */
export interface CarrierThread {
  /** Tells it what to do. */
  postMessage(order: CarrierOrder): void;
  /** Called with what it says. */
  onmessage: ((event: MessageEvent<CarrierReport>) => void) | null;
  /** Called when it ends with an error that it did not report. */
  onerror: ((event: ErrorEvent) => void) | null;
  /** Ends it. */
  terminate(): void;
}

const HOST: DataPathHost = {
  openSockets: openTunnelSockets,
  openRawSocket,
  openTun,
  loadThread: (name) =>
    new Worker(new URL("./carrier_worker.ts", import.meta.url), { type: "module", name }),
};

type Tun = ReturnType<DataPathHost["openTun"]>;
type Sockets = ReadonlyMap<Family, ReturnType<DataPathHost["openSockets"]>>;
type RawSockets = ReadonlyMap<Family, ReturnType<DataPathHost["openRawSocket"]>>;

/** What was carried and dropped. */
export interface UdpCounts {
  /** Packets that went no further, by reason. */
  readonly drops: Readonly<Record<Drop, number>>;
  /** ICMP errors sent to this node's pods. */
  readonly icmpErrors: number;
  /** Packets sent to peers, those that left included. */
  readonly outbound: Traffic;
  /** Packets taken from them. */
  readonly inbound: Traffic;
}

/** With fewer cores two threads wait for each other more than they work side by side. */
const CORES_FOR_TWO_THREADS = 4;
/** A queue for this many cores: pods need some too. */
const CORES_A_QUEUE = 4;
const MAX_QUEUES = 4;
/** How long threads may take to end: longer than one send may wait. */
const END_PATIENCE_MS = 500;
/** The wait before a thread that failed is started again. */
const RESTART_MS = 1000;
/** The wait between looks for a device that is gone. */
const LOOK_MS = 20;
/** How often the log says what was dropped. */
const LOG_DROPS_MS = 60_000;

/** A thread. */
interface Thread {
  readonly name: string;
  /** Which of the counters are its own. */
  readonly number: number;
  readonly queue: number;
  readonly ways: readonly Way[];
  /** What the thread counts. */
  readonly counters: Counters;
  worker: CarrierThread;
  /** Settled once the thread carries packets, or has failed. */
  readonly running: PromiseWithResolvers<void>;
  /** Resolved while the thread carries none. */
  ended: PromiseWithResolvers<void>;
}

/** Carries packets between one TUN device and the peers. */
export class DataPath implements AsyncDisposable {
  readonly #options: DataPathOptions;
  readonly #host: DataPathHost;
  readonly #queues: number;
  readonly #peers: PeerMapWriter;
  readonly #counters: SharedArrayBuffer;
  readonly #wake: Wake;
  /** For each family the sockets, one a queue. */
  readonly #sockets: Sockets;
  readonly #rawSockets: RawSockets;
  readonly #threads: readonly Thread[];
  readonly #stopping = new AbortController();
  readonly #complaints = new Complaints();
  /** What is closed at the end. */
  readonly #open: DisposableStack;
  #tuns: readonly Tun[] = [];
  #offloads: TunOffloads = { checksums: false, tcp: false, udp: false };
  #reattaching: Promise<void> | undefined;

  /**
   * Opens the sockets and loads the threads, which carry nothing before {@link DataPath.start}. Throws a
   * RuntimeError.
   *
   * @param host the kernel and Deno, unless a test has something else
   */
  static open(options: DataPathOptions, host: DataPathHost = HOST): DataPath {
    const cores = navigator.hardwareConcurrency;
    const queues = options.queues ??
      Math.min(Math.max(Math.floor(cores / CORES_A_QUEUE), 1), MAX_QUEUES);
    const sockets = new Map<Family, ReturnType<DataPathHost["openSockets"]>>();
    const rawSockets = new Map<Family, ReturnType<DataPathHost["openRawSocket"]>>();
    using open = new DisposableStack();
    const wake = open.use(new Wake());
    try {
      for (const address of options.addresses) {
        const { family } = address;
        const opened = host.openSockets(address, options.port, queues, options.offloads);
        for (const socket of opened) open.use(socket);
        sockets.set(family, opened);
        rawSockets.set(family, open.use(host.openRawSocket(family)));
      }
    } catch (error) {
      throw wrapped(error);
    }
    return new DataPath(options, host, { queues, sockets, rawSockets, wake, open: open.move() });
  }

  private constructor(
    options: DataPathOptions,
    host: DataPathHost,
    { queues, sockets, rawSockets, wake, open }: {
      readonly queues: number;
      readonly sockets: Sockets;
      readonly rawSockets: RawSockets;
      readonly wake: Wake;
      readonly open: DisposableStack;
    },
  ) {
    this.#options = options;
    this.#host = host;
    this.#queues = queues;
    this.#sockets = sockets;
    this.#rawSockets = rawSockets;
    this.#wake = wake;
    this.#open = open;
    const apart = options.threadADirection ??
      navigator.hardwareConcurrency >= CORES_FOR_TWO_THREADS;
    const parts: readonly (readonly Way[])[] = apart ? WAYS.map((way) => [way]) : [WAYS];
    this.#peers = new PeerMapWriter(options.capacity);
    this.#counters = Counters.memory(options.capacity, parts.length * queues);
    const shares = Array.from(
      { length: queues },
      (_, queue) => parts.map((ways) => ({ queue, ways })),
    ).flat();
    this.#threads = shares.map(({ queue, ways }, number) => this.#load(queue, ways, number));
    this.#register(options.metrics);
  }

  /** Whether packets may come with their checksum left to do. */
  get takesPartial(): boolean {
    return this.#options.offloads;
  }

  /**
   * Starts carrying packets for pods of these subnets, by the device, which is there. Rejects with a
   * RuntimeError, or with a thread's defect.
   */
  async start(own: readonly Cidr[]): Promise<void> {
    this.#peers.setOwn(own);
    const { device, port, log } = this.#options;
    try {
      this.#tuns = Array.from(
        { length: this.#queues },
        () => this.#open.use(this.#host.openTun(device)),
      );
      this.#setOffloads();
    } catch (error) {
      throw wrapped(error);
    }
    for (const thread of this.#threads) this.#order(thread, this.#setup(thread));
    await Promise.all(this.#threads.map(({ running }) => running.promise));
    const udp = [...this.#sockets.values()].flat().map(({ offloads }) => offloads);
    log.info("udp-started", `packets travel by UDP port ${port}`, {
      queues: this.#queues,
      tunTcp: this.#offloads.tcp,
      tunUdp: this.#offloads.udp,
      udpSegment: udp.every(({ segment }) => segment),
      udpGro: udp.every(({ gro }) => gro),
    });
    this.#logDrops().catch(this.#options.fail);
  }

  #setOffloads(): void {
    const wanted = this.#options.offloads;
    for (const tun of this.#tuns) {
      this.#offloads = wanted ? tun.setOffloads() : tun.clearOffloads();
    }
  }

  /** Adds a peer, or replaces what was there for its subnet. */
  put(record: PeerRecord): void {
    if (this.#peers.put(record, performance.now())) return;
    this.#options.log.error(
      "udp-table-full",
      `udp: pods of ${record.subnet} can't be reached: this node has ${this.#options.capacity} subnets of ` +
        "peers already; make SubnetLen shorter",
    );
  }

  /** Removes a peer. */
  remove(subnet: Cidr): void {
    this.#peers.remove(subnet, performance.now());
  }

  /** What was carried and dropped so far. */
  counts(): UdpCounts {
    return {
      drops: Object.fromEntries(DROPS.map((name) => [name, this.#drops(name)])) as Record<
        Drop,
        number
      >,
      icmpErrors: this.#icmpErrors(),
      outbound: this.#traffic("outbound"),
      inbound: this.#traffic("inbound"),
    };
  }

  #drops(reason: Drop): number {
    return this.#threads.reduce((sum, { counters }) => sum + counters.drops(DROP[reason]), 0);
  }

  #icmpErrors(): number {
    return this.#threads.reduce((sum, { counters }) => sum + counters.icmpErrors, 0);
  }

  #traffic(way: Way): Traffic {
    const peers = this.#peers.counters;
    return this.#threads.map(({ counters }) => counters.traffic(way, 0, peers)).reduce(
      (sum, each) => ({
        packets: sum.packets + each.packets,
        bytes: sum.bytes + each.bytes,
        drops: sum.drops + each.drops,
      }),
    );
  }

  #register(metrics: Metrics): void {
    for (const reason of DROPS) {
      metrics.observedCounter(
        "denim_udp_dropped_packets_total",
        "Packets that the udp backend dropped, by reason.",
        () => this.#drops(reason),
        { reason },
      );
    }
    metrics.observedCounter(
      "denim_udp_icmp_errors_total",
      "ICMP errors that the udp backend sent to this node's pods.",
      () => this.#icmpErrors(),
    );
    for (const direction of WAYS) {
      metrics.observedCounter(
        "denim_udp_packets_total",
        "Pods' packets that the udp backend carried to peers (outbound) and took from them (inbound).",
        () => this.#traffic(direction).packets,
        { direction },
      );
      metrics.observedCounter(
        "denim_udp_bytes_total",
        "Bytes of the packets that the udp backend carried, without the outer headers.",
        () => this.#traffic(direction).bytes,
        { direction },
      );
    }
  }

  /** Logs from time to time what was dropped since the last time. */
  async #logDrops(): Promise<void> {
    let before: Partial<Record<string, number>> = {};
    while (await sleep(LOG_DROPS_MS, this.#stopping.signal)) {
      const { drops } = this.counts();
      const more = Object.entries(drops).map(([name, count]) =>
        [name, count - (before[name] ?? 0)] as const
      ).filter(([, count]) => count > 0);
      before = drops;
      if (more.length === 0) continue;
      this.#options.log.debug("packets-dropped", "dropped packets", Object.fromEntries(more));
    }
  }

  #load(queue: number, ways: readonly Way[], number: number): Thread {
    const name = `udp ${ways.length > 1 ? "" : `${ways[0]} `}${queue}`;
    const thread: Thread = {
      name,
      number,
      queue,
      ways,
      counters: new Counters(this.#counters, this.#options.capacity, number),
      worker: this.#host.loadThread(name),
      running: Promise.withResolvers(),
      ended: Promise.withResolvers(),
    };
    thread.ended.resolve();
    // The thread may fail when `start` does not wait for it.
    thread.running.promise.catch(() => {});
    this.#listen(thread);
    return thread;
  }

  #listen(thread: Thread): void {
    thread.worker.onmessage = ({ data }) => {
      if (data === "running") {
        thread.running.resolve();
        return;
      }
      thread.ended.resolve();
      if (data === "gone") this.#reattach();
      else if (data !== "ended") this.#failed(thread, data.error, data.defect);
    };
    thread.worker.onerror = (event) => {
      event.preventDefault();
      thread.ended.resolve();
      const where = `${event.filename}:${event.lineno}:${event.colno}`;
      this.#failed(thread, new Error(`${event.message} (${where})`), true);
    };
  }

  /** What the system refused a thread may work in a moment. A defect would come again. */
  #failed(thread: Thread, error: unknown, defect: boolean): void {
    const { log, fail } = this.#options;
    if (defect) {
      thread.running.reject(error);
      fail(error);
      return;
    }
    const message = `thread "${thread.name}": ${messageOf(error)}`;
    thread.running.reject(new RuntimeError(`udp: ${message}`, { cause: error }));
    if (this.#complaints.isNew(message, thread.name)) {
      log.error("udp-thread-failed", `${message}; starting it again every ${RESTART_MS / 1000} s`);
    }
    this.#restart(thread).catch(fail);
  }

  async #restart(thread: Thread): Promise<void> {
    thread.worker.terminate();
    if (!await sleep(RESTART_MS, this.#stopping.signal) || this.#tuns.length === 0) return;
    thread.worker = this.#host.loadThread(thread.name);
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
      number: thread.number,
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

  /** The device was deleted: waits until the reconciler has made it again, and goes on. */
  #reattach(): void {
    this.#reattaching ??= this.#waitForDevice().catch(this.#options.fail)
      .finally(() => this.#reattaching = undefined);
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
        this.#complaints.resolve(device);
        log.info("device-back", `device ${device} is there again; packets travel`);
        return;
      } catch (error) {
        throwDefect(error);
        const why = messageOf(error);
        if (!this.#complaints.isNew(why, device)) continue;
        log.error("device-unusable", `udp: ${why}; trying again until it works`);
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
    this.#open.dispose();
  }
}

/** What the kernel refused, as a RuntimeError; throws a defect again. */
function wrapped(error: unknown): RuntimeError {
  throwDefect(error);
  return new RuntimeError(`udp: ${messageOf(error)}`, { cause: error });
}
