/**
 * The life of a node: its lease, its data paths, its peers, until it is told to stop.
 *
 * @module
 */

import {
  type Cidr,
  EventCounter,
  FAMILIES,
  heldBefore,
  type KernelState,
  type Lease,
  type LeaseEvent,
  leaseKey,
  LeaseMovedError,
  leasePublicIps,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  type Metrics,
  type NetworkConfig,
  networksOf,
  NodeScope,
  type OuterInterface,
  parseLeaseKey,
  RoutableLeases,
  RuntimeError,
  type SubnetEnv,
  SYSTEM_CLOCK,
} from "@denim/core";
import {
  kernelReader,
  listAddresses,
  listLinks,
  neighbourMac,
  NetlinkSocket,
  Reconciler,
  type UnderlayNews,
} from "@denim/core/linux";
import { DataPath, type DataPathContext } from "./data_path.ts";
import { DataPathAdapter } from "./data_path_adapter.ts";
import { DataPathManager } from "./data_path_manager.ts";
import { logFailures } from "./desired_kernel.ts";
import {
  blackholeState,
  FORWARD_OWNER,
  forwardState,
  HOST_OWNER,
  HOSTS_OWNER,
  hostState,
  MASQUERADE_OWNER,
  type MasqueradeChoice,
  masqueradeState,
} from "./host_state.ts";
import { type HostNetworkFollower, routesToHosts } from "./host_network.ts";
import { LeaseKeeper } from "./lease_keeper.ts";
import { LeaseWatch } from "./lease_watch.ts";
import { CNI_DIRECTORY, type HostView, logLeftovers, viewNode } from "./leftovers.ts";
import { type AnyBackend, requireUsable } from "./net_conf.ts";
import { BadNews } from "./mesh/bad_news.ts";
import { Clones } from "./mesh/clones.ts";
import { formatReport, type MeshReport, meshReport, type Trouble } from "./mesh/mesh_report.ts";
import { Prober } from "./mesh/prober.ts";
import { sparing } from "./mesh/sparing.ts";
import { NetworkCondition } from "./network_condition.ts";
import { type KernelView, type PacketWay, packetWays } from "./page/packet_way.ts";
import type { InterfaceChoice, OuterInterfaceFollower } from "./outer_interface.ts";
import { Readiness } from "./readiness.ts";
import { PeerList } from "./peer_list.ts";
import type { NodeView } from "./status_routes.ts";
import { type LastRun, SubnetFile } from "./subnet_file.ts";
import { findSurroundings } from "./surroundings.ts";
import { TaskGroup } from "./task_group.ts";
import { Underlay } from "./underlay.ts";

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
  /** How pods' packets to the outside are masqueraded; `undefined` if the agent does not do it. */
  readonly masquerade?: MasqueradeChoice | undefined;
  /** Whether packets to addresses of the node's subnet that no pod has are dropped. */
  readonly blackholeRoute?: boolean;
  /** Whether pods' packets pass where iptables' FORWARD drops what nobody lets pass. */
  readonly forwardRules: boolean;
  /** How often iptables' rules are compared in full, in milliseconds. */
  readonly iptablesResyncMs: number;
  /** How long before its end the lease is renewed, in milliseconds. */
  readonly renewMarginMs: number;
  /** Where the node says what it does. */
  readonly log: Logger;
  /** Where the node counts what it does. */
  readonly metrics: Metrics;
  /**
   * Called with `undefined` when pods can be attached: subnet.env is written, and every peer is reached. Called with
   * a reason when they cannot any more.
   */
  readonly onReadiness: (unready: string | undefined) => void;
  /** Whether peers are probed over the data path. */
  readonly probePeers: boolean;
  /** Called once, with what those may see of the node who only look. */
  readonly onNode?: (view: NodeView) => void;
}

/**
 * A node whose lease may be a running node's is not ready before that one has had this long to object, in
 * milliseconds.
 */
const OBJECTION_MS = 500;
/** Of nodes that start at once with what each must have alone, all but one give it up within this long, in milliseconds. */
const WITHDRAWAL_MS = 2_000;

/**
 * Runs a node until the signal is aborted, in the network namespace of this thread. When it ends it leaves the data
 * path as it is, so that pods talk on. But if it fails before it was ever ready, it removes what it has made. Rejects
 * with a ConfigError, a RuntimeError, or with a defect of denim (see `isDefect`), which it never retries.
 */
export async function runNode(options: NodeOptions, signal: AbortSignal): Promise<void> {
  for (;;) {
    try {
      return await runNodeOnce(options, signal);
    } catch (error) {
      if (!(error instanceof LeaseMovedError)) throw error;
      const why = `${error.message}; this node changes over`;
      options.onReadiness(why);
      options.log.warn(
        "lease-moved",
        `${why}. Pods from before are cut off: delete them, unless Kubernetes does`,
      );
    }
  }
}

/** A node with one lease. Rejects as {@link runNode} does, and with a LeaseMovedError if it has other subnets. */
async function runNodeOnce(options: NodeOptions, signal: AbortSignal): Promise<void> {
  const { store, backends, log, metrics } = options;
  const config = await store.networkConfig(signal);
  requireUsable(config, { backends, log });
  using socket = new NetlinkSocket();
  const start = await readStartState(options, config, socket, signal);
  const tasks = new TaskGroup(signal);
  const underlay: Underlay = new Underlay({
    kernel: kernelReader(socket),
    concernsOuter: (news) => start.outer.concerns(news),
    routesMatter: () => node.dataPaths.followsUnderlay,
    podNetworks: () => node.podNetworks,
    onOuter: () => {
      node.adapter.look();
      tasks.add(node.refreshHosts());
    },
    onRoutes: () => node.dataPaths.refreshPeers(),
    clock: SYSTEM_CLOCK,
    runInBackground: tasks.add,
    signal: tasks.signal,
  });
  using reconciler = openReconciler(options, underlay.onNews);
  const context = {
    backends,
    outer: start.outer,
    hostNetwork: start.hostNetwork,
    kernel: underlay.kernel,
    log,
    metrics,
    scope: new NodeScope(),
    signal: tasks.signal,
    fail: tasks.fail,
  };
  // What a running node publishes is not this node's to go on with, so that no two have one VTEP MAC.
  const own = start.wasOwn ? start.held : undefined;
  await using first = await DataPath.open(config, own, context);
  await using node: NodeAgent = new NodeAgent({
    options,
    config,
    start,
    tasks,
    reconciler,
    context,
    first,
    view: () => viewNode(socket, CNI_DIRECTORY),
    kernelView: () => ({
      links: listLinks(socket),
      addresses: FAMILIES.flatMap((family) => listAddresses(socket, family)),
      kernel: underlay.kernel,
      macBehind: ({ index }, address) => neighbourMac(socket, index, address),
    }),
  });
  options.onNode?.(node);
  await node.run();
}

function openReconciler(
  { log, metrics, iptablesResyncMs }: NodeOptions,
  onUnderlay: (news: UnderlayNews) => void,
): Reconciler {
  return new Reconciler({ log, metrics, onUnderlay, iptablesResyncMs });
}

/** What a node starts from. */
interface StartState {
  /** Its way to the other nodes. */
  readonly outer: OuterInterfaceFollower;
  /** The network between the hosts. */
  readonly hostNetwork: HostNetworkFollower;
  /** Its subnet.env. */
  readonly subnetFile: SubnetFile;
  /** What subnet.env said of the last run. */
  readonly lastRun: LastRun;
  /** The lease that the store has for this node: that of the last run, or of its public IP. */
  readonly held: Lease | undefined;
  /** Whether that lease is this node's for certain. If not, a running node with the same public IP may hold it. */
  readonly wasOwn: boolean;
}

async function readStartState(
  options: NodeOptions,
  config: NetworkConfig,
  socket: NetlinkSocket,
  signal: AbortSignal,
): Promise<StartState> {
  const { store, log } = options;
  const subnetFile = new SubnetFile(options.subnetFile, log);
  const lastRun = subnetFile.lastRun();
  const written = await store.publicIps?.(signal) ?? [];
  const choice = {
    ...options.interface,
    publicIps: new Map([...options.interface.publicIps, ...written]),
  };
  const { outer, hostNetwork } = await findSurroundings({
    socket,
    config,
    choice,
    lastRun,
    store,
    log,
  });
  const { publicIps } = outer.current;
  const identity = { publicIps, ...lastRun };
  const held = await store.held(identity, signal);
  // subnet.env alone proves nothing: the copy of a disk has it too.
  const ranBefore = lastRun.previousPublicIps !== undefined;
  const wasOwn = held !== undefined && ranBefore && heldBefore(identity, held);
  return { outer, hostNetwork, subnetFile, lastRun, held, wasOwn };
}

/** What a node is made of. */
interface NodeParts {
  readonly options: NodeOptions;
  /** The net-conf of the first data path. */
  readonly config: NetworkConfig;
  readonly start: StartState;
  readonly tasks: TaskGroup;
  readonly reconciler: Reconciler;
  readonly context: DataPathContext;
  readonly first: DataPath;
  /** Looks at what is on the node. */
  readonly view: () => Pick<HostView, "links" | "addresses" | "cniConfs">;
  /** Looks at what packets pass on the node. */
  readonly kernelView: () => KernelView;
}

/** One node at work. Its parts run side by side; the first that fails ends the node. */
class NodeAgent implements AsyncDisposable, NodeView {
  readonly #options: NodeOptions;
  readonly #start: StartState;
  readonly #tasks: TaskGroup;
  readonly #reconciler: Reconciler;
  readonly #view: NodeParts["view"];
  readonly #kernelView: NodeParts["kernelView"];
  readonly #keeper: LeaseKeeper;
  readonly #watch: LeaseWatch;
  readonly #routable: RoutableLeases;
  readonly #readiness: Readiness;
  readonly #condition: NetworkCondition;
  /** Resolved when the kernel has what all peers need, or the node stops. */
  readonly #peersReached = Promise.withResolvers<void>();
  #sawPeers = false;
  readonly #leasesSeen = new EventCounter();
  /** Whether the lease may say what this node publishes. */
  #isProven: boolean;

  /** The peers, as an operator sees them. */
  readonly peers: PeerList;
  readonly #prober: Prober | undefined;
  readonly #clones = new Clones({
    clock: SYSTEM_CLOCK,
    present: () => this.#rivals(),
    onChange: () => this.#badNews.changed(),
  });
  readonly #badNews: BadNews;
  /** What all nodes together find wrong between them. */
  readonly mesh: NodeView["mesh"] = sparing((signal) => this.#mesh(signal), SYSTEM_CLOCK);
  /** How packets reach the peers. */
  readonly dataPaths: DataPathManager;
  /** Changes the data paths. */
  readonly adapter: DataPathAdapter;

  constructor(parts: NodeParts) {
    const { options, config, start, tasks, reconciler, context, first } = parts;
    const { store, renewMarginMs, log, metrics, onReadiness } = options;
    this.#options = options;
    this.#prober = options.probePeers
      ? new Prober({ clock: SYSTEM_CLOCK, log, metrics, onChange: () => this.#badNews.changed() })
      : undefined;
    this.#badNews = new BadNews({
      store,
      key: () => this.#keeper.lease.key,
      troubles: () => this.#troubles(),
      nodes: () => this.#nodes,
      clock: SYSTEM_CLOCK,
      log,
    });
    this.peers = new PeerList(this.#prober);
    this.#start = start;
    this.#isProven = start.wasOwn || start.held === undefined;
    this.#tasks = tasks;
    this.#reconciler = reconciler;
    this.#view = parts.view;
    this.#kernelView = parts.kernelView;
    this.#watch = new LeaseWatch({
      store,
      needed: () => this.dataPaths.reachesPeers,
      own: () => this.#keeper.lease,
      signal: tasks.signal,
    });
    this.#routable = new RoutableLeases({
      networks: () => networksOf(this.dataPaths.config),
      ownKey: () => this.#keeper.lease.key,
      handedOn: () => this.dataPaths.all.flatMap(({ peers }) => [...peers.keys()]),
      onFreed: () => tasks.add(this.#watch.reread()),
      log,
    });
    this.#condition = new NetworkCondition({ store, clock: SYSTEM_CLOCK, log });
    this.#readiness = new Readiness({
      subnetFile: start.subnetFile,
      env: () => this.#subnetEnv(),
      publicIps: () => leasePublicIps(this.#keeper.lease),
      devices: () => this.dataPaths.devices,
      onReadiness: (unready) => {
        this.#condition.set(unready === undefined);
        onReadiness(unready);
      },
      log,
      metrics,
    });
    this.#keeper = new LeaseKeeper({
      store,
      renewMarginMs,
      log,
      metrics,
      request: () => this.#request(),
      onTaken: (taken) => this.#readiness.setTaken(taken),
      onContested: (lease) => this.#clones.saw(lease.halves.map(({ subnet }) => subnet)),
    });
    this.dataPaths = new DataPathManager(first, config, {
      ...context,
      reconciler,
      lease: () => this.#keeper.lease,
      publish: () => this.#publish(),
      rereadLeases: () => this.#watch.reread(),
      onChange: () => {
        this.#keepHost();
        this.#readiness.update();
      },
      runInBackground: tasks.add,
      clock: SYSTEM_CLOCK,
      peers: this.peers,
      metrics,
    });
    this.adapter = new DataPathAdapter({
      paths: this.dataPaths,
      outer: start.outer,
      hostNetwork: start.hostNetwork,
      onAddresses: () => store.reconnect?.(),
      clock: SYSTEM_CLOCK,
      log,
    });
    this.#routable.setHosts(start.hostNetwork.current.hosts);
    // What the last run left is denim's to remove, even if net-conf's Network is another now.
    reconciler.networks = [...config.families, ...start.lastRun.networks];
    tasks.signal.addEventListener("abort", () => this.#peersReached.resolve());
  }

  get lease(): Lease | undefined {
    return this.#keeper.lease;
  }

  get config(): NetworkConfig {
    return this.dataPaths.config;
  }

  get paths(): readonly DataPath[] {
    return this.dataPaths.all;
  }

  get devices(): readonly string[] {
    return this.dataPaths.devices;
  }

  get outer(): OuterInterface {
    return this.#start.outer.current;
  }

  async clockAheadMs(signal: AbortSignal): Promise<number | undefined> {
    return await this.#options.store.clockAheadMs?.(signal);
  }

  ways(key: string): readonly PacketWay[] | undefined {
    const peer = this.peers.get(key);
    const subnets = this.#keeper.lease.halves.map(({ subnet }) => subnet);
    return peer && packetWays(peer, subnets, this.outer, this.#kernelView());
  }

  health(key: string): ReturnType<NodeView["health"]> {
    return this.#prober?.of(key) ?? [];
  }

  /** The subnets of those who have what only this node may have. */
  #rivals(): readonly Cidr[] {
    return [...this.dataPaths.current.peers.conflicts.keys()].flatMap((key) =>
      parseLeaseKey(key) ?? []
    );
  }

  /** How many nodes there are, as far as this one knows. */
  get #nodes(): number {
    return this.peers.size + 1;
  }

  #troubles(): readonly Trouble[] {
    return [...this.#prober?.troubles() ?? [], ...this.#clones.troubles()];
  }

  async #mesh(signal: AbortSignal): Promise<MeshReport> {
    const { store } = this.#options;
    const troubles = this.#troubles();
    const own = troubles.length === 0
      ? []
      : [[this.#keeper.lease.key, formatReport(troubles, this.#nodes, Date.now())] as const];
    const notes = await store.notes?.(signal);
    return meshReport(notes ?? new Map(own), this.#nodes, notes !== undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dataPaths[Symbol.asyncDispose]();
  }

  async run(): Promise<void> {
    const isNew = this.dataPaths.isNew();
    this.#tasks.add(this.#begin());
    try {
      await this.#tasks.join();
    } finally {
      if (isNew && !this.#readiness.wasReady) {
        this.#reconciler.delete(MASQUERADE_OWNER);
        this.#reconciler.delete(FORWARD_OWNER);
        this.dataPaths.clear();
      }
    }
  }

  /** Gets the node its lease and its data paths, and then starts all parts. */
  async #begin(): Promise<void> {
    const { lastRun, subnetFile, held } = this.#start;
    const { add, signal } = this.#tasks;
    this.dataPaths.prepare();
    const { key } = await this.#keeper.acquire(this.#start.wasOwn, signal);
    // The last run's subnet may be another node's by now: no pod may get an address of it.
    if (key !== leaseKey(lastRun.previousSubnets)) subnetFile.remove();
    await this.dataPaths.start();
    this.#masquerade();
    this.#letPodsPass();
    await this.dataPaths.keepFormer(held);
    this.#nameLeftovers();
    add(this.#watch.run((event) => this.#onLeases(event)));
    add(this.#keeper.run(signal));
    add(this.#condition.run(signal));
    add(this.#followNetConf());
    add(this.adapter.run(signal));
    add(this.#reconcile());
    add(this.#becomeReady());
    add(subnetFile.keep(signal));
    if (this.#prober !== undefined) add(this.#prober.run(signal));
    add(this.#clones.run(signal));
    add(this.#badNews.run(signal));
  }

  /** Says once what others left on the node that is in denim's way. */
  #nameLeftovers(): void {
    const { config, devices } = this.dataPaths;
    const view = this.#view();
    // With these backends other programs carry the pods' packets, by devices of their own.
    const othersCarry = ["alloc", "extension"].includes(config.backend.type);
    logLeftovers({
      ...view,
      links: othersCarry ? [] : view.links,
      networks: networksOf(config),
      subnets: this.#keeper.lease.halves.map(({ subnet }) => subnet),
      devices: [this.#start.outer.current.name, ...devices],
    }, this.#options.log);
  }

  #request(): LeaseRequest {
    const { backend, session } = this.dataPaths.current;
    const { outer, lastRun, held } = this.#start;
    const node = {
      publicIps: outer.current.publicIps,
      ...lastRun,
      hostNetwork: this.#start.hostNetwork.current,
    };
    // The lease goes on saying what it says: peers go on sending to the node that may be running.
    return this.#isProven
      ? { ...node, backendType: backend.leaseType, backendData: session.publishes }
      : {
        ...node,
        backendType: held!.backendType,
        backendData: new Map(held!.halves.map((half) => [half.subnet.family, half.backendData])),
      };
  }

  /** Has the lease say what the current data path publishes; then subnet.env's record has its addresses. */
  async #publish(): Promise<void> {
    await this.#keeper.publish();
    this.#readiness.update();
  }

  #onLeases(event: LeaseEvent): void {
    this.#applyRoutable(this.#routable.apply(event));
    this.#leasesSeen.add();
    const isFirst = !this.#sawPeers;
    this.#sawPeers = true;
    // With all peers known a check can tell what an earlier run left from what a peer needs.
    const result = isFirst ? this.#reconciler.check() : this.#reconciler.apply();
    logFailures(result, this.#options.log);
    this.#peersReached.resolve();
    this.#keeper.hear(event);
    // A newcomer gives way: it may be the clone itself.
    if (this.#readiness.wasReady) this.#clones.saw(this.#rivals());
    const { key } = this.#keeper.lease;
    if (event.kind === "changes" && event.put.some((lease) => lease.key === key)) {
      this.#condition.repeat();
    }
  }

  /** Where routes are pods' and no host's. */
  get podNetworks(): readonly Cidr[] {
    const { config } = this.dataPaths;
    return this.#start.hostNetwork.overlaps(config)
      ? this.#keeper.lease.halves.map(({ subnet }) => subnet)
      : networksOf(config);
  }

  /** Hands on what may be routed. A data path may have to be another one if a host turned out to be among the pods. */
  #applyRoutable(event: LeaseEvent): void {
    const { hostNetwork, outer } = this.#start;
    this.dataPaths.apply(event);
    const inside = this.#keeper.lease.halves.flatMap(({ subnet }) =>
      this.#routable.hostsIn(subnet)
    );
    this.#reconciler.set(
      HOSTS_OWNER,
      routesToHosts(inside, outer.current, (address) => hostNetwork.wayTo(address)),
    );
    if (this.#routable.hasHosts && hostNetwork.addOverlap(networksOf(this.dataPaths.config))) {
      this.adapter.look();
    }
  }

  /** Looks again at the network between the hosts: the outer interface, a router or a server may be another one. */
  async refreshHosts(): Promise<void> {
    const { hostNetwork } = this.#start;
    await hostNetwork.refresh();
    if (this.#tasks.signal.aborted) return;
    this.#applyRoutable(this.#routable.setHosts(hostNetwork.current.hosts));
    if (this.#sawPeers) logFailures(this.#reconciler.apply(), this.#options.log);
    if (this.#readiness.wasReady) this.#keepHost();
  }

  /** A newcomer that has what another node must have alone gives up its lease. */
  async #yieldToRivals(): Promise<void> {
    const { signal } = this.#tasks;
    const { key } = this.#keeper.lease;
    const rivals = this.dataPaths.current.peers.conflicts;
    // Of nodes that start at once, the one whose lease has the first name waits for the others to withdraw.
    const endMs = performance.now() + WITHDRAWAL_MS;
    while (rivals.size > 0 && [...rivals.keys()].every((rival) => key < rival)) {
      const leftMs = endMs - performance.now();
      if (leftMs <= 0 || !await this.#leasesSeen.after(this.#leasesSeen.count, leftMs, signal)) {
        break;
      }
    }
    const [conflict] = rivals.values();
    if (conflict !== undefined && !signal.aborted) await this.#withdraw(conflict);
  }

  async #withdraw(conflict: string): Promise<never> {
    await this.#options.store.release(this.#keeper.lease.key, this.#tasks.signal);
    throw new RuntimeError(
      `${conflict}: choose another outer device with --iface if many machines have that address, as behind ` +
        "a virtual machine's NAT; if this machine is a clone of that node, remove what it was copied with " +
        "(VXLAN: ip link delete flannel.1; WireGuard: the key file, /run/flannel/wgkey) and start the agent " +
        "again; if that lease is this machine's own from before, release it (denim leases release)",
    );
  }

  /** Follows net-conf for as long as the node lives. */
  async #followNetConf(): Promise<void> {
    for await (const config of this.#options.store.watchNetworkConfig(this.#tasks.signal)) {
      this.adapter.want(config);
      // It may allow the subnets that the net-conf before did not.
      if (this.#readiness.taken) this.#tasks.add(this.#keeper.publish());
    }
  }

  /** Keeps the kernel as it should be, from the first time that all peers are known. */
  async #reconcile(): Promise<void> {
    await this.#peersReached.promise;
    await this.#reconciler.run(this.#tasks.signal);
  }

  /** The node is ready once every peer is reached, and no running node objects to its lease. */
  async #becomeReady(): Promise<void> {
    await this.#peersReached.promise;
    const { signal } = this.#tasks;
    if (this.#start.held === undefined) await this.#yieldToRivals();
    if (!this.#keeper.isProven) {
      if (!await SYSTEM_CLOCK.sleep(OBJECTION_MS, signal)) return;
      this.#isProven = true;
      await this.#keeper.publish();
    }
    if (signal.aborted) return;
    const { families } = this.dataPaths.config;
    this.#reconciler.networks = families;
    this.#reconciler.set(HOST_OWNER, hostState(families));
    const { failures } = this.#reconciler.apply();
    if (failures.length > 0) throw new RuntimeError(failures.join("; "));
    this.#keepHost();
    this.#readiness.start();
    if (!this.#readiness.ready) return;
    const { peers, session } = this.dataPaths.current;
    this.#options.log.info("ready", "this node is ready", {
      subnets: this.#keeper.lease.halves.map(({ subnet }) => subnet).join(" "),
      peers: peers.size,
      mtuBytes: session.mtuBytes,
    });
  }

  /** Has the kernel do what pods need by the devices that there are now. */
  #keepHost(): void {
    const { families } = this.dataPaths.config;
    const devices = [this.#start.outer.current.name, ...this.dataPaths.devices];
    const subnets = this.#keeper.lease.halves.map(({ subnet }) => subnet);
    this.#reconciler.set(HOST_OWNER, hostState(families, devices, subnets));
    this.#reconciler.set(MASQUERADE_OWNER, this.#masqueradeState());
    this.#letPodsPass();
  }

  /**
   * Masquerades before any earlier run's rules are removed: packets always meet rules. Throws a RuntimeError if the
   * kernel cannot.
   */
  #masquerade(): void {
    this.#reconciler.set(MASQUERADE_OWNER, this.#masqueradeState());
    const { failures } = this.#reconciler.apply();
    if (failures.length > 0) throw new RuntimeError(failures.join("; "));
  }

  /** As with masquerading, before any earlier run's rules are removed; but a node can do without. */
  #letPodsPass(): void {
    const { families } = this.dataPaths.config;
    this.#reconciler.set(FORWARD_OWNER, this.#options.forwardRules ? forwardState(families) : []);
    logFailures(this.#reconciler.apply(), this.#options.log);
  }

  #masqueradeState(): KernelState {
    const subnets = this.#keeper.lease.halves.map(({ subnet }) => subnet);
    const { masquerade, blackholeRoute } = this.#options;
    const hosts = this.#start.hostNetwork.current;
    return [
      ...masqueradeState(this.dataPaths.config, subnets, masquerade, hosts),
      ...blackholeRoute ? blackholeState(subnets) : [],
    ];
  }

  #subnetEnv(): SubnetEnv {
    const { config, current } = this.dataPaths;
    return {
      halves: this.#keeper.lease.halves.map(({ subnet }) => ({
        networks: config.families.filter(({ family }) => family === subnet.family)
          .map(({ network }) => network),
        subnet,
      })),
      mtuBytes: current.session.mtuBytes,
      ipMasq: this.#options.masquerade !== undefined,
    };
  }
}
