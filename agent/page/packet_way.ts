/**
 * The way of a packet from a pod of this node to one of another, station by station, as the kernel would send it now.
 *
 * @module
 */

import type { Cidr, IpAddress, KernelReader, MacAddress, OuterInterface } from "@denim/core";
import type { AddressState, LinkState } from "@denim/core/linux";
import type { ListedHalf, ListedPeer } from "../peer_list.ts";

/** A device on the way. */
export interface WayDevice {
  /** Its name. */
  readonly name: string;
  /** What makes it: "vxlan", "tun", "bridge"; `null` for hardware. */
  readonly type: string | null;
  /** The largest packet that it takes, in bytes. */
  readonly mtuBytes: number;
  /** Its Ethernet address; `null` if it has none. */
  readonly mac: string | null;
  /** Its address of the packet's family; `null` if it has none. */
  readonly address: string | null;
  /** A VXLAN device's network identifier and UDP port; `null` for others. */
  readonly vxlan: { readonly vni: number; readonly port: number } | null;
}

/** The way to one half of a peer. What the kernel does not have is `null`. */
export interface PacketWay {
  /** The subnet that the packet comes from. */
  readonly fromSubnet: string;
  /** The bridge of the pods of this node; `null` before there is a pod. */
  readonly bridge: WayDevice | null;
  /** The first pod's address in the peer's subnet, to which the kernel is asked the way. */
  readonly to: string;
  /** The subnet that it goes to. */
  readonly toSubnet: string;
  /** The gateway of the kernel's route to it. */
  readonly via: string | null;
  /** The device of that route. */
  readonly device: WayDevice | null;
  /** The Ethernet address of the gateway behind the device, as a tunnel has it for the peer. */
  readonly peerMac: string | null;
  /** Whether the packet leaves by the outer interface as it is, in no other packet. */
  readonly isDirect: boolean;
  /** The peer's address on the underlay. */
  readonly publicIp: string;
  /** The device by which packets to that address leave. */
  readonly outer: WayDevice | null;
  /** The router that takes them there; `null` if the peer is on the link. */
  readonly router: string | null;
}

/** What the kernel has on a node. */
export interface KernelView {
  /** All devices. */
  readonly links: readonly LinkState[];
  /** All addresses. */
  readonly addresses: readonly AddressState[];
  /** Answers questions about routes. */
  readonly kernel: Pick<KernelReader, "routeTo">;
  /** The Ethernet address that the kernel knows for an address behind a device. */
  macBehind(device: LinkState, address: IpAddress): MacAddress | undefined;
}

/**
 * The way to each half of a peer.
 *
 * @param subnets this node's own
 */
export function packetWays(
  { halves }: ListedPeer,
  subnets: readonly Cidr[],
  outer: Pick<OuterInterface, "name">,
  view: KernelView,
): readonly PacketWay[] {
  return halves.flatMap((half) => {
    const from = subnets.find(({ family }) => family === half.subnet.family);
    return from === undefined ? [] : [packetWay(half, from, outer, view)];
  });
}

function packetWay(
  { subnet, publicIp }: ListedHalf,
  from: Cidr,
  outer: Pick<OuterInterface, "name">,
  { links, addresses, kernel, macBehind }: KernelView,
): PacketWay {
  const link = (name: string | undefined) => links.find((link) => link.name === name);
  const addressOn = ({ index }: LinkState) =>
    addresses.find(({ index: on, address }) =>
      on === index && address.family === subnet.family && !address.isLinkLocal
    )?.address;
  const described = (found: LinkState | undefined): WayDevice | null =>
    found === undefined ? null : {
      name: found.name,
      type: found.type ?? null,
      mtuBytes: found.mtuBytes,
      mac: found.mac?.toString() ?? null,
      address: addressOn(found)?.toString() ?? null,
      vxlan: found.vxlan === undefined ? null : { vni: found.vxlan.vni, port: found.vxlan.port },
    };
  // The first address is the device's own, the next one the bridge's.
  const to = subnet.at(2n);
  const route = kernel.routeTo(to);
  const device = link(route?.device);
  const away = kernel.routeTo(publicIp);
  const peerMac = device && route?.gateway && macBehind(device, route.gateway);
  return {
    fromSubnet: `${from}`,
    bridge: described(links.find((link) => {
      const own = link.type === "bridge" ? addressOn(link) : undefined;
      return own !== undefined && from.contains(own);
    })),
    to: `${to}`,
    toSubnet: `${subnet}`,
    via: route?.gateway?.toString() ?? null,
    device: described(device),
    peerMac: peerMac?.toString() ?? null,
    isDirect: route?.device === outer.name,
    publicIp: `${publicIp}`,
    outer: described(link(away?.device)),
    router: away?.gateway?.toString() ?? null,
  };
}
