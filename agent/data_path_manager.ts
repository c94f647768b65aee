/**
 * The data paths of a node: opens them, builds them, changes from one to another while packets travel, and
 * removes them.
 *
 * @module
 */

import {
  type Cidr,
  type Clock,
  ConfigError,
  type Counter,
  fitsConfig,
  type KernelState,
  type Lease,
  type LeaseEvent,
  messageOf,
  type Metrics,
  type NetworkConfig,
  type Peer,
  type Route,
  RuntimeError,
  subnetRoute,
  throwDefect,
  withinNetworks,
} from "@denim/core";
import { DataPath, type DataPathContext, fingerprintOf } from "./data_path.ts";
import { DataPaths, HOLD_MS } from "./data_paths.ts";
import { type DesiredKernel, logFailures } from "./desired_kernel.ts";
import { type Handover, Handovers } from "./handovers.ts";
import { findBackend } from "./net_conf.ts";
import type { PeerList, PeerWay } from "./peer_list.ts";

/** How often a former data path is looked at, in milliseconds. It retires if two looks in a row find no peer. */
export const RETIRE_LOOK_MS = 5_000;
/** How long a former data path stays at most, in milliseconds, even if peers still use it. */
export const RETIRE_PATIENCE_MS = 10 * 60_000;

/**
 * How long a peer may take to hear what this node has published, and to make a handshake, in milliseconds. Until then it is
 * reached as before, if the new data path takes packets from peers alone.
 */
export const HEARD_MS = 500;

/** What a {@link DataPathManager} works with. */
export interface DataPathManagerOptions extends DataPathContext {
  /** Makes the kernel as the data paths need it. */
  readonly reconciler: DesiredKernel;
  /** The node's lease. Asked for once the node has one. */
  readonly lease: () => Lease;
  /** Writes the lease as {@link DataPathManager.current} publishes it; resolves when it is written. */
  readonly publish: () => Promise<void>;
  /** Has every lease given to {@link DataPathManager.apply} again; resolves when that is done. */
  readonly rereadLeases: () => Promise<void>;
  /** Called when the devices or the MTU of the data paths may be different. */
  readonly onChange: () => void;
  /** Takes what goes on after a change: waiting for the store, and retiring. */
  readonly runInBackground: (task: Promise<void>) => void;
  /** By which former data paths retire. */
  readonly clock: Clock;
  /** Told of each peer, and of how it is reached. */
  readonly peers: Pick<PeerList, "put" | "delete" | typeof Symbol.iterator>;
  /** Takes `denim_peers`, `denim_data_paths` and `denim_data_path_changes_total`. */
  readonly metrics: Metrics;
}

/** The way to the peers of a data path. */
interface Way extends PeerWay {
  /** The routes that lead to all of them: one for each family, or none if each peer has its own. */
  readonly networkRoutes: readonly (Route & { readonly device: string })[];
}

/**
 * Has one current data path, and while the cluster changes its backend former ones beside it. Of one backend there
 * is one open data path at a time, since two would need the same device or port.
 */
export class DataPathManager implements AsyncDisposable {
  readonly #options: DataPathManagerOptions;
  readonly #paths: DataPaths;
  #config: NetworkConfig;
  /** Those whose peers have routes of their own, since another one's route leads to the whole network. */
  readonly #oneByOne = new WeakSet<DataPath>();
  /** Which peers those are, by the keys of their leases. */
  readonly #routedAlone = new Set<string>();
  readonly #handovers: Handovers;
  /** The current data path as long as other nodes may not have heard that this node has it. */
  #unheard: DataPath | undefined;
  /** Ends the wait for a former data path's end. */
  readonly #retiring = new Map<DataPath, AbortController>();
  readonly #changed: Counter;
  readonly #failed: Counter;

  /** Starts with a data path that is open, and the net-conf that it was opened with. */
  constructor(first: DataPath, config: NetworkConfig, options: DataPathManagerOptions) {
    this.#options = options;
    this.#config = config;
    this.#handovers = new Handovers(options.reconciler);
    const { clock, metrics, rereadLeases, runInBackground, signal } = options;
    this.#paths = new DataPaths(first, () =>
      runInBackground((async () => {
        if (await clock.sleep(HOLD_MS, signal)) await rereadLeases();
      })()));
    const count = (result: string) =>
      metrics.counter(
        "denim_data_path_changes_total",
        "Changes to another data path, by how they ended.",
        { result },
      );
    [this.#changed, this.#failed] = [count("done"), count("failed")];
    metrics.gauge("denim_data_paths", "Data paths that are open.", () => this.#open.length);
    const peers = (state: string, read: () => number) =>
      metrics.gauge("denim_peers", "Other nodes, by which data path reaches them.", read, {
        state,
      });
    peers("current", () => this.current.peers.size);
    peers("former", () => sumOf(this.all.slice(1), ({ peers }) => peers.size));
    peers("refused", () => sumOf(this.all, ({ peers }) => [...peers.keys()].length - peers.size));
  }

  /** The data path that this node publishes with its lease. */
  get current(): DataPath {
    return this.#paths.current;
  }

  /** The current data path, and then the former ones. */
  get all(): readonly DataPath[] {
    return this.#paths.all;
  }

  /** The net-conf that the current data path was made for. */
  get config(): NetworkConfig {
    return this.#config;
  }

  /** The names of the devices by which pods' packets travel between nodes, but for the outer interface. */
  get devices(): readonly string[] {
    return this.#open.flatMap((path) => path.devices(this.#options.lease()));
  }

  get #open(): readonly DataPath[] {
    return this.all.filter(({ closed }) => !closed);
  }

  /** Closes all data paths. What the kernel has for them stays, so that pods talk on. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const path of this.all) await path.close();
  }

  /** Whether the kernel has none of the first data path's devices yet: no packets travel by them then. */
  isNew(): boolean {
    return this.current.devices(undefined).every((name) => !this.#options.kernel.hasDevice(name));
  }

  /**
   * Makes what the first data path can have without a lease, so that a node whose kernel lacks something costs the
   * cluster no lease. Throws a RuntimeError.
   */
  prepare(): void {
    this.#makeNode(this.current, undefined);
  }

  /** Makes what the first data path needs, now that the node has a lease. Rejects with a RuntimeError. */
  async start(): Promise<void> {
    await this.#establish(this.current);
  }

  /** Removes from the kernel what was made. */
  clear(): void {
    for (const { owner, peers } of this.all) {
      for (const key of peers.keys()) this.#deletePeer(key);
      this.#options.reconciler.delete(owner);
    }
    this.#options.reconciler.apply();
  }

  /**
   * Keeps the data path of the last run's lease, if it is of another backend: net-conf has changed while no agent ran
   * here. It reaches the nodes that have not changed yet, and is removed in due course. If it cannot be kept the log
   * says so.
   */
  async keepFormer(held: Lease | undefined): Promise<void> {
    const { backends, log } = this.#options;
    if (held === undefined || held.backendType === this.current.backend.leaseType) return;
    const { backendData } = held.halves[0]!;
    // An empty type is udp's or alloc's; only denim's udp publishes data and leaves something behind.
    if (held.backendType === "" && backendData === undefined) return;
    try {
      const backend = backends.find(({ leaseType }) => leaseType === held.backendType);
      if (backend === undefined) {
        throw new ConfigError(`this agent has no backend "${held.backendType}"`);
      }
      // What a node publishes has the names of the options that it follows from.
      const options = (backendData ?? {}) as Record<string, unknown>;
      const former = { type: backend.type, options, defaulted: false };
      const path = await DataPath.open({ ...this.#config, backend: former }, held, this.#options);
      this.#oneByOne.add(path);
      await this.#establishOrUndo(path);
      this.#paths.addFormer(path);
      this.#routeNetwork(this.current);
      this.#applyState();
      this.#retire(path);
    } catch (error) {
      throwDefect(error);
      log.warn(
        "former-data-path-lost",
        "this agent cannot keep the data path of the last run, so it does not reach nodes that still use " +
          `that one: ${messageOf(error)}`,
      );
    }
  }

  /**
   * Takes an event of the store's watch: says what the kernel needs for the peers in it, and tells the backends.
   * Nothing happens in the kernel before the reconciler applies it.
   */
  apply(event: LeaseEvent): void {
    const { clock, log } = this.#options;
    const changes = [...this.#paths.apply(event, clock.nowMs())];
    const left = new Map(
      changes.flatMap(([path, { removed }]) => removed.map((key) => [key, path] as const)),
    );
    const done: Handover[] = [];
    for (const [path, { put }] of changes) {
      const way = put.length === 0 ? undefined : this.#wayOf(path);
      for (const peer of put) {
        const from = left.get(peer.key);
        left.delete(peer.key);
        if (!this.#waits(path, peer, from)) done.push(...this.#handOver(path, way!, peer, from));
        log.debug("peer-set", `peer ${peer.key} is new or different`);
      }
    }
    for (const key of left.keys()) {
      this.#deletePeer(key);
      log.debug("peer-removed", `peer ${key} is gone`);
    }
    for (const [path, { put, removed }] of changes) {
      const gone = removed.filter((key) => !this.#handovers.has(key, path));
      if (put.length + gone.length > 0 && !path.closed) {
        path.session.peersChanged?.(put, gone);
      }
    }
    this.#endLater(done);
  }

  /** Whether a peer is reached as before for the time being: it may not have heard that this node has another data path. */
  #waits(path: DataPath, peer: Peer<unknown>, from: DataPath | undefined): boolean {
    const before = from ?? this.#handovers.awaited(peer.key, path)?.from;
    if (before === undefined || before.closed || path !== this.#unheard) return false;
    this.#handovers.begin(peer, before, path);
    return true;
  }

  /** Has a data path reach a peer. Returns the handover if the one before takes the peer's packets still. */
  #handOver(path: DataPath, way: Way, peer: Peer<unknown>, from: DataPath | undefined): Handover[] {
    const handover = this.#handovers.finish(peer, from, path);
    this.#setPeer(path, way, peer);
    return handover === undefined ? [] : [handover];
  }

  /** Has the handovers done that wait for a data path, or for its end. */
  #finish(path: DataPath): void {
    const done = this.#handovers.undone(path).flatMap(({ peer, from, to }) =>
      this.#handOver(to, this.#wayOf(to), peer, from)
    );
    this.#applyState();
    this.#endLater(done);
  }

  /** Ends handovers that are done, once the peers must have heard of them. */
  #endLater(done: readonly Handover[]): void {
    if (done.length === 0) return;
    const { clock, runInBackground, signal } = this.#options;
    runInBackground((async () => {
      if (!await clock.sleep(HOLD_MS, signal)) return;
      for (const handover of done) this.#handovers.end(handover.peer.key, handover);
      this.#applyState();
    })());
  }

  /** Whether any data path depends on the underlay's routes. */
  get followsUnderlay(): boolean {
    return this.#open.some(({ session }) => session.followsUnderlay);
  }

  /** Whether any data path has to know of peers. */
  get reachesPeers(): boolean {
    return this.#open.some(({ session }) => session.reachesPeers ?? true);
  }

  /** Asks the backends that depend on the underlay's routes for every peer's state again. */
  refreshPeers(): void {
    for (const path of this.#open) {
      if (!path.session.followsUnderlay) continue;
      const way = this.#wayOf(path);
      for (const peer of path.peers) this.#setPeer(path, way, peer, true);
    }
    this.#applyState();
  }

  #wayOf({ backend, session }: DataPath): Way {
    const objects = session.nodeState(this.#options.lease());
    return {
      backend: backend.type,
      mtuBytes: session.mtuBytes,
      hasDeviceAddress: objects.some(({ kind }) => kind === "address"),
      devices: objects.flatMap((object) => object.kind === "link" ? [object.name] : []),
      networkRoutes: objects.flatMap((object) =>
        object.kind === "route" && "device" in object ? [object] : []
      ),
    };
  }

  #setPeer(path: DataPath, way: Way, peer: Peer<unknown>, isSame = false): void {
    const { reconciler, peers } = this.#options;
    const state = path.session.peerState(peer);
    reconciler.set(peer.key, state);
    this.#routeAlone(peer, this.#oneByOne.has(path) ? way.networkRoutes : []);
    peers.put(peer, state, way, isSame);
  }

  /** Gives a peer routes of its own beside those that lead to the whole network; it gives them up if there are none. */
  #routeAlone(
    { key, halves }: {
      readonly key: string;
      readonly halves: readonly { readonly subnet: Cidr }[];
    },
    networkRoutes: Way["networkRoutes"],
  ): void {
    const routes = halves.flatMap(({ subnet }): KernelState => {
      const route = networkRoutes.find(({ destination }) => destination.contains(subnet));
      return route === undefined ? [] : subnetRoute(subnet, route.device);
    });
    if (routes.length > 0) this.#routedAlone.add(key);
    else if (!this.#routedAlone.delete(key)) return;
    this.#options.reconciler.set(`route to ${key}`, routes);
  }

  /**
   * Makes room for a data path that has one route for the whole network: peers that another one reaches by such a route
   * get routes of their own. Nothing happens in the kernel yet.
   */
  #makeRoom(next: DataPath): void {
    if (this.#wayOf(next).networkRoutes.length === 0) return;
    for (const path of this.#open) {
      if (path.backend !== next.backend) this.#routePeers(path, true);
    }
  }

  /** Gives a data path the route for the whole network, if it has one: the last that asks for it gets it. */
  #routeNetwork(path: DataPath): void {
    this.#options.reconciler.set(path.owner, path.session.nodeState(this.#options.lease()));
    this.#routePeers(path, false);
  }

  #routePeers(path: DataPath, oneByOne: boolean): void {
    if (oneByOne === this.#oneByOne.has(path)) return;
    if (oneByOne) this.#oneByOne.add(path);
    else this.#oneByOne.delete(path);
    const { networkRoutes } = this.#wayOf(path);
    if (networkRoutes.length === 0) return;
    for (const peer of this.#options.peers) {
      if (peer.way.backend !== path.backend.type) continue;
      this.#routeAlone(peer, oneByOne ? networkRoutes : []);
    }
  }

  #deletePeer(key: string): void {
    const { reconciler, peers } = this.#options;
    reconciler.delete(key);
    this.#handovers.end(key);
    this.#routeAlone({ key, halves: [] }, []);
    peers.delete(key);
  }

  /**
   * Changes to the data path that a net-conf and the outer interface ask for, unless it is the current one. Rejects
   * with an ExpectedError if it cannot be had; the current one stays then, but may be {@link DataPath.closed}: call
   * it again with {@link DataPathManager.config}.
   */
  async changeTo(config: NetworkConfig): Promise<void> {
    const fingerprint = fingerprintOf(config, this.#options);
    if (this.current.fingerprint === fingerprint && !this.current.closed) return;
    try {
      await this.#changeTo(config, fingerprint);
      this.#changed.add();
    } catch (error) {
      this.#failed.add();
      throw error;
    }
  }

  /** Goes on by a net-conf that asks for the data path that there is, and may ask for another packet filter. */
  keepUnder(config: NetworkConfig): void {
    if (config.enableNFTables === this.#config.enableNFTables) return;
    this.#config = config;
    this.#options.onChange();
  }

  /**
   * If the backend is another one, the new data path is built, then it reaches the peers that have it already, and only
   * then the node publishes it. The old data path reaches the peers that have not changed yet. If the backend is the
   * same, the new data path takes the old one's place.
   *
   * A data path that takes packets from peers alone reaches them a little later than it is published: until then they don't
   * take this node's.
   */
  async #changeTo(config: NetworkConfig, fingerprint: string): Promise<void> {
    const { backends, lease, outer, log } = this.#options;
    if (!this.#allows(config)) {
      throw new ConfigError(
        `the lease ${lease().key} does not fit it; drain the node's pods and start the agent again`,
      );
    }
    const backend = findBackend(config, backends);
    const before = this.current;
    const rival = this.#open.find((path) => path.backend === backend);
    const next = rival?.fingerprint === fingerprint
      ? rival
      : await (rival === undefined ? this.#build(config) : this.#replace(rival, config));
    await this.#adopt(next, config);
    const { type } = backend;
    log.info(
      "data-path-changed",
      before.backend === backend
        ? `the ${type} data path is rebuilt`
        : `the data path is changed from ${before.backend.type} to ${type}`,
      {
        outer: outer.current.name,
        publicIp: [...outer.current.publicIps.values()].join(" "),
        mtuBytes: this.current.session.mtuBytes,
        formerPeers: before.peers.size,
      },
    );
  }

  /**
   * Whether the node can keep its lease under a net-conf. Some stores have other subnets to give than net-conf would
   * choose, or lack those of a family, as Kubernetes may: then it is enough that the subnets lie in the networks.
   */
  #allows(config: NetworkConfig): boolean {
    const subnets = this.#options.lease().halves.map(({ subnet }) => subnet);
    return fitsConfig(config, subnets) ||
      !fitsConfig(this.#config, subnets) && withinNetworks(config, subnets);
  }

  /** Makes an established data path the current one. */
  async #adopt(next: DataPath, config: NetworkConfig): Promise<void> {
    const { clock, reconciler, onChange, publish, rereadLeases, runInBackground, signal } =
      this.#options;
    const before = this.current;
    this.#keep(next);
    this.#paths.change(next);
    this.#config = config;
    reconciler.networks = config.families;
    this.#makeRoom(next);
    this.#routeNetwork(next);
    this.#applyState();
    const replaced = this.all.filter((path) => path !== next && path.backend === next.backend);
    this.#unheard = next.session.refusesStrangers && !replaced.includes(before) ? next : undefined;
    for (const path of replaced) {
      this.#keep(path);
      await this.#close(path);
    }
    onChange();
    // In the background: the store may be out of reach, while net-conf and the outer interface change again.
    const reread = async () => {
      await rereadLeases();
      if (replaced.length === 0 || signal.aborted) return;
      // Their peers are the next one's now: a device that went before would take the peers' routes with it.
      for (const path of replaced) {
        this.#paths.delete(path);
        reconciler.delete(path.owner);
      }
      this.#applyState();
    };
    if (replaced.includes(before)) {
      // Peers must know at once what a data path has that takes another's place.
      runInBackground(publish());
      runInBackground(reread());
      return;
    }
    runInBackground((async () => {
      await reread();
      if (this.current === next) await publish();
      if (this.#unheard === next) {
        if (!await clock.sleep(HEARD_MS, signal)) return;
        this.#unheard = undefined;
        this.#finish(next);
      }
      this.#retire(before);
    })());
  }

  /** Builds a data path beside those that there are. If that fails nothing of it stays. */
  async #build(config: NetworkConfig): Promise<DataPath> {
    // What fails already is not its fault.
    const { failures } = this.#options.reconciler.check();
    const path = await DataPath.open(config, this.#options.lease(), this.#options);
    this.#makeRoom(path);
    try {
      await this.#establishOrUndo(path, failures);
    } catch (error) {
      this.#routeNetwork(this.current);
      this.#applyState();
      throw error;
    }
    return path;
  }

  /**
   * Builds a data path that takes another's place. The other one is closed if it is in the way, for instance because
   * both need one port. If even that is in vain, the other one stays closed.
   */
  async #replace(before: DataPath, config: NetworkConfig): Promise<DataPath> {
    try {
      return await this.#build(config);
    } catch (error) {
      throwDefect(error);
      if (error instanceof ConfigError) throw error;
      this.#options.log.debug(
        "data-path-makes-room",
        `the ${before.backend.type} data path may be in the way of its successor: ${
          messageOf(error)
        }`,
      );
    }
    await this.#close(before);
    return await this.#build(config);
  }

  async #establishOrUndo(path: DataPath, known: readonly string[] = []): Promise<void> {
    try {
      await this.#establish(path, known);
    } catch (error) {
      this.#options.reconciler.delete(path.owner);
      this.#applyState();
      await this.#close(path);
      throw error;
    }
  }

  /** Makes what an open data path needs of the node, and has its backend do the rest. */
  async #establish(path: DataPath, known: readonly string[] = []): Promise<void> {
    const lease = this.#options.lease();
    path.peers.ownKey = lease.key;
    this.#makeNode(path, lease, known);
    await path.session.onLeased?.(lease);
  }

  /** All of it must succeed: without it this node reaches no peer. `known` are failures from before. */
  #makeNode(path: DataPath, lease: Lease | undefined, known: readonly string[] = []): void {
    const { reconciler } = this.#options;
    reconciler.set(path.owner, path.session.nodeState(lease));
    const failures = reconciler.apply().failures.filter((text) => !known.includes(text));
    if (failures.length > 0) throw new RuntimeError(failures.join("; "));
  }

  #applyState(): void {
    logFailures(this.#options.reconciler.apply(), this.#options.log);
  }

  /** Closes a data path that nobody needs any more: if its backend ends badly, the node goes on. */
  async #close(path: DataPath): Promise<void> {
    try {
      await path.close();
    } catch (error) {
      throwDefect(error);
      this.#options.log.warn(
        "data-path-close-failed",
        `the ${path.backend.type} backend did not end well: ${messageOf(error)}`,
      );
    }
  }

  /** Removes a former data path in due course, unless it becomes the current one or is replaced before. */
  #retire(path: DataPath): void {
    const { clock, runInBackground, signal } = this.#options;
    if (path === this.current || !this.all.includes(path) || this.#retiring.has(path)) return;
    const kept = new AbortController();
    this.#retiring.set(path, kept);
    runInBackground((async () => {
      const waiting = AbortSignal.any([signal, kept.signal]);
      const deadlineMs = clock.nowMs() + RETIRE_PATIENCE_MS;
      for (let quiet = false; await clock.sleep(RETIRE_LOOK_MS, waiting);) {
        const empty = path.peers.size === 0;
        if (empty && quiet || clock.nowMs() >= deadlineMs) {
          this.#retiring.delete(path);
          return await this.#remove(path);
        }
        quiet = empty;
      }
    })());
  }

  /** Ends the wait for a data path's end. */
  #keep(path: DataPath): void {
    this.#retiring.get(path)?.abort();
    this.#retiring.delete(path);
  }

  async #remove(path: DataPath): Promise<void> {
    const { reconciler, onChange, rereadLeases, log } = this.#options;
    this.#finish(path);
    this.#handovers.endFrom(path);
    this.#paths.delete(path);
    // First, so that the backend does not take the end of its device for a fault.
    await this.#close(path);
    for (const key of path.peers.keys()) this.#deletePeer(key);
    reconciler.delete(path.owner);
    this.#applyState();
    onChange();
    log.info("data-path-retired", `the former ${path.backend.type} data path is removed`, {
      formerPeers: path.peers.size,
    });
    // The current data path refuses them, and says why; if it reaches no peer the watch ends.
    if (path.peers.size > 0 || !this.reachesPeers) await rereadLeases();
  }
}

function sumOf(paths: readonly DataPath[], count: (path: DataPath) => number): number {
  return paths.reduce((total, path) => total + count(path), 0);
}
