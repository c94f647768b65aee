/**
 * The message that neighbour tables and VXLAN forwarding databases share (`RTM_*NEIGH`, linux/neighbour.h).
 *
 * @module
 */

import { IpAddress } from "../../ip.ts";
import { MacAddress } from "../../mac.ts";
import type { MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import type { KernelContext, KindMessages } from "./object_kind.ts";
import {
  NDA_DST,
  NDA_LLADDR,
  NDMSG_LEN,
  NUD_PERMANENT,
  RTM_DELNEIGH,
  RTM_NEWNEIGH,
  RTNLGRP_NEIGH,
} from "../uapi/rtnetlink.ts";

/** How rtnetlink reports both. */
export const NEIGHBOUR_MESSAGES: KindMessages = {
  new: RTM_NEWNEIGH,
  del: RTM_DELNEIGH,
  groups: [RTNLGRP_NEIGH],
};

/** Writes `struct ndmsg` of a permanent entry. */
export function writeNeighbourHeader(
  writer: MessageWriter,
  family: number,
  index: number,
  flags = 0,
): MessageWriter {
  return writer.u8(family).u8(0).u16(0).u32(index).u16(NUD_PERMANENT).u8(flags).u8(0);
}

/** What a neighbour and an FDB entry have in common, as the kernel has it. */
export interface NeighbourMessage {
  /** The device's name. */
  readonly device: string;
  /** The Ethernet address. */
  readonly mac: MacAddress;
  /** A neighbour's IP address, or an FDB entry's VTEP. */
  readonly address: IpAddress;
  /** Whether the entry stays until somebody removes it. Any other is the kernel's own to keep or to drop. */
  readonly permanent: boolean;
}

const NO_MAC = MacAddress.fromBytes(new Uint8Array(6));

/** Reads the common part. Only denim's devices matter, among perhaps many neighbours; `undefined` for others. */
export function parseNeighbourMessage(
  reader: MessageReader,
  context: KernelContext,
): NeighbourMessage | undefined {
  const device = context.nameOf(reader.u32(4));
  if (device === undefined || !context.owned(device)) return undefined;
  const permanent = (reader.u16(8) & NUD_PERMANENT) !== 0;
  reader.readAttributes(NDMSG_LEN);
  const address = reader.bytesAttribute(NDA_DST), mac = reader.bytesAttribute(NDA_LLADDR);
  return address && {
    device,
    address: IpAddress.fromBytes(address),
    mac: mac?.length === 6 ? MacAddress.fromBytes(mac) : NO_MAC,
    permanent,
  };
}
