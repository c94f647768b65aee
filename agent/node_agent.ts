/**
 * The life of a node: its backend, its lease, its peers, until it is told to stop.
 *
 * @module
 */

import {
  ALL_DEVICES,
  type Cidr,
  ConfigError,
  EventCounter,
  type Family,
  fitsConfig,
  heldBefore,
  type KernelReader,
  type KernelState,
  type Lease,
  type LeaseEvent,
  leaseKey,
  leasePublicIps,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  MAX_SLEEP_MS,
  messageOf,
  type Metrics,
  type NetworkConfig,
  type NodeContext,
  NodeScope,
  type OuterInterface,
  type Peer,
  PeerTable,
  RuntimeError,
  sleep,
} from "@denim/core";
import { kernelReader, NetlinkSocket, Reconciler, type UnderlayNews } from "@denim/core/linux";
import { type AnyBackend, type DataPath, DataPaths, HOLD_MS } from "./data_paths.ts";
import { LeaseKeeper } from "./lease_keeper.ts";
import { findBackend, readBackendOptions } from "./net_conf.ts";
import { type InterfaceChoice, OuterInterfaceFollower } from "./outer_interface.ts";
import { type LastRun, SubnetFile } from "./subnet_file.ts";

/** What a node needs to live. */
export interface NodeOptions {
  /** Where leases live. */
  readonly store: LeaseStore;
  /** The backends that net-conf may name. */
  readonly backends: readonly AnyBackend[];
  /** How to choose the outer interface. */
  readonly interface: InterfaceChoice;
  /** Where subnet.env is written. */
  readonly subnetFile: string;
  /** How long before its end the lease is renewed, in milliseconds. */
  readonly renewMarginMs: number;
  /** Where the node says what it does. */
  readonly log: Logger;
  /** Where the node counts what it does. */
  readonly metrics: Metrics;
  /**
   * Called with `undefined` when subnet.env is written and packets find their way; with a reason when the
   * node is not ready any more.
   */
  readonly onReadiness: (unready: string | undefined) => void;
}

/** The wait before a change that failed is tried again: from this, doubling … */
const MIN_RETRY_MS = 100;
/** … to this. */
const MAX_RETRY_MS = 10_000;
/**
 * A node that is given a lease which may be a running one's is not ready before that one had so long to
 * object.
 */
const OBJECTION_MS = 500;
/** News of the underlay that belongs together comes together: the wait for the rest of it. */
const UNDERLAY_SETTLE_MS = 50;
/** How often a former data path is looked at; it goes when it had no peer at two looks in a row … */
const RETIRE_LOOK_MS = 5_000;
/** … or when its peers have not changed for this long. */
const RETIRE_PATIENCE_MS = 10 * 60_000;

/**
 * Runs a node until the signal is aborted, in the network namespace of this thread. Leaves the data path
 * as it is when it ends, so that pods talk on; but where it fails before it was ready, it takes away
 * what it had made. Rejects with a ConfigError or a RuntimeError.
 */
export async function runNode(options: NodeOptions, signal: AbortSignal): Promise<void> {
  const { store, log } = options;
  const config = await store.networkConfig(signal);
  const families = config.families.map(({ family }) => family);
  findBackend(config, options.backends);

  using socket = new NetlinkSocket();
  const outer = new OuterInterfaceFollower(socket, options.interface, families, log);
  if (config.backend.defaulted) {
    log.warn(
      "backend-defaulted",
      'net-conf names no Backend, which means "udp" as in flannel; say Backend.Type to choose',
    );
  }
  const { name, publicIps, mtuBytes } = outer.current;
  log.info("outer-interface", `the way to other nodes is ${name}`, {
    publicIp: [...publicIps.values()].join(" "),
    mtuBytes,
  });
  const subnetFile = new SubnetFile(options.subnetFile, log);
  const lastRun = subnetFile.lastRun();
  const held = await store.held({ publicIps, ...lastRun }, signal);
  const kernel = kernelReader(socket);
  await using node = new Node(options, { outer, subnetFile, lastRun, held, kernel });
  await node.run(config, signal);
}

/** Where a node is, and what it comes from. */
interface Place {
  readonly outer: OuterInterfaceFollower;
  readonly subnetFile: SubnetFile;
  readonly lastRun: LastRun;
  /** The lease of the last run. */
  readonly held: Lease | undefined;
  readonly kernel: KernelReader;
}

/** One node at work. */
class Node implements AsyncDisposable {
  readonly #options: NodeOptions;
  readonly #place: Place;
  readonly #kernel: KernelReader;
  readonly #reconciler: Reconciler;
  readonly #keeper: LeaseKeeper;
  /** The devices by which the underlay's routes lead, as far as anyone has asked. */
  readonly #ways = new Set<string>();
  /** What sessions of a backend leave to the next. */
  readonly #scope = new NodeScope();
  /** Aborted by the first part that fails. */
  readonly #failed = new AbortController();
  #opened = 0;
  #paths!: DataPaths;
  #config!: NetworkConfig;
  /** The net-conf to change to. */
  #wanted!: NetworkConfig;
  /** Counts the reasons to look whether the data path is the right one. */
  readonly #turns = new EventCounter();
  readonly #closed = new WeakSet<DataPath>();
  /** Whether the node was ready once; before, what fails leaves nothing behind. */
  #wasReady = false;
  #taken = false;
  /** Ends the watch under way, so that all leases are read again. */
  #watching = new AbortController();
  readonly #checked = Promise.withResolvers<void>();
  #allRead = Promise.withResolvers<void>();
  #underlayChanged = false;
  #outerChanged = false;
  #signal: AbortSignal = AbortSignal.abort();

  constructor(options: NodeOptions, place: Place) {
    this.#options = options;
    this.#place = place;
    this.#kernel = {
      ...place.kernel,
      routeTo: (address) => {
        const way = place.kernel.routeTo(address);
        if (way !== undefined) this.#ways.add(way.device);
        return way;
      },
    };
    this.#reconciler = new Reconciler(options.log, (news) => this.#hearUnderlay(news));
    const { store, renewMarginMs, log } = options;
    this.#keeper = new LeaseKeeper({
      store,
      renewMarginMs,
      log,
      request: () => this.#request(),
      onTaken: (taken) => {
        this.#taken = taken;
        if (taken || this.#wasReady) this.#tellReadiness();
      },
    });
  }

  get #lease(): Lease {
    return this.#keeper.lease;
  }

  get #outer(): OuterInterface {
    return this.#place.outer.current;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#reconciler[Symbol.dispose]();
    for (const path of this.#paths?.all ?? []) await this.#close(path);
  }

  async run(config: NetworkConfig, signal: AbortSignal): Promise<void> {
    // One part that fails ends the others, and then the node.
    const failed = this.#failed.signal;
    const all = AbortSignal.any([signal, failed]);
    this.#signal = all;
    all.addEventListener("abort", () => this.#allRead.resolve());
    // Another node with the same public IP may hold it: what that one publishes is not this node's to go on with.
    const { held, lastRun } = this.#place;
    const own = held && heldBefore({ publicIps: this.#outer.publicIps, ...lastRun }, held);
    const first = await this.#open(config, own ? held : undefined);
    this.#config = this.#wanted = config;
    // What the last run left is denim's to remove, also where net-conf's Network is another now.
    this.#reconciler.networks = [...config.families, ...this.#place.lastRun.networks];
    this.#paths = new DataPaths(first, () => {
      sleep(HOLD_MS, all).then((over) => over ? this.#readAll() : undefined);
    });
    const fresh = this.#devicesAreFresh(first);
    try {
      // The device first: a kernel that can't have it costs the cluster no lease.
      this.#makeNode(first, undefined);
      first.peers.ownKey = (await this.#keeper.acquire(all)).key;
      const { lastRun, subnetFile } = this.#place;
      // No pod may be given an address of the last run's subnet where that is another's by now.
      if (this.#lease.key !== leaseKey(lastRun.previousSubnets)) subnetFile.remove();
      this.#makeNode(first, this.#lease);
      await first.session.onLeased?.(this.#lease);
      await this.#keepFormer(config);
      const parts = [
        this.#follow(),
        this.#keeper.run(all),
        this.#followConfig(),
        this.#adapt(),
        this.#keep(),
        this.#becomeReady(),
        this.#place.subnetFile.keep(all),
      ].map((part) =>
        part.catch((error) => {
          this.#failed.abort(error);
          throw error;
        })
      );
      await Promise.allSettled(parts);
      failed.throwIfAborted();
    } catch (error) {
      if (fresh && !this.#wasReady) this.#clear();
      if (signal.aborted) return;
      throw failed.aborted ? failed.reason : error;
    }
  }

  /** Takes away what was made. */
  #clear(): void {
    for (const { owner, peers } of this.#paths.all) {
      for (const key of peers.keys()) this.#reconciler.delete(key);
      this.#reconciler.delete(owner);
    }
    this.#reconciler.apply();
  }

  /** Opens the data path that a net-conf asks for. Changes nothing in the kernel. */
  async #open(config: NetworkConfig, held: Lease | undefined): Promise<DataPath> {
    const { log, metrics, backends } = this.#options;
    const backend = findBackend(config, backends);
    const context: NodeContext = {
      config,
      outer: this.#outer,
      held,
      kernel: this.#kernel,
      log,
      metrics,
      scope: this.#scope,
      signal: this.#signal,
      fail: (error) => this.#failed.abort(error),
    };
    const session = await backend.open(context, readBackendOptions(backend, config));
    const keep = session.followsUnderlay ?? false;
    const { publicIps } = this.#outer;
    const conflict = (peer: Peer<unknown>) =>
      sharedPublicIp(peer, publicIps) ?? session.conflict?.(peer);
    const peers = new PeerTable<unknown>(backend, config, log, { keep, conflict });
    const settings = settingsOf(config, this.#outer);
    return { owner: `node ${++this.#opened}`, settings, backend, session, peers };
  }

  /**
   * net-conf may have changed its backend while no agent ran here: the data path of the lease that was held
   * still reaches the nodes that have not changed, and is taken away in due course.
   */
  async #keepFormer(config: NetworkConfig): Promise<void> {
    const { log, backends } = this.#options;
    const { current } = this.#paths;
    const { held } = this.#place;
    if (held === undefined || held.backendType === current.backend.leaseType) return;
    // Of those without a type, udp and alloc, only denim's udp says something, and leaves something.
    if (held.backendType === "" && held.halves[0]!.backendData === undefined) return;
    const backend = backends.find(({ leaseType }) => leaseType === held.backendType);
    // What a node publishes bears the names of the options that it follows from.
    const options = backend?.options.safeParse(held.halves[0]!.backendData ?? {}).data;
    if (options === undefined) return;
    try {
      const former = { ...config, backend: { type: backend!.type, options, defaulted: false } };
      const path = await this.#open(former, held);
      await this.#setUp(path);
      this.#paths.addFormer(path);
      this.#retire(path);
    } catch (error) {
      log.warn(
        "former-data-path-unreadable",
        `what ${held.backendType} left is not followed: ${messageOf(error)}`,
      );
    }
  }

  /** Whether a data path's devices are yet to be made: then nobody's packets travel by them. */
  #devicesAreFresh({ session }: DataPath): boolean {
    return session.nodeState(undefined).every((object) =>
      object.kind !== "link" || !this.#kernel.hasDevice(object.name)
    );
  }

  #request(): LeaseRequest {
    const { backend, session } = this.#paths.current;
    return {
      publicIps: this.#outer.publicIps,
      ...this.#place.lastRun,
      backendType: backend.leaseType,
      backendData: session.publishes as ReadonlyMap<Family, unknown>,
    };
  }

  /** Makes what the node itself needs. All of it must succeed: without it no peer can be reached. */
  #makeNode(path: DataPath, lease: Lease | undefined, known: readonly string[] = []): void {
    this.#reconciler.set(path.owner, path.session.nodeState(lease));
    const failures = this.#reconciler.apply().failures.filter((text) => !known.includes(text));
    if (failures.length > 0) throw new RuntimeError(failures.join("; "));
  }

  /** Follows the other nodes' leases for as long as the node lives. */
  async #follow(): Promise<void> {
    const signal = this.#signal;
    let first = true;
    do {
      this.#watching = new AbortController();
      const watching = AbortSignal.any([signal, this.#watching.signal]);
      for await (const event of this.#options.store.watch(watching)) {
        const conflicts = this.#takePeers(event);
        const newcomer = first && this.#place.held === undefined;
        if (conflicts.length > 0 && newcomer) await this.#withdraw(conflicts[0]!);
        // Only with all peers known can what an earlier run left be told from what nobody wants.
        this.#apply(first);
        first = false;
        this.#checked.resolve();
        if (event.kind === "snapshot" && !watching.aborted) {
          this.#allRead.resolve();
          this.#allRead = Promise.withResolvers();
        }
        this.#keeper.hear(event);
      }
    } while (this.#watching.signal.aborted && !signal.aborted);
  }

  /** Of two nodes with something that each must have alone, this one came last: it gives up its lease. */
  async #withdraw(conflict: string): Promise<never> {
    await this.#options.store.release(this.#lease.key, this.#signal);
    throw new RuntimeError(
      `${conflict}: if this machine is a clone of that node, remove the devices that it came with (ip link ` +
        "delete flannel.1) and start the agent again; if that lease is this machine's own of before, release " +
        "it (denim leases release)",
    );
  }

  /** Keeps the kernel as it should be, from the first time that all peers are known. */
  async #keep(): Promise<void> {
    this.#signal.addEventListener("abort", () => this.#checked.resolve(), { once: true });
    await this.#checked.promise;
    await this.#reconciler.run(this.#signal);
  }

  /** Reads all leases again; resolves when each was given to its data path, or the node stops. */
  #readAll(): Promise<void> {
    this.#watching.abort();
    return this.#signal.aborted ? Promise.resolve() : this.#allRead.promise;
  }

  /** Hands peers on to their data paths. Tells of those that have what this node must have alone. */
  #takePeers(event: LeaseEvent): readonly string[] {
    const { log } = this.#options;
    const changes = this.#paths.take(event, performance.now());
    const reached = new Set<string>();
    for (const [{ session }, { put }] of changes) {
      for (const peer of put) {
        reached.add(peer.key);
        this.#reconciler.set(peer.key, session.peerState(peer));
        log.debug("peer-set", `peer ${peer.key} put`);
      }
    }
    for (const [{ session }, { put, removed }] of changes) {
      for (const key of removed) {
        if (reached.has(key)) continue;
        this.#reconciler.delete(key);
        log.debug("peer-removed", `peer ${key} removed`);
      }
      if (put.length + removed.length > 0) session.peersChanged?.(put, removed);
    }
    return [...changes.values()].flatMap(({ conflicts }) => conflicts);
  }

  #apply(all = false): void {
    const { failures } = all ? this.#reconciler.check() : this.#reconciler.apply();
    for (const failure of failures) this.#options.log.error("reconcile-failed", failure);
  }

  /** Once all peers are known, and nobody objected to the lease. */
  async #becomeReady(): Promise<void> {
    await this.#checked.promise;
    const { held, lastRun } = this.#place;
    const proven = held === undefined || held.key === leaseKey(lastRun.previousSubnets);
    if (!proven && !await sleep(OBJECTION_MS, this.#signal) || this.#signal.aborted) return;
    this.#reconciler.networks = this.#config.families;
    this.#reconciler.set(HOST, hostState(this.#config));
    const { failures } = this.#reconciler.apply();
    if (failures.length > 0) throw new RuntimeError(failures.join("; "));
    this.#keepHost();
    this.#tellReadiness();
    this.#wasReady = true;
    if (this.#taken) return;
    this.#options.log.info("ready", "this node is ready", {
      subnets: this.#lease.halves.map(({ subnet }) => subnet).join(" "),
      peers: this.#paths.current.peers.size,
      mtuBytes: this.#paths.current.session.mtuBytes,
    });
  }

  /** Without subnet.env no pod is attached, whose address would be a stranger's too. */
  #tellReadiness(): void {
    if (this.#taken) this.#place.subnetFile.remove();
    else this.#writeSubnetEnv();
    this.#options.onReadiness(this.#taken ? "its subnet is another node's" : undefined);
  }

  /** Says what the node needs for its pods, whatever carries their packets to other nodes. */
  #keepHost(): void {
    const links = this.#paths.all.flatMap(({ session }) => session.nodeState(this.#lease))
      .flatMap((object) => object.kind === "link" ? [object.name] : []);
    const devices = [this.#outer.name, ...links];
    const subnets = this.#lease.halves.map(({ subnet }) => subnet);
    this.#reconciler.set(HOST, hostState(this.#config, devices, subnets));
    this.#apply();
  }

  #updateSubnetEnv(): void {
    if (this.#wasReady && !this.#taken) this.#writeSubnetEnv();
  }

  #writeSubnetEnv(): void {
    const { halves } = this.#lease;
    try {
      this.#place.subnetFile.write({
        halves: halves.map(({ subnet }) => ({
          networks: this.#config.families.filter(({ family }) => family === subnet.family)
            .map(({ network }) => network),
          subnet,
        })),
        mtuBytes: this.#paths.current.session.mtuBytes,
        ipMasq: false,
      }, leasePublicIps(this.#lease));
    } catch (error) {
      if (!this.#wasReady) throw error;
      // It is tried again, for as long as it takes.
      this.#options.log.error("subnet-file-failed", messageOf(error));
    }
  }

  /** Looks again at the peers whose state hangs on the underlay, where news of it may concern them. */
  #hearUnderlay(news: UnderlayNews): void {
    const { device, destination } = news;
    if (!this.#outerChanged && this.#place.outer.concerns(news)) {
      this.#outerChanged = true;
      sleep(UNDERLAY_SETTLE_MS, this.#signal).then((over) => {
        this.#outerChanged = false;
        if (over) this.#turns.add();
      });
    }
    if (device !== undefined && !this.#ways.has(device)) return;
    // Pods come and go, each with routes of its own.
    if (destination !== undefined && this.#isLocal(destination)) return;
    if (this.#underlayChanged || !this.#paths.all.some(({ session }) => session.followsUnderlay)) {
      return;
    }
    this.#underlayChanged = true;
    sleep(UNDERLAY_SETTLE_MS, this.#signal).then((over) => {
      this.#underlayChanged = false;
      if (over) this.#lookAgain();
    });
  }

  #isLocal(destination: Cidr): boolean {
    // The kernel makes such a route for itself on each device.
    return destination.family === 6 && destination.address.isLinkLocal ||
      this.#config.families.some(({ network }) => network.contains(destination));
  }

  #lookAgain(): void {
    for (const { session, peers } of this.#paths.all) {
      if (!session.followsUnderlay) continue;
      for (const peer of peers) this.#reconciler.set(peer.key, session.peerState(peer));
    }
    this.#apply();
  }

  /** Follows net-conf for as long as the node lives. */
  async #followConfig(): Promise<void> {
    for await (const config of this.#options.store.watchNetworkConfig(this.#signal)) {
      this.#wanted = config;
      this.#turns.add();
      // It may allow again what it did not.
      if (this.#taken) void this.#keeper.publish();
    }
  }

  /** Changes to another data path whenever net-conf or the outer interface asks for one. */
  async #adapt(): Promise<void> {
    const { log } = this.#options;
    const signal = this.#signal;
    let retryMs = MIN_RETRY_MS, complaint = "", waitMs = MAX_SLEEP_MS, refused = "";
    for (let seen = 0; await this.#turns.after(seen, waitMs, signal);) {
      seen = this.#turns.count;
      waitMs = MAX_SLEEP_MS;
      try {
        const addresses = () => [...this.#outer.addresses.values()].join();
        const before = addresses();
        this.#place.outer.look();
        if (addresses() !== before) this.#options.store.reconnect?.();
        const settings = settingsOf(this.#wanted, this.#outer);
        try {
          // Each try costs packets: what can't be had is tried once.
          if (settings !== refused) {
            await this.#adaptTo(this.#wanted);
            refused = "";
          }
        } catch (error) {
          if (signal.aborted || settings === settingsOf(this.#config, this.#outer)) throw error;
          log.error(
            "net-conf-failed",
            `net-conf is new, but this node goes on as it was: ${messageOf(error)}`,
          );
          refused = settings;
        }
        await this.#adaptTo(this.#config);
        retryMs = MIN_RETRY_MS;
        complaint = "";
      } catch (error) {
        if (signal.aborted) return;
        const why = messageOf(error);
        if (why !== complaint) {
          log.error(
            "underlay-change-failed",
            `the outer interface is new, but this node goes on as it was: ${why}`,
          );
        }
        complaint = why;
        waitMs = retryMs;
        retryMs = Math.min(retryMs * 2, MAX_RETRY_MS);
      }
    }
  }

  /** Changes to the data path that a net-conf and the outer interface ask for, where it is another. */
  async #adaptTo(config: NetworkConfig): Promise<void> {
    const { current } = this.#paths;
    if (current.settings === settingsOf(config, this.#outer) && !this.#closed.has(current)) return;
    await this.#changeTo(config);
  }

  /**
   * Changes to the data path that a net-conf and the outer interface ask for, while packets travel. To another
   * backend: the new one is built, the peers that have it already are reached by it, and only then do the others
   * hear that they can. Those that have not changed yet are reached by the old one, until there is none of them.
   * Of one kind there is one at a time, on one device: the new one takes the old one's place.
   */
  async #changeTo(config: NetworkConfig): Promise<void> {
    const { log, backends } = this.#options;
    const lease = this.#lease;
    const before = this.#paths.current;
    if (!fitsConfig(config, lease.halves.map(({ subnet }) => subnet))) {
      throw new ConfigError(
        `the lease ${lease.key} does not fit it; drain the node's pods and start the agent again`,
      );
    }
    const settings = settingsOf(config, this.#outer);
    const replaces = findBackend(config, backends) === before.backend;
    const former = this.#paths.all.find((path) =>
      path.settings === settings && !this.#closed.has(path)
    );
    const next = former ??
      (replaces ? await this.#replace(before, config) : await this.#build(config));
    this.#paths.change(next);
    this.#config = config;
    this.#reconciler.networks = config.families;
    if (replaces) {
      this.#reconciler.delete(before.owner);
      await this.#close(before);
      // Pods' MTU may be another; the lease waits for the store.
      this.#updateSubnetEnv();
      void this.#publish();
      // The peers that the old one had are the new one's as soon as the store has told of them again.
      void this.#readAll().then(() => this.#paths.delete(before));
    } else {
      await this.#readAll();
      await this.#publish();
    }
    this.#keepHost();
    const { type } = next.backend;
    log.info(
      "data-path-changed",
      replaces ? `${type} is made anew` : `changed from ${before.backend.type} to ${type}`,
      {
        outer: this.#outer.name,
        publicIp: [...this.#outer.publicIps.values()].join(" "),
        mtuBytes: next.session.mtuBytes,
        formerPeers: before.peers.size,
      },
    );
    if (!replaces) this.#retire(before);
  }

  /** Has the lease say what the current data path publishes, and takes note under which addresses it does. */
  async #publish(): Promise<void> {
    await this.#keeper.publish();
    this.#updateSubnetEnv();
  }

  /** Builds a data path beside those that there are; leaves nothing of it where that fails. */
  async #build(config: NetworkConfig): Promise<DataPath> {
    // What fails already is not its fault.
    const { failures } = this.#reconciler.check();
    const path = await this.#open(config, this.#lease);
    await this.#setUp(path, failures);
    return path;
  }

  /** Makes what an open data path needs of the node; takes it away and closes it where that fails. */
  async #setUp(path: DataPath, known: readonly string[] = []): Promise<void> {
    path.peers.ownKey = this.#lease.key;
    try {
      this.#makeNode(path, this.#lease, known);
      await path.session.onLeased?.(this.#lease);
    } catch (error) {
      this.#reconciler.delete(path.owner);
      this.#apply();
      await this.#close(path);
      throw error;
    }
  }

  /**
   * Builds a data path that takes another's place. That one makes room where it must, as for the same port;
   * where it did so in vain, it is closed, and has to be built again.
   */
  async #replace(before: DataPath, config: NetworkConfig): Promise<DataPath> {
    try {
      return await this.#build(config);
    } catch (error) {
      if (error instanceof ConfigError) throw error;
    }
    await this.#close(before);
    return await this.#build(config);
  }

  /** Ends a data path's backend, once. */
  async #close(path: DataPath): Promise<void> {
    if (this.#closed.has(path)) return;
    this.#closed.add(path);
    await path.session[Symbol.asyncDispose]();
  }

  /** Takes a former data path away once nobody is reached by it, or its peers have had their time. */
  async #retire(path: DataPath): Promise<void> {
    const { log } = this.#options;
    const deadlineMs = performance.now() + RETIRE_PATIENCE_MS;
    let quiet = false;
    for (;;) {
      if (!await sleep(RETIRE_LOOK_MS, this.#signal) || path === this.#paths.current) return;
      const empty = path.peers.size === 0;
      if (empty && quiet || performance.now() > deadlineMs) break;
      quiet = empty;
    }
    if (!this.#paths.all.includes(path)) return;
    try {
      for (const key of path.peers.keys()) this.#reconciler.delete(key);
      this.#paths.delete(path);
      this.#reconciler.delete(path.owner);
      this.#apply();
      await this.#close(path);
      log.info("data-path-retired", `${path.backend.type} is gone from this node`);
      if (path.peers.size > 0) await this.#readAll();
    } catch (error) {
      log.error(
        "data-path-retire-failed",
        `${path.backend.type} could not be taken away: ${messageOf(error)}`,
      );
    }
  }
}

/** The public IP of a peer that is this node's too. */
function sharedPublicIp(
  { halves }: Peer<unknown>,
  publicIps: OuterInterface["publicIps"],
): string | undefined {
  const half = halves.find(({ publicIp }) => publicIps.get(publicIp.family)?.equals(publicIp));
  return half && `public IP ${half.publicIp}`;
}

/** All that a data path is made from, as text. */
function settingsOf({ backend, families }: NetworkConfig, outer: OuterInterface): string {
  const { name, mtuBytes, addresses, publicIps } = outer;
  return JSON.stringify([backend, families, name, mtuBytes, [...addresses], [...publicIps]]);
}

/** On whose behalf the reconciler keeps what {@link hostState} says. */
const HOST = "host";

/**
 * What a node needs for its pods, whose subnets these are, and whose packets to and from elsewhere come in by
 * these devices. Without both it is what the node can't do without.
 */
function hostState(
  { families }: NetworkConfig,
  devices: readonly string[] = [],
  subnets: readonly Cidr[] = [],
): KernelState {
  const switches = families.flatMap(({ family }) =>
    // IPv6 heeds the node's switch alone; a device's says whether it takes advertised routes.
    [ALL_DEVICES, ...family === 4 ? devices : []]
      .map((device) => ({ kind: "forwarding", family, device }) as const)
  );
  const gateways = subnets.map((subnet) => (
    { kind: "gateway", address: subnet.at(1n), prefixLength: subnet.prefixLength } as const
  ));
  return [...switches, ...gateways];
}
