/**
 * The tables of a Linux network namespace, and in which order they are made. A new table is one entry here.
 *
 * @module
 */

import type { Cidr } from "../../ip.ts";
import type {
  DeviceAddress,
  FdbEntry,
  KernelObject,
  Neighbour,
  Nexthop,
  PodNetwork,
  Route,
} from "../../kernel_state.ts";
import type { Logger } from "../../log.ts";
import { Monitor } from "../netlink/monitor.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import type { IptablesChain } from "../netfilter/iptables_chain.ts";
import { NetfilterTables } from "../netfilter/netfilter_tables.ts";
import type { NftTable } from "../netfilter/nft_table.ts";
import { addressKind } from "../objects/address.ts";
import { type DeviceUp, deviceUpKind } from "../objects/device_up.ts";
import { fdbKind } from "../objects/fdb.ts";
import { FORWARDING_MESSAGES } from "../objects/forwarding.ts";
import { LINK_MESSAGES, type LinkState } from "../objects/link.ts";
import { neighbourKind } from "../objects/neighbour.ts";
import { nexthopKey, nexthopKind } from "../objects/nexthop.ts";
import { deviceKey, type KernelContext, RTPROT_DENIM } from "../objects/object_kind.ts";
import { routeKind } from "../objects/route.ts";
import { ENODEV, LinuxError } from "../sys/linux_error.ts";
import { NetworkNamespace } from "../sys/namespace.ts";
import { NETLINK_ROUTE } from "../uapi/netlink.ts";
import { WireguardTable } from "../wireguard/wireguard_table.ts";
import { DeviceTable } from "./device_table.ts";
import type {
  AnyTable,
  Derivation,
  DesiredView,
  KernelItem,
  KernelTables,
} from "./kernel_table.ts";
import { Links } from "./links.ts";
import { PodBridge } from "./pod_bridge.ts";
import { type KindsOf, RtnetlinkTable } from "./rtnetlink_table.ts";
import { SysctlTable } from "./sysctl_table.ts";

/** What the kernel reported of routes and devices that are not denim's; neither if anything may be another now. */
export interface UnderlayNews {
  /** A device that came up, or went down or away, or has another name, MTU or address. */
  readonly device?: string;
  /** The destination of a route that came, changed or went. */
  readonly destination?: Cidr;
}

/** How often flanneld compares iptables' rules, unless `--iptables-resync` says otherwise. */
const IPTABLES_RESYNC_MS = 5_000;

/** What the tables of a namespace work with. */
export interface LinuxTablesOptions {
  /** What owners want. */
  readonly desired: DesiredView;
  /** Takes what operators should know. */
  readonly log: Logger;
  /** Told of changes that are not denim's. */
  readonly onUnderlay: (news: UnderlayNews) => void;
  /** The names of devices that earlier runs left and that go unless an owner wants them; none unless given. */
  readonly left?: ReadonlySet<string>;
  /** How often iptables' rules are compared in full, in milliseconds; {@link IPTABLES_RESYNC_MS} unless given. */
  readonly iptablesResyncMs?: number | undefined;
  /** Opens the socket for requests, in the thread's namespace; a new {@link NetlinkSocket} unless given. */
  readonly openSocket?: () => NetlinkSocket;
}

/** What every kind of object of {@link KernelObject} is kept by, or derived from. */
type Kept = KernelObject | DeviceUp | IptablesChain | NftTable;

/** Kinds that stand for others. */
type Derived = "podGateway" | "masquerade" | "podForward";

type OnDevices = DeviceUp | DeviceAddress;
type BetweenNodes = FdbEntry | Neighbour | Nexthop | Route;

const ON_DEVICES: KindsOf<OnDevices> = {
  deviceUp: deviceUpKind,
  address: addressKind,
};
const BETWEEN_NODES: KindsOf<BetweenNodes> = {
  fdb: fdbKind,
  neighbour: neighbourKind,
  nexthop: nexthopKind,
  route: routeKind,
};

/** The tables of the network namespace of the thread that opens them. */
export class LinuxTables implements KernelTables {
  /** See {@link KernelTables.tables}. */
  readonly tables: Readonly<Record<string, AnyTable>>;
  /** See {@link KernelTables.derivations}. */
  readonly derivations: Readonly<Record<string, Derivation>>;
  /** See {@link KernelTables.networks}. */
  networks: readonly PodNetwork[] = [];
  readonly #open: DisposableStack;
  readonly #monitor: Monitor;
  readonly #namespace: NetworkNamespace;
  readonly #onUnderlay: (news: UnderlayNews) => void;

  /** Opens the sockets. Throws a LinuxError without CAP_NET_ADMIN. */
  constructor(options: LinuxTablesOptions) {
    const { desired, log, onUnderlay, iptablesResyncMs = IPTABLES_RESYNC_MS } = options;
    const { left = new Set(), openSocket = () => new NetlinkSocket() } = options;
    this.#onUnderlay = onUnderlay;
    using open = new DisposableStack();
    this.#namespace = open.use(NetworkNamespace.current());
    const socket = open.use(openSocket());
    const kinds = [...Object.values(ON_DEVICES), ...Object.values(BETWEEN_NODES)];
    const groups = [LINK_MESSAGES, FORWARDING_MESSAGES, ...kinds.map(({ messages }) => messages)]
      .flatMap(({ groups }) => groups);
    const monitor = open.use(new Monitor(socket.portId, NETLINK_ROUTE, new Set(groups)));
    this.#monitor = monitor;
    const links = new Links();
    const podBridge = new PodBridge({ socket, monitor, links, networks: () => this.networks });
    const context = this.#context(links, podBridge, desired);
    const wireguard = open.use(new WireguardTable({ links, context, desired }));
    const onChange = (before: LinkState | undefined, now: LinkState | undefined) => {
      podBridge.onLink(before, now);
      wireguard.onLink(before, now);
      this.#reportDevice(before, now, context);
    };
    const common = { socket, monitor, context };
    const devices = new DeviceTable({
      ...common,
      links,
      desired,
      left,
      log,
      onChange,
      onLost: () => onUnderlay({}),
    });
    const onDevices = new RtnetlinkTable<OnDevices>(ON_DEVICES, common);
    const betweenNodes = new RtnetlinkTable<BetweenNodes>(BETWEEN_NODES, common);
    const sysctls = new SysctlTable(common);
    const netfilter = open.use(
      new NetfilterTables({
        desired,
        log,
        inCluster: (cidr) => this.networks.some(({ network }) => network.contains(cidr)),
        iptablesResyncMs,
      }),
    );
    this.derivations = {
      podGateway: podBridge,
      ...netfilter.derivations,
    } satisfies Record<Derived, Derivation>;
    // Leaving a kind out does not type-check.
    this.tables = {
      link: devices,
      ...onDevices.byKind(),
      wireguard,
      wireguardPeer: wireguard,
      ...betweenNodes.byKind(),
      forwarding: sysctls,
      ...netfilter.tables,
    } satisfies { [Kind in Exclude<Kept["kind"], Derived>]: AnyTable };
    this.#open = open.move();
  }

  #context(links: Links, podBridge: PodBridge, desired: DesiredView): KernelContext {
    const owned = (name: string) => desired.get("link", deviceKey(name)) !== undefined;
    const networks = () => this.networks;
    return {
      indexOf: (name) => {
        const link = links.named(name);
        if (link === undefined) throw new LinuxError(ENODEV, deviceKey(name));
        return link.index;
      },
      nameOf: (index) => links.at(index)?.name,
      has: (name) => links.named(name) !== undefined,
      isUp: (name) => links.named(name)?.up ?? false,
      owned,
      ownedDevices: () => links.all().map(({ name }) => name).filter(owned),
      nexthop: (id) => desired.get("nexthop", nexthopKey(id))?.object as Nexthop | undefined,
      wantsAddress: (address) =>
        desired.of("address").values()
          .some(({ object }) => (object as DeviceAddress).address.equals(address)),
      get podBridge() {
        return podBridge.device;
      },
      get networks() {
        return networks();
      },
    };
  }

  /** See {@link KernelTables.begin}. The events of devices that this run has just made would have all compared once more. */
  begin(): void {
    this.#monitor.hold();
  }

  /** See {@link KernelTables.inside}: a TUN device is made, and a setting written, where the thread is. */
  inside<T>(pass: () => T extends Promise<unknown> ? never : T): T {
    return this.#namespace.runHere(pass);
  }

  /** The routes of a device that goes down go with it without an event of their own. */
  #reportDevice(
    before: LinkState | undefined,
    now: LinkState | undefined,
    context: KernelContext,
  ): void {
    const same = before?.up === now?.up && before?.name === now?.name &&
      before?.mtuBytes === now?.mtuBytes;
    const device = before?.name ?? now?.name;
    if (same || device === undefined) return;
    if (!context.owned(device)) this.#onUnderlay({ device });
  }

  /**
   * See {@link KernelTables.onForeign}. Addresses, routes and the nexthops that they go by decide how packets leave this
   * node; those of another cluster's agent lead to its pods, not to nodes.
   */
  onForeign(object: KernelItem & Partial<Foreign>): void {
    const { kind, device, destination, protocol } = object;
    if (protocol === RTPROT_DENIM) return;
    if (kind === "address" && device !== undefined) this.#onUnderlay({ device });
    if (kind === "route" && destination !== undefined) this.#onUnderlay({ destination });
    if (kind === "nexthop") this.#onUnderlay({});
  }

  /** Closes the sockets. What is in the kernel stays. */
  [Symbol.dispose](): void {
    this.#open[Symbol.dispose]();
  }
}

/** What the found objects say that may be of interest. */
interface Foreign {
  readonly device: string | undefined;
  readonly destination: Cidr;
  readonly protocol: number;
}
