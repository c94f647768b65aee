/**
 * Which of a node's bridges is the pods': the CNI plugin makes it, under a name that only its configuration
 * says.
 *
 * @module
 */

import { type Family, IpAddress } from "../../ip.ts";
import type { DeviceAddress, Forwarding, Gateway, PodNetwork } from "../../kernel_state.ts";
import type { AddressState } from "../objects/address.ts";
import type { DeviceUp, LinkState } from "../objects/link.ts";
import { NO_GATEWAY_ALIAS } from "../objects/pod_link.ts";
import { RT_SCOPE_UNIVERSE } from "../uapi/rtnetlink.ts";

/** The plugin's name for the bridge where its configuration says nothing. */
const DEFAULT_NAME = "cni0";

/**
 * The source of the bridge's questions for pods' IPv6 neighbours. It has one of its own making as well, but
 * that is probed for duplicates, and comes late, for up to two seconds each time the bridge comes up.
 */
const LINK_LOCAL = IpAddress.parse("fe80::1");

/** The pods' bridge, as far as can be told. */
export interface PodBridge {
  /** The device. */
  readonly link: LinkState;
  /** Whether only its name says so: nobody but denim was seen to give it a gateway's address. */
  readonly assumed: boolean;
}

/**
 * Chooses the pods' bridge: the one that carries a gateway's address. Once seen it stays so, also without the
 * address. Failing that, the one called cni0, where pods or an earlier lease's address are on it and nobody
 * else's: one that is only just being made is the plugin's, and one of another cluster's pods is theirs. Never one
 * that the plugin has marked ({@link NO_GATEWAY_ALIAS}).
 *
 * @param before what was chosen the last time
 */
export function choosePodBridge(
  links: readonly LinkState[],
  addresses: readonly AddressState[],
  gateways: readonly Gateway[],
  networks: readonly PodNetwork[],
  before: PodBridge | undefined,
): PodBridge | undefined {
  if (gateways.length === 0) return undefined;
  const bridges = links.filter(({ type, alias }) =>
    type === "bridge" && alias !== NO_GATEWAY_ALIAS
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

/** What the pods' bridge needs. */
export function podBridgeState(
  device: string,
  gateways: readonly Gateway[],
): (DeviceUp | DeviceAddress | Forwarding)[] {
  const serves = (family: Family) => gateways.some(({ address }) => address.family === family);
  const address = (address: IpAddress, prefixLength: number) =>
    ({ kind: "address", device, address, prefixLength }) as const;
  return [
    { kind: "up", device },
    ...gateways.map((gateway) => address(gateway.address, gateway.prefixLength)),
    ...serves(6) ? [address(LINK_LOCAL, 64)] : [],
    // IPv6 heeds the switch for all devices alone.
    ...serves(4) ? [{ kind: "forwarding", family: 4, device } as const] : [],
  ];
}
