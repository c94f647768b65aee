/**
 * Network devices (`RTM_*LINK`, linux/if_link.h).
 *
 * @module
 */

import { IpAddress } from "../../ip.ts";
import type { IpipInfo, Link, PlainTunnelLink, VxlanInfo, VxlanLink } from "../../kernel_state.ts";
import { MacAddress } from "../../mac.ts";
import { ENODEV, LinuxError } from "../sys/linux_error.ts";
import type { MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import type { KernelContext, KindMessages } from "./object_kind.ts";
import { NLM_F_CREATE, NLM_F_EXCL } from "../uapi/netlink.ts";
import {
  IFF_TUN,
  IFLA_TUN_MULTI_QUEUE,
  IFLA_TUN_PERSIST,
  IFLA_TUN_PI,
  IFLA_TUN_TYPE,
} from "../uapi/if_tun.ts";
import {
  IF_OPER_UP,
  IFF_LOOPBACK,
  IFF_LOWER_UP,
  IFF_PROMISC,
  IFF_RUNNING,
  IFF_UP,
  IFINFOMSG_LEN,
  IFLA_ADDRESS,
  IFLA_EXT_MASK,
  IFLA_IFALIAS,
  IFLA_IFNAME,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_IPTUN_LOCAL,
  IFLA_IPTUN_PMTUDISC,
  IFLA_IPTUN_REMOTE,
  IFLA_LINKINFO,
  IFLA_MASTER,
  IFLA_MTU,
  IFLA_OPERSTATE,
  IFLA_TXQLEN,
  IFLA_VXLAN_GBP,
  IFLA_VXLAN_ID,
  IFLA_VXLAN_LEARNING,
  IFLA_VXLAN_LINK,
  IFLA_VXLAN_LOCAL,
  IFLA_VXLAN_LOCAL6,
  IFLA_VXLAN_PORT,
  IFLA_VXLAN_UDP_CSUM,
  RTEXT_FILTER_SKIP_STATS,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  RTNLGRP_LINK,
} from "../uapi/rtnetlink.ts";
import { AF_UNSPEC } from "../uapi/socket.ts";

/** A device as the kernel has it. */
export interface LinkState {
  /** The kernel's number for the device. */
  readonly index: number;
  /** The device's name. */
  readonly name: string;
  /** The largest packet that it takes, in bytes. */
  readonly mtuBytes: number;
  /** A note on the device that programs and people may write (`ip link set … alias`); "" if there is none. */
  readonly alias: string;
  /** Its Ethernet address; `undefined` if it has none, as a TUN device. */
  readonly mac: MacAddress | undefined;
  /** Whether it is set up (`IFF_UP`). */
  readonly up: boolean;
  /** Whether it carries packets now (`IF_OPER_UP`). */
  readonly operUp: boolean;
  /** Whether it is up and has a carrier: without, the kernel lets no nexthop go by it. */
  readonly running: boolean;
  /** Whether it is a loopback. */
  readonly loopback: boolean;
  /** Whether it was set to take every packet (`IFF_PROMISC`). */
  readonly promiscuous: boolean;
  /** The bridge, bond or the like that it is a port of. */
  readonly masterIndex: number | undefined;
  /** What makes it: "vxlan", "bridge", "veth"; `undefined` for hardware. */
  readonly type: string | undefined;
  /** What a VXLAN device is made with; the outer device by index. */
  readonly vxlan: (Omit<VxlanInfo, "outerDevice"> & { readonly outerIndex: number }) | undefined;
  /** What a TUN device is made with. */
  readonly tun: TunState | undefined;
  /** What an IPIP device is made with. */
  readonly ipip: IpipState | undefined;
  /** How many packets wait to leave before more are dropped. */
  readonly queueLength: number;
}

/** What an IPIP device is made with; 0.0.0.0 stands for any address. */
export interface IpipState extends Pick<IpipInfo, "local"> {
  /** Where all its packets go; to their route's gateway unless given. */
  readonly remote: IpAddress;
}

/** What a TUN device is made with. */
export interface TunState {
  /** Whether it stays when no program has it open. */
  readonly persistent: boolean;
  /** Whether it takes several queues (`IFF_MULTI_QUEUE`). */
  readonly multiQueue: boolean;
  /** Whether it carries bare IP packets: no Ethernet, no header that names the protocol. */
  readonly bareIp: boolean;
}

/** Writes `struct ifinfomsg`. */
export function writeLinkHeader(
  writer: MessageWriter,
  header: { family?: number; index?: number; flags?: number; change?: number },
): MessageWriter {
  return writer.u8(header.family ?? AF_UNSPEC).u8(0).u16(0).u32(header.index ?? 0)
    .u32(header.flags ?? 0).u32(header.change ?? 0);
}

/** Reads `RTM_NEWLINK` or `RTM_DELLINK`; `undefined` if it is a bridge's message about a port. */
export function parseLink(reader: MessageReader): LinkState | undefined {
  // A bridge reports its ports in messages of its own family, which lack most attributes.
  if (reader.u8(0) !== AF_UNSPEC) return undefined;
  const flags = reader.u32(8);
  reader.readAttributes(IFINFOMSG_LEN);
  const address = reader.bytesAttribute(IFLA_ADDRESS);
  const link = {
    index: reader.i32(4),
    name: reader.stringAttribute(IFLA_IFNAME) ?? "",
    mtuBytes: reader.u32Attribute(IFLA_MTU) ?? 0,
    alias: reader.stringAttribute(IFLA_IFALIAS) ?? "",
    mac: address?.length === 6 ? MacAddress.fromBytes(address) : undefined,
    up: (flags & IFF_UP) !== 0,
    operUp: reader.u8Attribute(IFLA_OPERSTATE) === IF_OPER_UP,
    running: (flags & IFF_UP) !== 0 && (flags & (IFF_RUNNING | IFF_LOWER_UP)) !== 0,
    loopback: (flags & IFF_LOOPBACK) !== 0,
    promiscuous: (flags & IFF_PROMISC) !== 0,
    masterIndex: reader.u32Attribute(IFLA_MASTER),
    queueLength: reader.u32Attribute(IFLA_TXQLEN) ?? 0,
  };
  const type = reader.enter(IFLA_LINKINFO) ? reader.stringAttribute(IFLA_INFO_KIND) : undefined;
  const data = ["vxlan", "tun", "ipip"].includes(type ?? "") && reader.enter(IFLA_INFO_DATA);
  return {
    ...link,
    type,
    vxlan: data && type === "vxlan" ? parseVxlan(reader) : undefined,
    tun: data && type === "tun" ? parseTun(reader) : undefined,
    ipip: data && type === "ipip" ? parseIpip(reader) : undefined,
  };
}

function parseIpip(reader: MessageReader): IpipState {
  const address = (type: number) => {
    const bytes = reader.bytesAttribute(type);
    return bytes ? IpAddress.fromBytes(bytes) : ANY_ADDRESS;
  };
  return { local: address(IFLA_IPTUN_LOCAL), remote: address(IFLA_IPTUN_REMOTE) };
}

const ANY_ADDRESS = new IpAddress(4, 0n);

function parseTun(reader: MessageReader): TunState {
  return {
    persistent: reader.u8Attribute(IFLA_TUN_PERSIST) === 1,
    multiQueue: reader.u8Attribute(IFLA_TUN_MULTI_QUEUE) === 1,
    bareIp: reader.u8Attribute(IFLA_TUN_TYPE) === IFF_TUN && reader.u8Attribute(IFLA_TUN_PI) === 0,
  };
}

function parseVxlan(reader: MessageReader): LinkState["vxlan"] {
  const local = reader.bytesAttribute(IFLA_VXLAN_LOCAL) ?? reader.bytesAttribute(IFLA_VXLAN_LOCAL6);
  return {
    type: "vxlan",
    vni: reader.u32Attribute(IFLA_VXLAN_ID) ?? 0,
    port: reader.be16Attribute(IFLA_VXLAN_PORT) ?? 0,
    outerIndex: reader.u32Attribute(IFLA_VXLAN_LINK) ?? 0,
    local: local ? IpAddress.fromBytes(local) : ANY_ADDRESS,
    learning: reader.u8Attribute(IFLA_VXLAN_LEARNING) === 1,
    gbp: reader.has(IFLA_VXLAN_GBP),
  };
}

/** All devices of the socket's namespace: `ip -details link show`. */
export function listLinks(socket: NetlinkSocket): LinkState[] {
  return socket.dump(
    "list devices",
    (writer) =>
      writeLinkHeader(writer.begin(RTM_GETLINK, 0), {})
        .u32Attribute(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS).end(),
    parseLink,
  );
}

/** One device by its name or index: `ip -details link show dev NAME`. `undefined` if there is none. */
export function findLink(socket: NetlinkSocket, which: string | number): LinkState | undefined {
  try {
    return socket.get(
      `look up device ${which}`,
      (writer) => {
        const byName = typeof which === "string";
        writeLinkHeader(writer.begin(RTM_GETLINK, 0), { index: byName ? 0 : which });
        if (byName) writer.stringAttribute(IFLA_IFNAME, which);
        writer.u32Attribute(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS).end();
      },
      parseLink,
    );
  } catch (error) {
    if (error instanceof LinuxError && error.errno === ENODEV) return undefined;
    throw error;
  }
}

/** A device that a message of rtnetlink's makes. */
export type MadeLink = VxlanLink | PlainTunnelLink;

/**
 * Writes the message that makes a device, up: `ip link add NAME address MAC mtu MTU type vxlan id VNI dstport PORT
 * local ADDRESS dev OUTER [gbp] nolearning [noudpcsum]`, `… type wireguard`, or `… type ipip local ADDRESS nopmtudisc`.
 * A TUN device is made by opening it; see `openTun`.
 *
 * VXLAN's packets of IPv4 have no outer UDP checksum, as RFC 7348 has it (section 5). NAT would spoil it: while the inner
 * packet's checksum is left to the outer device, the kernel takes the outer one for unfinished too, and corrects it wrongly
 * (docs/develop.md has which kernels). IPv6 must have one. It can't be changed later: a device that is there
 * with it is left as it is.
 */
export function writeNewLink(writer: MessageWriter, link: MadeLink, context: KernelContext): void {
  writeLinkHeader(writer.begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL), UP)
    .stringAttribute(IFLA_IFNAME, link.name)
    .u32Attribute(IFLA_MTU, link.mtuBytes);
  if (link.mac !== undefined) {
    writer.addressAttribute(IFLA_ADDRESS, link.mac);
    const { info } = link;
    writeLinkInfo(writer, info.type, () => {
      writer.u32Attribute(IFLA_VXLAN_ID, info.vni).be16Attribute(IFLA_VXLAN_PORT, info.port);
      if (info.gbp) writer.flagAttribute(IFLA_VXLAN_GBP);
      if (info.local.family === 4) writer.u8Attribute(IFLA_VXLAN_UDP_CSUM, 0);
      writeChangeable(writer, info, context);
    });
  } else if (link.info.type === "ipip") {
    const { type, local } = link.info;
    // As flannel's: a packet may be fragmented on its way if the pod's packet may be.
    writeLinkInfo(writer, type, () => {
      writer.addressAttribute(IFLA_IPTUN_LOCAL, local).u8Attribute(IFLA_IPTUN_PMTUDISC, 0);
    });
  } else writeLinkInfo(writer, link.info.type);
}

/**
 * Writes the messages that change a device to what is wanted: `ip link set NAME type vxlan local ADDRESS dev OUTER
 * nolearning` and `ip link set NAME up mtu MTU address MAC` (or `txqueuelen LENGTH`).
 */
export function writeChangedLink(
  writer: MessageWriter,
  link: Link,
  found: LinkState,
  context: KernelContext,
): void {
  // The kernel takes a change of the tunnel in a message of its own, which must not repeat what can't change.
  if (link.mac !== undefined && !infoEqual(link.info, found, context)) {
    writeLinkHeader(writer.begin(RTM_NEWLINK, 0), { index: found.index });
    writeLinkInfo(writer, link.info.type, () => writeChangeable(writer, link.info, context));
  }
  writeLinkHeader(writer.begin(RTM_NEWLINK, 0), { index: found.index, ...UP })
    .u32Attribute(IFLA_MTU, link.mtuBytes);
  if (link.mac === undefined) {
    if (link.info.type === "tun") writer.u32Attribute(IFLA_TXQLEN, link.info.queueLength);
  } else if (found.mac?.equals(link.mac) !== true) {
    // The kernel flushes the device's neighbours even if the address is the same.
    writer.addressAttribute(IFLA_ADDRESS, link.mac);
  }
  writer.end();
}

/** The part of a link's header that sets it up. */
export const UP = { flags: IFF_UP, change: IFF_UP } as const;

/** Writes what a device is made with, and ends the message. */
export function writeLinkInfo(writer: MessageWriter, type: string, data?: () => void): void {
  writer.nested(IFLA_LINKINFO, () => {
    writer.stringAttribute(IFLA_INFO_KIND, type);
    if (data !== undefined) writer.nested(IFLA_INFO_DATA, data);
  }).end();
}

function writeChangeable(writer: MessageWriter, info: VxlanInfo, context: KernelContext): void {
  const local = info.local.family === 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6;
  writer.u32Attribute(IFLA_VXLAN_LINK, context.indexOf(info.outerDevice))
    .addressAttribute(local, info.local)
    .u8Attribute(IFLA_VXLAN_LEARNING, Number(info.learning));
}

/** Writes the message that removes a device: `ip link del NAME`. */
export function writeRemovedLink(writer: MessageWriter, index: number): void {
  writeLinkHeader(writer.begin(RTM_DELLINK, 0), { index }).end();
}

/** How rtnetlink reports devices. */
export const LINK_MESSAGES: KindMessages = {
  new: RTM_NEWLINK,
  del: RTM_DELLINK,
  groups: [RTNLGRP_LINK],
};

/** Whether two owners, or one owner at two times, want the same of a device. */
export function sameLink(a: Link, b: Link): boolean {
  if (a.name !== b.name || a.mtuBytes !== b.mtuBytes) return false;
  if (a.mac === undefined || b.mac === undefined) {
    return a.mac === undefined && b.mac === undefined && samePlainInfo(a.info, b.info);
  }
  return a.mac.equals(b.mac) && a.info.vni === b.info.vni && a.info.port === b.info.port &&
    a.info.outerDevice === b.info.outerDevice && a.info.local.equals(b.info.local) &&
    a.info.learning === b.info.learning && a.info.gbp === b.info.gbp;
}

type PlainInfo = Exclude<Link, VxlanLink>["info"];

function samePlainInfo(a: PlainInfo, b: PlainInfo): boolean {
  if (a.type === "tun") return b.type === "tun" && a.queueLength === b.queueLength;
  if (a.type === "ipip") return b.type === "ipip" && a.local.equals(b.local);
  return b.type === "wireguard" && a.program === b.program;
}

/** Whether a device is as wanted. */
export function linkEqual(wanted: Link, found: LinkState, context: KernelContext): boolean {
  if (!linkAdoptable(wanted, found) || !found.up || found.mtuBytes !== wanted.mtuBytes) {
    return false;
  }
  if (wanted.mac === undefined) {
    return wanted.info.type !== "tun" || found.queueLength === wanted.info.queueLength;
  }
  return found.mac?.equals(wanted.mac) === true && infoEqual(wanted.info, found, context);
}

function infoEqual(wanted: VxlanInfo, { vxlan }: LinkState, context: KernelContext): boolean {
  return vxlan !== undefined && vxlan.local.equals(wanted.local) &&
    vxlan.learning === wanted.learning && outerEqual(wanted, vxlan.outerIndex, context);
}

/** If no device has the wanted name, the outer device was renamed: the tunnel still leaves by it. */
function outerEqual({ outerDevice }: VxlanInfo, index: number, context: KernelContext): boolean {
  const name = context.nameOf(index);
  return name === outerDevice || name !== undefined && !context.has(outerDevice);
}

/** Whether a device can be changed to what is wanted; if not, it has to be removed and made again. */
export function linkAdoptable(wanted: Link, found: LinkState): boolean {
  const { tun, ipip } = found;
  if (wanted.mac === undefined) {
    switch (wanted.info.type) {
      case "tun":
        return tun !== undefined && tun.persistent && tun.multiQueue && tun.bareIp;
      case "wireguard":
        // A program's device goes with the program.
        return found.type === "wireguard" || tun?.persistent === false;
      case "ipip":
        return ipip?.local.equals(wanted.info.local) === true && ipip.remote.equals(ANY_ADDRESS);
    }
  }
  const { info } = wanted;
  return found.vxlan !== undefined && found.vxlan.vni === info.vni &&
    found.vxlan.port === info.port && found.vxlan.gbp === info.gbp &&
    found.vxlan.local.family === info.local.family;
}
