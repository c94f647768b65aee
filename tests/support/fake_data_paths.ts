/**
 * A node's data paths without a kernel, a network or a store: fakes of all that stands around them.
 *
 * @module
 */

import {
  type Backend,
  type BackendSession,
  type Cidr,
  type Family,
  IpAddress,
  type KernelObject,
  type KernelState,
  type Lease,
  type LeaseEvent,
  MacAddress,
  MetricsRegistry,
  type NetworkConfig,
  NO_METRICS,
  type NodeContext,
  NodeScope,
  type OuterInterface,
  parseLease,
  parseNetworkConfig,
  type Peer,
  type PodNetwork,
  type Route,
} from "@denim/core";
import * as z from "zod";
import { DataPath, type DataPathContext } from "../../agent/data_path.ts";
import { DataPathManager } from "../../agent/data_path_manager.ts";
import type { Attempt, DesiredKernel } from "../../agent/desired_kernel.ts";
import { PeerList } from "../../agent/peer_list.ts";
import { TaskGroup } from "../../agent/task_group.ts";
import { FakeClock } from "./fake_clock.ts";
import { RecordingLog } from "./recording_log.ts";

/** The node's own lease. */
export const OWN: Lease = lease(9, "a");

/** The lease of a node of the cluster, by its number. */
export function lease(number: number, type: string): Lease {
  const value = `{"PublicIP":"10.99.0.${number}","BackendType":"${type}"}`;
  return parseLease(`10.5.${number}.0-24`, value, undefined);
}

/** A net-conf that asks for a backend, with an option by which two differ, and with more keys. */
export function netConf(
  type: string,
  option = "",
  network = "10.5.0.0/16",
  more: Readonly<Record<string, unknown>> = {},
): NetworkConfig {
  return parseNetworkConfig(JSON.stringify({
    ...more,
    Network: network,
    Backend: { Type: type, Option: option },
  }));
}

/** A fake of a backend at work. */
export class FakeSession implements BackendSession {
  /** @inheritdoc */
  readonly mtuBytes = 1450;
  /** @inheritdoc */
  readonly publishes: ReadonlyMap<Family, unknown> = new Map();
  /** Whether it was disposed of. */
  closed = false;
  /** The keys that it was told of, as `+key` and `-key`. */
  readonly told: string[] = [];

  /** A session with one device, named after the backend and its option, and perhaps one route to all peers. */
  constructor(
    readonly device: string,
    readonly outer: OuterInterface,
    readonly followsUnderlay: boolean,
    readonly reachesPeers: boolean,
    readonly network: Cidr | undefined,
    readonly refusesStrangers: boolean,
  ) {}

  /** @inheritdoc */
  nodeState(): KernelState {
    const info = { type: "tun", queueLength: 1 } as const;
    const link = { kind: "link", name: this.device, mtuBytes: this.mtuBytes, info } as const;
    return this.network === undefined ? [link] : [link, this.#routeTo(this.network)];
  }

  /** @inheritdoc */
  peerState({ halves: [half] }: Peer<unknown>): KernelState {
    const routes = this.network === undefined ? [this.#routeTo(half!.subnet)] : [];
    if (!this.refusesStrangers) return routes;
    const address = half!.subnet.at(0n);
    const mac = MacAddress.parse("02:00:00:00:00:01");
    return [{ kind: "neighbour", device: this.device, address, mac }, ...routes];
  }

  #routeTo(destination: Cidr): KernelObject {
    const source = this.outer.addresses.get(4)!;
    return { kind: "route", destination, device: this.device, source };
  }

  /** @inheritdoc */
  peersChanged(put: Iterable<Peer<unknown>>, removed: Iterable<string>): void {
    if (this.closed) throw new Error("a closed session is told of peers");
    for (const { key } of put) this.told.push(`+${key}`);
    for (const key of removed) this.told.push(`-${key}`);
  }

  /** @inheritdoc */
  [Symbol.asyncDispose](): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }
}

/** A fake of a backend, which a test can have fail or wait. */
export class FakeBackend implements Backend<{ readonly Option: string }> {
  /** @inheritdoc */
  readonly leaseType: string;
  /** @inheritdoc */
  readonly options: z.ZodType<{ readonly Option: string }> = z.object({
    Option: z.string().default(""),
  });
  /** @inheritdoc */
  readonly peerData: z.ZodType<unknown> = z.unknown();
  /** The sessions that were opened, the last one last. */
  readonly sessions: FakeSession[] = [];
  /** What happens before a session is opened; may throw. */
  beforeOpen: (option: string) => Promise<void> | void = () => {};
  /** Whether sessions follow the underlay. */
  followsUnderlay = false;
  /** Whether sessions have to know of peers. */
  reachesPeers = true;
  /** Whether sessions have one route to all peers rather than one to each. */
  routesNetwork = false;
  /** Whether sessions take packets from peers alone: those that the device has as neighbours. */
  refusesStrangers = false;

  /** A backend of this name. */
  constructor(readonly type: string) {
    this.leaseType = type;
  }

  /** @inheritdoc */
  async open(
    { outer, config }: NodeContext,
    { Option }: { readonly Option: string },
  ): Promise<FakeSession> {
    await this.beforeOpen(Option);
    const { followsUnderlay, reachesPeers, refusesStrangers } = this;
    const network = this.routesNetwork ? config.families[0]!.network : undefined;
    const device = `${this.type}${Option}`;
    const session = new FakeSession(
      device,
      outer,
      followsUnderlay,
      reachesPeers,
      network,
      refusesStrangers,
    );
    this.sessions.push(session);
    return session;
  }

  /** The names of the devices of its open sessions, each with the outer device that it was opened for. */
  get atWork(): string[] {
    return this.sessions.filter(({ closed }) => !closed)
      .map(({ device, outer }) => `${device}@${outer.name}`);
  }
}

/** A fake of the reconciler, and of the kernel behind it. */
export class FakeKernel implements DesiredKernel {
  readonly #wanted = new Map<string, KernelState>();
  /** Why the kernel refuses an object; `undefined` if it does not. */
  refuses: (object: KernelObject) => string | undefined = () => undefined;
  /** @inheritdoc */
  networks: readonly PodNetwork[] = [];

  /** @inheritdoc */
  set(owner: string, state: KernelState): void {
    this.#wanted.delete(owner);
    if (state.length > 0) this.#wanted.set(owner, state);
  }

  /** @inheritdoc */
  delete(owner: string): void {
    this.#wanted.delete(owner);
  }

  /** @inheritdoc */
  wantedBy(owner: string): KernelState {
    return this.#wanted.get(owner) ?? [];
  }

  /** @inheritdoc */
  apply(): Attempt {
    return { failures: this.#objects().flatMap((object) => this.refuses(object) ?? []) };
  }

  /** @inheritdoc */
  check(): Attempt {
    return this.apply();
  }

  /** The devices that it has, and the peers' subnets with the devices that lead to them, or take their packets. */
  get view(): string {
    const texts = this.#objects().flatMap((object) => {
      if (object.kind === "link") return [object.name];
      if (object.kind === "neighbour") return [`${object.address}@${object.device}`];
      const device = object.kind === "route" && this.#deviceOf(object);
      return device ? [`${object.destination.at(0n)}→${device}`] : [];
    });
    return texts.sort().join(" ");
  }

  #deviceOf(route: Route): string | undefined {
    if ("device" in route) return route.device;
    const nexthop = this.#objects().find((object) =>
      object.kind === "nexthop" && "nexthopId" in route && object.id === route.nexthopId
    );
    return nexthop?.kind === "nexthop" ? nexthop.device : undefined;
  }

  /** Of two routes to one network the last that was asked for. */
  #objects(): KernelObject[] {
    const objects = [...this.#wanted.values()].flat();
    const last = new Map(objects.map((object) => [
      object.kind === "route" ? `${object.destination}` : object,
      object,
    ]));
    return [...last.values()];
  }
}

/** A fake of the outer interface and of what follows it. */
export class FakeOuter {
  /** The interface as the agent last saw it. */
  current: OuterInterface = outerInterface("eth0", 9);
  /** What it is really. */
  actual: OuterInterface = this.current;
  /** What happens when it is looked at; may throw. */
  onRefresh: () => void = () => {};

  /** Looks at it. */
  refresh(): void {
    this.onRefresh();
    this.current = this.actual;
  }
}

/** An outer interface with the address 10.99.0.NUMBER. */
export function outerInterface(name: string, number: number): OuterInterface {
  const addresses = new Map<Family, IpAddress>([[4, IpAddress.parse(`10.99.0.${number}`)]]);
  return { name, mtuBytes: 1500, addresses, publicIps: addresses };
}

/** The data paths of a node with the backends `a`, `b` and `c`, of which `a` is the first. */
export class FakeNode implements AsyncDisposable {
  /** By which data paths retire. */
  readonly clock = new FakeClock();
  /** What was said. */
  readonly log = new RecordingLog();
  /** What was counted. */
  readonly metrics = new MetricsRegistry();
  /** What the kernel has. */
  readonly kernel = new FakeKernel();
  /** Where packets leave. */
  readonly outer = new FakeOuter();
  /** Whether the pods' networks overlap the hosts'. */
  overlapsHosts = false;
  /** See {@link DataPathContext.hostNetwork}. */
  readonly hostNetwork = { overlaps: () => this.overlapsHosts };
  /** The backends, by name. */
  readonly backends: Readonly<Record<"a" | "b" | "c", FakeBackend>> = {
    a: new FakeBackend("a"),
    b: new FakeBackend("b"),
    c: new FakeBackend("c"),
  };
  /** The node's lease. */
  own: Lease = OWN;
  /** The other nodes' leases, as the store has them. */
  leases: readonly Lease[] = [];
  /** Resolves while the store is in reach. */
  store: Promise<void> = Promise.resolve();
  /** What happened around the data paths, in order. */
  readonly story: string[] = [];
  /** Aborted at the end. */
  readonly #stopping = new AbortController();
  /** What runs in the background. */
  readonly tasks: TaskGroup = new TaskGroup(this.#stopping.signal);
  /** The peers, as an operator sees them. */
  readonly peers: PeerList = new PeerList();
  /** What data paths are made from. */
  readonly context: DataPathContext = {
    backends: Object.values(this.backends),
    outer: this.outer,
    hostNetwork: this.hostNetwork,
    kernel: {
      macOf: () => undefined,
      hasDevice: (name) => this.kernel.view.split(" ").includes(name),
      routeTo: () => undefined,
    },
    log: this.log,
    metrics: NO_METRICS,
    scope: new NodeScope(),
    signal: this.tasks.signal,
    fail: this.tasks.fail,
  };

  /** Starts the data paths with a net-conf, and lets them know of the leases. */
  async start(config: NetworkConfig): Promise<DataPathManager> {
    const manager: DataPathManager = new DataPathManager(
      await DataPath.open(config, undefined, this.context),
      config,
      {
        ...this.context,
        reconciler: this.kernel,
        lease: () => this.own,
        publish: async () => {
          await this.store;
          this.story.push(`published ${manager.current.backend.type}`);
        },
        rereadLeases: async () => {
          await this.store;
          this.story.push("leases read");
          manager.apply(this.snapshot);
        },
        onChange: () => this.story.push(`devices ${manager.devices.join(" ")}`),
        runInBackground: this.tasks.add,
        clock: this.clock,
        peers: this.peers,
        metrics: this.metrics,
      },
    );
    manager.prepare();
    await manager.start();
    manager.apply(this.snapshot);
    return manager;
  }

  /** All leases, this node's own included. */
  get snapshot(): LeaseEvent {
    return { kind: "snapshot", leases: [OWN, ...this.leases] };
  }

  /** The warnings and errors in the log, by event. */
  get complaints(): string[] {
    return this.log.events.filter((event) => !event.startsWith("info"));
  }

  /** Ends what runs in the background. Rejects if any of it failed. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.tasks.join();
  }
}
