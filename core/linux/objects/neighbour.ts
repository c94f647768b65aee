/**
 * Entries of neighbour tables (`RTM_*NEIGH`, linux/neighbour.h).
 *
 * @module
 */

import { FAMILIES, type IpAddress } from "../../ip.ts";
import type { Neighbour } from "../../kernel_state.ts";
import { MacAddress } from "../../mac.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import {
  NEIGHBOUR_MESSAGES,
  parseNeighbourMessage,
  writeNeighbourHeader,
} from "./neighbour_message.ts";
import type { ObjectKind } from "./object_kind.ts";
import { addressFamily } from "../sys/address_family.ts";
import { EINVAL, ENODEV, ENOENT, LinuxError } from "../sys/linux_error.ts";
import { NLM_F_CREATE, NLM_F_REPLACE } from "../uapi/netlink.ts";
import {
  NDA_DST,
  NDA_IFINDEX,
  NDA_LLADDR,
  NDMSG_LEN,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from "../uapi/rtnetlink.ts";
import { AF_BRIDGE } from "../uapi/socket.ts";

/** A neighbour as the kernel has it. */
export interface FoundNeighbour extends Neighbour {
  /** Whether it is permanent; `undefined` of one that denim has just written. */
  readonly permanent?: boolean;
}

/** The kernel's errors for no such neighbour, a device that takes none, and no such device. */
const NO_NEIGHBOUR: readonly number[] = [ENOENT, EINVAL, ENODEV];

/** The Ethernet address that the kernel has for an address behind a device; `undefined` if it has none. */
export function neighbourMac(
  socket: NetlinkSocket,
  index: number,
  address: IpAddress,
): MacAddress | undefined {
  try {
    return socket.get(
      `look up the neighbour ${address}`,
      (writer) =>
        writer.begin(RTM_GETNEIGH, 0)
          .u8(addressFamily(address.family)).u8(0).u16(0).u32(index).u16(0).u8(0).u8(0)
          .addressAttribute(NDA_DST, address).end(),
      (reader) => {
        reader.readAttributes(NDMSG_LEN);
        const mac = reader.bytesAttribute(NDA_LLADDR);
        return mac?.length === 6 ? MacAddress.fromBytes(mac) : undefined;
      },
    );
  } catch (error) {
    if (error instanceof LinuxError && NO_NEIGHBOUR.includes(error.errno)) return undefined;
    throw error;
  }
}

/** Neighbours, for the reconciler. On denim's own devices every permanent entry is denim's. */
export const neighbourKind: ObjectKind<Neighbour, FoundNeighbour> = {
  messages: NEIGHBOUR_MESSAGES,
  key: ({ device, address }) => `neighbour ${device} ${address}`,
  equal: (wanted, found) => wanted.mac.equals(found.mac) && found.permanent !== false,
  /** `ip neighbour replace ADDRESS lladdr MAC dev DEVICE nud permanent` */
  put(writer, { device, address, mac }, context) {
    writer.begin(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
    writeNeighbourHeader(writer, addressFamily(address.family), context.indexOf(device))
      .addressAttribute(NDA_DST, address).addressAttribute(NDA_LLADDR, mac).end();
  },
  /** `ip neighbour del ADDRESS dev DEVICE` */
  remove(writer, { device, address }, context) {
    writer.begin(RTM_DELNEIGH, 0);
    writeNeighbourHeader(writer, addressFamily(address.family), context.indexOf(device))
      .addressAttribute(NDA_DST, address).end();
  },
  parse(reader, context) {
    if (reader.u8(0) === AF_BRIDGE) return undefined;
    const entry = parseNeighbourMessage(reader, context);
    if (entry === undefined) return undefined;
    const { device, address, mac, permanent } = entry;
    return { kind: "neighbour", device, address, mac, permanent };
  },
  ours: ({ permanent }) => permanent !== false,
  dump: (socket, context) =>
    context.ownedDevices().flatMap((device) =>
      FAMILIES.flatMap((family) =>
        socket.dump(
          `list neighbours of ${device}`,
          (writer) =>
            // A strict dump accepts no field of the header but the family; the device is an attribute.
            writer.begin(RTM_GETNEIGH, 0)
              .u8(addressFamily(family)).u8(0).u16(0).u32(0).u16(0).u8(0).u8(0)
              .u32Attribute(NDA_IFINDEX, context.indexOf(device)).end(),
          (reader) => neighbourKind.parse(reader, context),
        )
      )
    ),
};
