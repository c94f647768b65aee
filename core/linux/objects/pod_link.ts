/**
 * Bridges and veth pairs, which join pods to their node, and a laboratory's nodes to each other (`RTM_NEWLINK`,
 * linux/if_link.h, linux/veth.h).
 *
 * @module
 */

import type { MacAddress } from "../../mac.ts";
import { writeLinkHeader, writeLinkInfo } from "./link.ts";
import type { MessageWriter } from "../netlink/netlink_codec.ts";
import { NLM_F_CREATE, NLM_F_EXCL } from "../uapi/netlink.ts";
import {
  IFF_PROMISC,
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_BRPORT_MODE,
  IFLA_GROUP,
  IFLA_IFALIAS,
  IFLA_IFNAME,
  IFLA_MASTER,
  IFLA_MTU,
  IFLA_NET_NS_FD,
  IFLA_PROTINFO,
  RTM_DELLINK,
  RTM_NEWLINK,
  RTM_SETLINK,
  VETH_INFO_PEER,
} from "../uapi/rtnetlink.ts";
import { AF_BRIDGE } from "../uapi/socket.ts";

/** Settings of a device of any kind. Those that are left out stay as they are. */
export interface LinkSettings {
  /** Sets it up or down. */
  readonly up?: boolean | undefined;
  /** Whether it is in promiscuous mode. */
  readonly promiscuous?: boolean | undefined;
  /** The largest packet that it takes, in bytes. */
  readonly mtuBytes?: number | undefined;
  /** Its Ethernet address. */
  readonly mac?: MacAddress | undefined;
  /** The index of the bridge that it becomes a port of. */
  readonly masterIndex?: number | undefined;
  /** A note on it, at most 255 bytes; "" takes it away. */
  readonly alias?: string | undefined;
}

/**
 * The alias of a pods' bridge that must have no gateway's address (`"isGateway": false`): a router elsewhere has it.
 * The plugin sets it, and the agent, which keeps the gateway's addresses on the pods' bridge, leaves such a bridge
 * alone. The mark is on the device, so that it lives as long as the bridge, and both programs see it whatever files
 * they share.
 */
export const NO_GATEWAY_ALIAS = "denim: isGateway is false";

/** One end of a veth pair. */
export interface VethEnd extends LinkSettings {
  /** The device's name. */
  readonly name: string;
  /** An open namespace in which the kernel makes it, under its final name; by default the socket's own. */
  readonly namespaceFd?: number;
}

function settingsHeader(
  settings: LinkSettings,
  index = 0,
): { index: number; flags: number; change: number } {
  const { up, promiscuous } = settings;
  return {
    index,
    flags: (up ? IFF_UP : 0) | (promiscuous ? IFF_PROMISC : 0),
    change: (up === undefined ? 0 : IFF_UP) | (promiscuous === undefined ? 0 : IFF_PROMISC),
  };
}

function writeSettings(writer: MessageWriter, settings: LinkSettings): MessageWriter {
  const { mtuBytes, mac, masterIndex, alias } = settings;
  if (mtuBytes !== undefined) writer.u32Attribute(IFLA_MTU, mtuBytes);
  if (mac !== undefined) writer.addressAttribute(IFLA_ADDRESS, mac);
  if (masterIndex !== undefined) writer.u32Attribute(IFLA_MASTER, masterIndex);
  // Without a zero at the end: the kernel keeps the bytes as they are.
  if (alias !== undefined) writer.bytesAttribute(IFLA_IFALIAS, new TextEncoder().encode(alias));
  return writer;
}

/** Writes the message that changes a device: `ip link set DEV mtu … address … master … alias … up`. */
export function writeLinkSettings(
  writer: MessageWriter,
  index: number,
  settings: LinkSettings,
): void {
  writeLinkHeader(writer.begin(RTM_NEWLINK, 0), settingsHeader(settings, index));
  writeSettings(writer, settings).end();
}

/** Writes the message that makes a bridge: `ip link add NAME type bridge`. EEXIST if the name is taken. */
export function writeNewBridge(
  writer: MessageWriter,
  name: string,
  settings: LinkSettings,
): void {
  writeLinkHeader(writer.begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL), settingsHeader(settings))
    .stringAttribute(IFLA_IFNAME, name);
  writeLinkInfo(writeSettings(writer, settings), "bridge");
}

/**
 * Writes the message that makes both ends of a veth pair at once: `ip link add NAME type veth peer name PEER netns …`.
 * The peer starts down: the kernel would set it up before it has its other end, and fail with ENOTCONN.
 */
export function writeNewVeth(
  writer: MessageWriter,
  end: VethEnd,
  peer: Omit<VethEnd, "up" | "masterIndex">,
): void {
  writeLinkHeader(writer.begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL), settingsHeader(end));
  writeVethEnd(writer, end);
  writeLinkInfo(writer, "veth", () => {
    writer.nested(VETH_INFO_PEER, () => {
      writeLinkHeader(writer, settingsHeader(peer));
      writeVethEnd(writer, peer);
    });
  });
}

function writeVethEnd(writer: MessageWriter, end: VethEnd): void {
  writeSettings(writer.stringAttribute(IFLA_IFNAME, end.name), end);
  if (end.namespaceFd !== undefined) writer.u32Attribute(IFLA_NET_NS_FD, end.namespaceFd);
}

/** Writes the message that lets a bridge send packets back by the port they came from: `bridge link set … hairpin on`. */
export function writeHairpin(writer: MessageWriter, index: number, hairpin: boolean): void {
  writeLinkHeader(writer.begin(RTM_SETLINK, 0), { family: AF_BRIDGE, index })
    .nested(IFLA_PROTINFO, () => writer.u8Attribute(IFLA_BRPORT_MODE, Number(hairpin))).end();
}

/** The group of devices that are about to be removed. Nothing else is in it. */
const DOOMED = 0x6465_6e69;

/**
 * Writes the messages that remove devices, those that are there, in one step: `ip link set NAME group GROUP` for each, and
 * `ip link del group GROUP`. After a removal the kernel waits until no processor can see the device any more, once for all
 * that go together.
 */
export function writeRemovedLinks(writer: MessageWriter, names: readonly string[]): void {
  for (const name of names) {
    writeLinkHeader(writer.begin(RTM_SETLINK, 0), {})
      .stringAttribute(IFLA_IFNAME, name).u32Attribute(IFLA_GROUP, DOOMED).end();
  }
  writeLinkHeader(writer.begin(RTM_DELLINK, 0), {}).u32Attribute(IFLA_GROUP, DOOMED).end();
}
