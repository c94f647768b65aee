/**
 * The life of a node: its backend, its lease, its peers, until it is told to stop.
 *
 * @module
 */

import {
  type Backend,
  type BackendSession,
  ConfigError,
  type Family,
  formatSubnetEnv,
  type Lease,
  type LeaseEvent,
  LeaseLostError,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  MAX_SLEEP_MS,
  messageOf,
  type NetworkConfig,
  type NodeIdentity,
  parseSubnetEnv,
  PeerTable,
  readConfig,
  RuntimeError,
  sleep,
} from "@denim/core";
import { kernelReader, NetlinkSocket, Reconciler, writeSysctl } from "@denim/core/linux";
import { findOuterInterface, type InterfaceChoice } from "./outer_interface.ts";

/** A backend, whatever its options and peer data are. */
// deno-lint-ignore no-explicit-any -- each backend has types of its own, checked by its own schemas
export type AnyBackend = Backend<any, any>;

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

/**
 * Runs a node until the signal is aborted, in the network namespace of this thread. Leaves the data path
 * as it is when it ends, so that pods talk on; but where it fails before it was ready, it takes away
 * what it had made. Rejects with a ConfigError or a RuntimeError.
 */
export async function runNode(options: NodeOptions, signal: AbortSignal): Promise<void> {
  const { store, log } = options;
  const config = await store.networkConfig(signal);
  const families = config.families.map(({ family }) => family);
  const backend = findBackend(config, options.backends);
  const backendOptions = readBackendOptions(backend, config);

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
  const kernel = kernelReader(socket);
  await using session = await backend.open({ config, outer, held, kernel, log }, backendOptions);
  using reconciler = new Reconciler(log);
  const node = new Node(options, config, backend, session, reconciler, identity);
  await node.run(signal, freshDevices(session, kernel.macOf));
}

/** Whether the node's devices are yet to be made: then nobody's packets travel by them. */
function freshDevices(
  session: BackendSession,
  macOf: (device: string) => unknown,
): boolean {
  return session.node(undefined).every((object) =>
    object.kind !== "link" || macOf(object.name) === undefined
  );
}

/** One node at work. */
class Node {
  readonly #options: NodeOptions;
  readonly #config: NetworkConfig;
  readonly #session: BackendSession;
  readonly #reconciler: Reconciler;
  readonly #request: LeaseRequest;
  readonly #peers: PeerTable<unknown>;
  #lease: Lease | undefined;

  constructor(
    options: NodeOptions,
    config: NetworkConfig,
    backend: AnyBackend,
    session: BackendSession,
    reconciler: Reconciler,
    identity: NodeIdentity,
  ) {
    this.#options = options;
    this.#config = config;
    this.#session = session;
    this.#reconciler = reconciler;
    this.#request = {
      ...identity,
      backendType: backend.leaseType,
      backendData: session.publishes as ReadonlyMap<Family, unknown>,
    };
    this.#peers = new PeerTable(backend, config, options.log);
  }

  async run(signal: AbortSignal, fresh: boolean): Promise<void> {
    // One part that fails ends the others, and then the node.
    const failed = new AbortController();
    const all = AbortSignal.any([signal, failed.signal]);
    let ready = false;
    try {
      // The device first: a kernel that can't have it costs the cluster no lease.
      this.#makeNode(undefined);
      this.#lease = await this.#options.store.acquire(this.#request, all);
      this.#peers.ownKey = this.#lease.key;
      this.#makeNode(this.#lease);
      const parts = [
        this.#follow(all, () => ready = true),
        this.#renew(all),
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
        this.#reconciler.delete(NODE);
        this.#reconciler.apply();
      }
      if (signal.aborted) return;
      throw error;
    }
  }

  /** Makes what the node itself needs. All of it must succeed: without it no peer can be reached. */
  #makeNode(lease: Lease | undefined): void {
    this.#reconciler.set(NODE, this.#session.node(lease));
    const { failures } = this.#reconciler.apply();
    if (failures.length > 0) throw new RuntimeError(failures.join("; "));
  }

  /** Follows the other nodes' leases for as long as the node lives. */
  async #follow(signal: AbortSignal, onReady: () => void): Promise<void> {
    const keeping = new AbortController();
    let kept: Promise<void> | undefined;
    try {
      for await (const event of this.#options.store.watch(signal)) {
        const { put, removed } = this.#peers.apply(event);
        for (const key of removed) this.#reconciler.delete(key);
        for (const peer of put) this.#reconciler.set(peer.key, this.#session.peer(peer));
        this.#session.peersChanged?.(put, removed);
        // Only with all peers known can what an earlier run left be told from what nobody wants.
        const result = kept === undefined ? this.#reconciler.check() : this.#reconciler.apply();
        for (const failure of result.failures) this.#options.log.error(failure);
        for (const { key } of put) this.#options.log.debug(`peer ${key} put`);
        for (const key of removed) this.#options.log.debug(`peer ${key} removed`);
        if (kept === undefined) {
          kept = this.#reconciler.run(AbortSignal.any([signal, keeping.signal]));
          this.#becomeReady();
          onReady();
        }
        if (lacks(event, this.#lease!.key)) await this.#reclaim(signal);
      }
    } finally {
      keeping.abort();
      await kept;
    }
  }

  #becomeReady(): void {
    const lease = this.#lease!;
    for (const { family } of this.#config.families) enableForwarding(family);
    writeSubnetEnv(this.#options.subnetFile, this.#config, lease, this.#session.mtuBytes);
    this.#options.log.info("ready", {
      subnets: lease.halves.map(({ subnet }) => subnet).join(" "),
      peers: this.#peers.size,
      mtuBytes: this.#session.mtuBytes,
    });
    this.#options.onReady(lease);
  }

  /** Renews the lease for as long as the node lives. */
  async #renew(signal: AbortSignal): Promise<void> {
    let retryMs = MIN_RETRY_MS;
    let waitMs = this.#untilRenewal();
    while (await sleep(waitMs, signal)) {
      try {
        this.#lease = await this.#options.store.renew(this.#lease!, signal);
        this.#options.log.info("lease renewed", {
          until: new Date(this.#lease.expiresAtMs!).toISOString(),
        });
        retryMs = MIN_RETRY_MS;
        waitMs = this.#untilRenewal();
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof LeaseLostError) await this.#reclaim(signal);
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
  async #reclaim(signal: AbortSignal): Promise<void> {
    const lost = this.#lease!;
    this.#options.log.warn(`the lease ${lost.key} is gone from the store; claiming it again`);
    const previousSubnets = lost.halves.map(({ subnet }) => subnet);
    const lease = await this.#options.store.acquire({ ...this.#request, previousSubnets }, signal);
    if (lease.key !== lost.key) {
      throw new RuntimeError(
        `the lease ${lost.key} was lost and its subnet is another node's now; this node was given ` +
          `${lease.key}: drain its pods and start the agent again`,
      );
    }
    this.#lease = lease;
  }
}

/** Under this name the reconciler keeps what the node itself needs; no lease's key looks like it. */
const NODE = "node";
/** Whether an event says that a lease is not there any more. */
function lacks(event: LeaseEvent, key: string): boolean {
  return event.kind === "snapshot"
    ? !event.leases.some((lease) => lease.key === key)
    : event.removed.includes(key);
}

function findBackend(config: NetworkConfig, backends: readonly AnyBackend[]): AnyBackend {
  const backend = backends.find(({ type }) => type === config.backend.type);
  if (backend !== undefined) return backend;
  const known = backends.map(({ type }) => `"${type}"`).join(", ");
  throw new ConfigError(
    `net-conf: Backend.Type "${config.backend.type}" is none of denim's; it has ${known}`,
  );
}

function readBackendOptions(backend: AnyBackend, config: NetworkConfig): unknown {
  return readConfig(backend.options, config.backend.options, "net-conf", ["Backend"]);
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

const FORWARDING: Readonly<Record<Family, string>> = {
  4: "net/ipv4/ip_forward",
  6: "net/ipv6/conf/all/forwarding",
};

function enableForwarding(family: Family): void {
  try {
    writeSysctl(FORWARDING[family], "1");
  } catch (error) {
    throw new RuntimeError(
      `IPv${family} forwarding can't be switched on (${FORWARDING[family]}): ${messageOf(error)}`,
    );
  }
}
