/**
 * The pod bridge: which of a node's bridges it is, and what it needs. The CNI plugin makes it, under a name that only
 * the plugin's configuration says.
 *
 * @module
 */

import { FAMILIES, type Family, IpAddress } from "../../ip.ts";
import type { DeviceAddress, Forwarding, PodGateway, PodNetwork } from "../../kernel_state.ts";
import type { Monitor } from "../netlink/monitor.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { addressKind, type AddressState, listAddresses, parseAddress } from "../objects/address.ts";
import type { DeviceUp } from "../objects/device_up.ts";
import { findLink, type LinkState } from "../objects/link.ts";
import { NO_GATEWAY_ALIAS } from "../objects/pod_link.ts";
import { RT_SCOPE_UNIVERSE } from "../uapi/rtnetlink.ts";
import type { Derivation, Derived } from "./kernel_table.ts";
import type { Links } from "./links.ts";

/** The bridge's name if the plugin's configuration says none. */
const DEFAULT_NAME = "cni0";
/** Docker's bridge. With flanneld's options for Docker it has the gateway's address, which Docker gives it and takes away. */
const DOCKERS_NAME = "docker0";

/**
 * The source of the bridge's neighbour solicitations for pods' IPv6 addresses. The kernel gives the bridge a link-local
 * address too, but probes it for duplicates: for up to two seconds each time the bridge comes up it is of no use.
 */
const SOLICITATION_SOURCE = IpAddress.parse("fe80::1");

/** A bridge that is taken for the pod bridge. */
export interface ChosenBridge {
  /** The device. */
  readonly link: LinkState;
  /** Whether only its name says so: nobody but denim was seen to give it a gateway's address. */
  readonly assumed: boolean;
}

/**
 * Chooses the pod bridge: the bridge with a gateway's address, and from then on that bridge, even without the address.
 * Failing that, the bridge cni0, if it has pods or an earlier lease's address and no others: a bridge without is the
 * plugin's, which is making it just now, and one with another cluster's addresses is that cluster's. Never a bridge
 * that the plugin has marked with {@link NO_GATEWAY_ALIAS}, and never Docker's.
 *
 * @param before what was chosen the last time
 */
export function choosePodBridge(
  links: readonly LinkState[],
  addresses: readonly AddressState[],
  gateways: readonly PodGateway[],
  networks: readonly PodNetwork[],
  before: ChosenBridge | undefined,
): ChosenBridge | undefined {
  if (gateways.length === 0) return undefined;
  const bridges = links.filter(({ type, alias, name }) =>
    type === "bridge" && alias !== NO_GATEWAY_ALIAS && name !== DOCKERS_NAME
  );
  const assumed = before?.assumed ? before.link.index : undefined;
  const known = bridges.find(({ index }) => index === before?.link.index);
  if (known !== undefined && assumed === undefined) return { link: known, assumed: false };

  const on = (bridge: LinkState) =>
    addresses.filter(({ index, scope }) => index === bridge.index && scope === RT_SCOPE_UNIVERSE)
      .map(({ address }) => address);
  const isGateway = (address: IpAddress) => gateways.some((it) => it.address.equals(address));
  const seen = bridges.filter((link) => link.index !== assumed && on(link).some(isGateway));
  const link = seen.find(({ name }) => name === DEFAULT_NAME) ?? seen[0];
  if (link !== undefined) return { link, assumed: false };

  const named = known ?? bridges.find(({ name }) => name === DEFAULT_NAME);
  if (named === undefined) return undefined;
  const isPods = (address: IpAddress) => networks.some(({ network }) => network.contains(address));
  const own = on(named);
  const inUse = own.length > 0 || links.some(({ masterIndex }) => masterIndex === named.index);
  return inUse && own.every(isPods) ? { link: named, assumed: true } : undefined;
}

/** What the pod bridge needs: up, forwarding, the gateways' addresses. */
function podBridgeState(
  device: string,
  gateways: readonly PodGateway[],
): (DeviceUp | DeviceAddress | Forwarding)[] {
  const serves = (family: Family) => gateways.some(({ address }) => address.family === family);
  const address = (address: IpAddress, prefixLength: number) =>
    ({ kind: "address", device, address, prefixLength }) as const;
  return [
    { kind: "deviceUp", device },
    ...gateways.map((gateway) => address(gateway.address, gateway.prefixLength)),
    ...serves(6) ? [address(SOLICITATION_SOURCE, 64)] : [],
    // IPv6 asks the switch for all devices alone.
    ...serves(4) ? [{ kind: "forwarding", family: 4, device } as const] : [],
  ];
}

/** What a {@link PodBridge} works with. */
export interface PodBridgeOptions {
  /** For requests. */
  readonly socket: NetlinkSocket;
  /** Events of addresses. */
  readonly monitor: Monitor;
  /** The namespace's devices. */
  readonly links: Links;
  /** The cluster's networks, as they are now. */
  readonly networks: () => readonly PodNetwork[];
}

/** Turns the gateways that are wanted into what the pod bridge needs, if there is a pod bridge. */
export class PodBridge implements Derivation {
  /** See {@link Derivation.owner}. */
  readonly owner = "pod bridge";
  /** See {@link Derivation.kinds}. */
  readonly kinds: readonly ReturnType<typeof podBridgeState>[number]["kind"][] = [
    "deviceUp",
    "address",
    "forwarding",
  ];
  readonly #options: PodBridgeOptions;
  #chosen: ChosenBridge | undefined;
  #isNeeded = false;
  #onChange = () => {};

  /** Nothing is chosen yet. */
  constructor(options: PodBridgeOptions) {
    this.#options = options;
  }

  /** The bridge's name; `undefined` while there is none. */
  get device(): string | undefined {
    return this.#chosen?.link.name;
  }

  /** See {@link Derivation.key}. */
  key({ address, prefixLength }: PodGateway): string {
    return `podGateway ${address}/${prefixLength}`;
  }

  /** See {@link Derivation.derive}. */
  derive(gateways: readonly PodGateway[]): Derived {
    const { socket, links, networks } = this.#options;
    this.#isNeeded = gateways.length > 0;
    const addresses = this.#isNeeded
      ? FAMILIES.flatMap((family) => listAddresses(socket, family))
      : [];
    const before = this.#chosen?.link;
    this.#chosen = choosePodBridge(links.all(), addresses, gateways, networks(), this.#chosen);
    if (this.#chosen === undefined) return { objects: [], compare: false };
    const { index, name } = this.#chosen.link;
    return {
      objects: podBridgeState(name, gateways),
      compare: before?.index !== index || before.name !== name,
    };
  }

  /** See {@link Derivation.isOutdated}: the plugin may remove the bridge at any time, which is not a failure. */
  isOutdated(): boolean {
    return this.#chosen !== undefined &&
      findLink(this.#options.socket, this.#chosen.link.index) === undefined;
  }

  /** See {@link Derivation.listen}. Changes of devices come by {@link PodBridge.onLink}. */
  listen(onChange: () => void, signal: AbortSignal): Promise<void> {
    this.#onChange = onChange;
    const { monitor, links } = this.#options;
    return monitor.listen({
      onMessage: (reader) => {
        const { new: added, del } = addressKind.messages;
        if (!this.#isNeeded || this.#chosen?.assumed === false) return;
        if (reader.type !== added && reader.type !== del) return;
        const index = parseAddress(reader)?.index ?? 0;
        if (links.at(index)?.type === "bridge") onChange();
      },
      onLost: onChange,
    }, signal);
  }

  /** A bridge that comes, goes, is renamed or marked may be the pod bridge; while none is known, a new port may show it. */
  onLink(before: LinkState | undefined, now: LinkState | undefined): void {
    if (!this.#isNeeded) return;
    if (before?.type === "bridge" || now?.type === "bridge") {
      if (before?.name !== now?.name || before?.alias !== now?.alias) this.#onChange();
    } else if (this.#chosen === undefined && now?.masterIndex !== before?.masterIndex) {
      this.#onChange();
    }
  }
}
