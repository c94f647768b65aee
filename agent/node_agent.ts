/**
 * The life of a node: its backend, its lease, its peers, until it is told to stop.
 *
 * @module
 */

import {
  Cidr,
  ConfigError,
  type Family,
  fitsConfig,
  formatSubnetEnv,
  type KernelReader,
  type Lease,
  type LeaseEvent,
  LeaseLostError,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  MAX_SLEEP_MS,
  messageOf,
  type NetworkConfig,
  type NodeContext,
  type NodeIdentity,
  type OuterInterface,
  parseSubnetEnv,
  PeerTable,
  RuntimeError,
  sleep,
} from "@denim/core";
import {
  FORWARDING,
  kernelReader,
  NetlinkSocket,
  Reconciler,
  type UnderlayNews,
  writeSysctl,
} from "@denim/core/linux";
import { type AnyBackend, type DataPath, DataPaths, HOLD_MS } from "./data_paths.ts";
import { findBackend, readBackendOptions } from "./net_conf.ts";
import { findOuterInterface, type InterfaceChoice } from "./outer_interface.ts";

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
  /** Called once, when subnet.env is written and packets find their way. */
  readonly onReady: (lease: Lease) => void;
}

/** Waits between attempts at what fails from outside: from this, doubling … */
const MIN_RETRY_MS = 1_000;
/** … to this. */
const MAX_RETRY_MS = 60_000;
/** A lease whose margin is over already is renewed after this. */
const MIN_RENEW_WAIT_MS = 1_000;
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
  const outer = findOuterInterface(socket, options.interface, families);
  if (config.backend.defaulted) {
    log.warn(
      'net-conf names no Backend, which means "udp" as in flannel; say Backend.Type to choose',
    );
  }
  log.info(`the way to other nodes is ${outer.name}`, {
    publicIp: [...outer.publicIps.values()].join(" "),
    mtuBytes: outer.mtuBytes,
  });
  const identity: NodeIdentity = {
    publicIps: outer.publicIps,
    previousSubnets: previousSubnets(options.subnetFile, log),
  };
  const held = await store.held(identity, signal);
  await using node = new Node(options, { outer, identity, kernel: kernelReader(socket) });
  await node.run(config, held, signal);
}

/** Where a node is. */
interface Place {
  readonly outer: OuterInterface;
  readonly identity: NodeIdentity;
  readonly kernel: KernelReader;
}

/** One node at work. */
class Node implements AsyncDisposable {
  readonly #options: NodeOptions;
  readonly #place: Place;
  readonly #kernel: KernelReader;
  readonly #reconciler: Reconciler;
  /** The devices by which the underlay's routes lead, as far as anyone has asked. */
  readonly #ways = new Set<string>();
  #opened = 0;
  #paths!: DataPaths;
  #config!: NetworkConfig;
  #lease: Lease | undefined;
  /** What is done to the lease in the store is done one after another. */
  #leaseTurn: Promise<unknown> = Promise.resolve();
  /** Ends the watch under way, so that all leases are read again. */
  #watching = new AbortController();
  readonly #checked = Promise.withResolvers<void>();
  #allRead = Promise.withResolvers<void>();
  #underlayChanged = false;
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
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#reconciler[Symbol.dispose]();
    for (const { session } of this.#paths?.all ?? []) await session[Symbol.asyncDispose]();
  }

  async run(config: NetworkConfig, held: Lease | undefined, signal: AbortSignal): Promise<void> {
    // One part that fails ends the others, and then the node.
    const failed = new AbortController();
    const all = AbortSignal.any([signal, failed.signal]);
    this.#signal = all;
    all.addEventListener("abort", () => this.#allRead.resolve());
    const first = await this.#open(config, held);
    this.#config = config;
    this.#paths = new DataPaths(first, () => {
      sleep(HOLD_MS, all).then((over) => over ? this.#readAll() : undefined);
    });
    const fresh = this.#devicesAreFresh(first);
    let ready = false;
    try {
      // The device first: a kernel that can't have it costs the cluster no lease.
      this.#makeNode(first, undefined);
      this.#lease = await this.#options.store.acquire(this.#request(first), all);
      first.peers.ownKey = this.#lease.key;
      this.#makeNode(first, this.#lease);
      await first.session.leased?.(this.#lease);
      await this.#keepFormer(config, held);
      const parts = [
        this.#follow(() => ready = true),
        this.#renew(),
        this.#followConfig(),
        this.#keep(),
      ].map((part) =>
        part.catch((error) => {
          failed.abort(error);
          throw error;
        })
      );
      const [broken] = (await Promise.allSettled(parts)).filter(({ status }) =>
        status === "rejected"
      ) as PromiseRejectedResult[];
      if (broken !== undefined && !signal.aborted) throw failed.signal.reason;
    } catch (error) {
      if (fresh && !ready) {
        this.#reconciler.delete(first.owner);
        this.#reconciler.apply();
      }
      if (signal.aborted) return;
      throw error;
    }
  }

  /** Opens the data path that a net-conf asks for. Changes nothing in the kernel. */
  async #open(config: NetworkConfig, held: Lease | undefined): Promise<DataPath> {
    const { log, backends } = this.#options;
    const backend = findBackend(config, backends);
    const context: NodeContext = {
      config,
      outer: this.#place.outer,
      held,
      kernel: this.#kernel,
      log,
      signal: this.#signal,
    };
    const session = await backend.open(context, readBackendOptions(backend, config));
    const keep = session.followsUnderlay ?? false;
    const peers = new PeerTable<unknown>(backend, config, log, { keep });
    const settings = settingsOf(config);
    return { owner: `node ${++this.#opened}`, settings, backend, session, peers };
  }

  /**
   * net-conf may have changed its backend while no agent ran here: the data path of the lease that was held
   * still reaches the nodes that have not changed, and is taken away in due course.
   */
  async #keepFormer(config: NetworkConfig, held: Lease | undefined): Promise<void> {
    const { log, backends } = this.#options;
    const { current } = this.#paths;
    if (held === undefined || held.backendType === current.backend.leaseType) return;
    const backend = backends.find(({ leaseType }) => leaseType === held.backendType);
    // What a node publishes bears the names of the options that it follows from.
    const options = backend?.options.safeParse(held.halves[0]!.backendData ?? {}).data;
    if (options === undefined) return;
    let path: DataPath | undefined;
    try {
      const former = { ...config, backend: { type: backend!.type, options, defaulted: false } };
      path = await this.#open(former, held);
      path.peers.ownKey = this.#lease!.key;
      this.#makeNode(path, this.#lease);
      await path.session.leased?.(this.#lease!);
      this.#paths.addFormer(path);
      this.#retire(path);
    } catch (error) {
      log.warn(`what ${held.backendType} left is not followed: ${messageOf(error)}`);
      if (path === undefined) return;
      this.#reconciler.delete(path.owner);
      await path.session[Symbol.asyncDispose]();
    }
  }

  /** Whether a data path's devices are yet to be made: then nobody's packets travel by them. */
  #devicesAreFresh({ session }: DataPath): boolean {
    return session.node(undefined).every((object) =>
      object.kind !== "link" || !this.#kernel.hasDevice(object.name)
    );
  }

  #request({ backend, session }: DataPath): LeaseRequest {
    return {
      ...this.#place.identity,
      backendType: backend.leaseType,
      backendData: session.publishes as ReadonlyMap<Family, unknown>,
    };
  }

  /** Makes what the node itself needs. All of it must succeed: without it no peer can be reached. */
  #makeNode(path: DataPath, lease: Lease | undefined, known: readonly string[] = []): void {
    this.#reconciler.set(path.owner, path.session.node(lease));
    const failures = this.#reconciler.apply().failures.filter((text) => !known.includes(text));
    if (failures.length > 0) throw new RuntimeError(failures.join("; "));
  }

  /** Follows the other nodes' leases for as long as the node lives. */
  async #follow(onReady: () => void): Promise<void> {
    const signal = this.#signal;
    let first = true;
    do {
      this.#watching = new AbortController();
      const watching = AbortSignal.any([signal, this.#watching.signal]);
      for await (const event of this.#options.store.watch(watching)) {
        this.#takePeers(event);
        // Only with all peers known can what an earlier run left be told from what nobody wants.
        this.#apply(first);
        if (first) {
          first = false;
          this.#checked.resolve();
          this.#becomeReady();
          onReady();
        }
        if (event.kind === "snapshot" && !watching.aborted) {
          this.#allRead.resolve();
          this.#allRead = Promise.withResolvers();
        }
        if (lacks(event, this.#lease!.key)) await this.#reclaim();
      }
    } while (this.#watching.signal.aborted && !signal.aborted);
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

  #takePeers(event: LeaseEvent): void {
    const { log } = this.#options;
    const changes = this.#paths.take(event, performance.now());
    const reached = new Set<string>();
    for (const [{ session }, { put }] of changes) {
      for (const peer of put) {
        reached.add(peer.key);
        this.#reconciler.set(peer.key, session.peer(peer));
        log.debug(`peer ${peer.key} put`);
      }
    }
    for (const [{ session }, { put, removed }] of changes) {
      for (const key of removed) {
        if (reached.has(key)) continue;
        this.#reconciler.delete(key);
        log.debug(`peer ${key} removed`);
      }
      if (put.length + removed.length > 0) session.peersChanged?.(put, removed);
    }
  }

  #apply(all = false): void {
    const { failures } = all ? this.#reconciler.check() : this.#reconciler.apply();
    for (const failure of failures) this.#options.log.error(failure);
  }

  #becomeReady(): void {
    for (const { family } of this.#config.families) enableForwarding(family);
    this.#writeSubnetEnv();
    this.#options.log.info("ready", {
      subnets: this.#lease!.halves.map(({ subnet }) => subnet).join(" "),
      peers: this.#paths.current.peers.size,
      mtuBytes: this.#paths.current.session.mtuBytes,
    });
    this.#options.onReady(this.#lease!);
  }

  #writeSubnetEnv(): void {
    const { mtuBytes } = this.#paths.current.session;
    writeSubnetEnv(this.#options.subnetFile, this.#config, this.#lease!, mtuBytes);
  }

  /** Looks again at the peers whose state hangs on the underlay, where news of it may concern them. */
  #hearUnderlay({ device, destination }: UnderlayNews): void {
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
    return LINK_LOCAL.contains(destination) ||
      this.#config.families.some(({ network }) => network.contains(destination));
  }

  #lookAgain(): void {
    for (const { session, peers } of this.#paths.all) {
      if (!session.followsUnderlay) continue;
      for (const peer of peers) this.#reconciler.set(peer.key, session.peer(peer));
    }
    this.#apply();
  }

  /** Follows net-conf for as long as the node lives. */
  async #followConfig(): Promise<void> {
    for await (const config of this.#options.store.watchNetworkConfig(this.#signal)) {
      if (settingsOf(config) === this.#paths.current.settings) continue;
      try {
        await this.#changeTo(config);
      } catch (error) {
        if (this.#signal.aborted) return;
        this.#options.log.error(
          `net-conf is new, but this node goes on as it was: ${messageOf(error)}`,
        );
      }
    }
  }

  /**
   * Changes to the data path that a net-conf asks for, while packets travel: the new one is built, the peers
   * that have it already are reached by it, and only then do the others hear that they can. Those that have
   * not changed yet are reached by the old one, until there is none of them.
   */
  async #changeTo(config: NetworkConfig): Promise<void> {
    const { log } = this.#options;
    const lease = this.#lease!;
    const before = this.#paths.current;
    if (!fitsConfig(config, lease.halves.map(({ subnet }) => subnet))) {
      throw new ConfigError(
        `the lease ${lease.key} does not fit it; drain the node's pods and start the agent again`,
      );
    }
    const settings = settingsOf(config);
    const former = this.#paths.all.find((path) => path.settings === settings);
    const next = former ?? await this.#open(config, lease);
    next.peers.ownKey = lease.key;
    try {
      // What fails already is not this change's fault.
      const { failures } = this.#reconciler.check();
      this.#makeNode(next, lease, failures);
      await next.session.leased?.(lease);
    } catch (error) {
      if (former === undefined) {
        // What the two have in common is the former's again.
        this.#reconciler.set(before.owner, before.session.node(lease));
        this.#reconciler.delete(next.owner);
        this.#apply();
        await next.session[Symbol.asyncDispose]();
      }
      throw error;
    }
    this.#paths.change(next);
    this.#config = config;
    await this.#readAll();
    await this.#publish();
    this.#writeSubnetEnv();
    log.info(`changed from ${before.backend.type} to ${next.backend.type}`, {
      mtuBytes: next.session.mtuBytes,
      formerPeers: before.peers.size,
    });
    this.#retire(before);
  }

  /** Writes the lease anew, as the current data path has it. */
  async #publish(): Promise<void> {
    let retryMs = MIN_RETRY_MS;
    for (;;) {
      try {
        return await this.#claim();
      } catch (error) {
        if (this.#signal.aborted || error instanceof SubnetTakenError) throw error;
        this.#options.log.error(`the lease could not be written: ${messageOf(error)}`);
      }
      if (!await sleep(retryMs, this.#signal)) return;
      retryMs = Math.min(retryMs * 2, MAX_RETRY_MS);
    }
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
      await path.session[Symbol.asyncDispose]();
      log.info(`${path.backend.type} is gone from this node`);
      if (path.peers.size > 0) await this.#readAll();
    } catch (error) {
      log.error(`${path.backend.type} could not be taken away: ${messageOf(error)}`);
    }
  }

  /** Renews the lease for as long as the node lives. */
  async #renew(): Promise<void> {
    const signal = this.#signal;
    let retryMs = MIN_RETRY_MS;
    let waitMs = this.#untilRenewal();
    while (await sleep(waitMs, signal)) {
      try {
        await this.#inTurn(async () => {
          this.#lease = await this.#options.store.renew(this.#lease!, signal);
        });
        const { expiresAtMs } = this.#lease!;
        const until = expiresAtMs === undefined ? undefined : new Date(expiresAtMs).toISOString();
        this.#options.log.info("lease renewed", { until });
        retryMs = MIN_RETRY_MS;
        waitMs = this.#untilRenewal();
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof LeaseLostError) await this.#reclaim();
        else this.#options.log.error(`the lease could not be renewed: ${messageOf(error)}`);
        waitMs = retryMs * (0.5 + Math.random() / 2);
        retryMs = Math.min(retryMs * 2, MAX_RETRY_MS);
      }
    }
  }

  /** A reservation is never renewed, which the longest wait that a timer knows stands for. */
  #untilRenewal(): number {
    const { expiresAtMs } = this.#lease!;
    if (expiresAtMs === undefined) return MAX_SLEEP_MS;
    return Math.max(expiresAtMs - this.#options.renewMarginMs - Date.now(), MIN_RENEW_WAIT_MS);
  }

  /** The lease is gone from the store: takes the same subnet again, since pods live in it. */
  async #reclaim(): Promise<void> {
    this.#options.log.warn(
      `the lease ${this.#lease!.key} is gone from the store; claiming it again`,
    );
    await this.#publish();
  }

  /** Acquires the lease that the node has, as the current data path publishes it. */
  #claim(): Promise<void> {
    return this.#inTurn(async () => {
      const had = this.#lease!;
      const previousSubnets = had.halves.map(({ subnet }) => subnet);
      const request = { ...this.#request(this.#paths.current), previousSubnets };
      const lease = await this.#options.store.acquire(request, this.#signal);
      if (lease.key !== had.key) throw new SubnetTakenError(had.key, lease.key);
      this.#lease = lease;
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#leaseTurn.then(work);
    this.#leaseTurn = turn.catch(() => {});
    return turn;
  }
}

/** The node's subnet is another's, and its pods live in it. */
class SubnetTakenError extends RuntimeError {
  constructor(lost: string, given: string) {
    super(
      `the lease ${lost} was lost and its subnet is another node's now; this node was given ` +
        `${given}: drain its pods and start the agent again`,
    );
  }
}

/** Routes that the kernel makes for itself on each device (RFC 4291 section 2.5.6). */
const LINK_LOCAL = Cidr.parse("fe80::/10");

/** Whether an event says that a lease is not there any more. */
function lacks(event: LeaseEvent, key: string): boolean {
  return event.kind === "snapshot"
    ? !event.leases.some((lease) => lease.key === key)
    : event.removed.includes(key);
}

/** All of a net-conf that a data path is made from, as text. */
function settingsOf({ backend, families }: NetworkConfig): string {
  return JSON.stringify([backend, families]);
}

/** The subnets of the last run; none where subnet.env is not there or can't be read. */
function previousSubnets(path: string, log: Logger): NodeIdentity["previousSubnets"] {
  try {
    const env = parseSubnetEnv(Deno.readTextFileSync(path), path);
    return env.halves.map(({ subnet }) => subnet);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) {
      log.warn(`the last run's subnet is not known: ${messageOf(error)}`);
    }
    return [];
  }
}

/** Written beside its place and renamed into it, so that no reader sees half of it. */
function writeSubnetEnv(
  path: string,
  config: NetworkConfig,
  lease: Lease,
  mtuBytes: number,
): void {
  const text = formatSubnetEnv({
    halves: lease.halves.map(({ subnet }) => ({
      networks: config.families.filter(({ family }) => family === subnet.family)
        .map(({ network }) => network),
      subnet,
    })),
    mtuBytes,
    ipMasq: false,
  });
  const temporary = `${path}.${Deno.pid}`;
  try {
    Deno.mkdirSync(path.replace(/\/[^/]*$/, "") || ".", { recursive: true });
    Deno.writeTextFileSync(temporary, text, { mode: 0o644 });
    Deno.renameSync(temporary, path);
  } catch (error) {
    try {
      Deno.removeSync(temporary);
    } catch {
      // It was not made.
    }
    throw new RuntimeError(
      `${path} can't be written: ${messageOf(error)}; make room, or choose another --subnet-file`,
    );
  }
}

function enableForwarding(family: Family): void {
  try {
    writeSysctl(FORWARDING[family], "1");
  } catch (error) {
    throw new RuntimeError(
      `IPv${family} forwarding can't be switched on (${FORWARDING[family]}): ${messageOf(error)}`,
    );
  }
}
