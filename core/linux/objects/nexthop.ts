/**
 * Nexthop objects (`RTM_*NEXTHOP`, linux/nexthop.h).
 *
 * @module
 */

import { IpAddress } from "../../ip.ts";
import { isNexthopIdOf, type Nexthop } from "../../kernel_state.ts";
import { type ObjectKind, putFlags, RTPROT_DENIM } from "./object_kind.ts";
import { addressFamily } from "../sys/address_family.ts";
import {
  NHA_GATEWAY,
  NHA_ID,
  NHA_OIF,
  NHMSG_LEN,
  RTM_DELNEXTHOP,
  RTM_GETNEXTHOP,
  RTM_NEWNEXTHOP,
  RTNH_F_ONLINK,
  RTNLGRP_NEXTHOP,
} from "../uapi/rtnetlink.ts";
import { AF_UNSPEC } from "../uapi/socket.ts";

/** A nexthop object as the kernel has it. */
export interface FoundNexthop extends Nexthop {
  /** Who made it (`RTPROT_…`); `undefined` of one that denim has just written. */
  readonly protocol?: number;
}

function isDenims({ protocol = RTPROT_DENIM }: FoundNexthop): boolean {
  return protocol === RTPROT_DENIM;
}

/** The key of a nexthop object, which the routes need that go by it. */
export function nexthopKey(id: number): string {
  return `nexthop ${id}`;
}

/** Nexthop objects, for the reconciler. The kernel removes a nexthop's routes with it, IPv4's without an event. */
export const nexthopKind: ObjectKind<Nexthop, FoundNexthop> = {
  messages: { new: RTM_NEWNEXTHOP, del: RTM_DELNEXTHOP, groups: [RTNLGRP_NEXTHOP] },
  key: ({ id }) => nexthopKey(id),
  equal: (wanted, found) =>
    wanted.device === found.device && wanted.via.equals(found.via) && isDenims(found),
  /** `ip nexthop add|replace id ID via GATEWAY dev DEVICE onlink protocol 155` */
  put(writer, { id, device, via }, context, mayReplace) {
    writer.begin(RTM_NEWNEXTHOP, putFlags(mayReplace))
      .u8(addressFamily(via.family)).u8(0).u8(RTPROT_DENIM).u8(0).u32(RTNH_F_ONLINK)
      .u32Attribute(NHA_ID, id).u32Attribute(NHA_OIF, context.indexOf(device))
      .addressAttribute(NHA_GATEWAY, via).end();
  },
  /** `ip nexthop del id ID` */
  remove(writer, { id }) {
    writer.begin(RTM_DELNEXTHOP, 0).u8(AF_UNSPEC).u8(0).u8(0).u8(0).u32(0)
      .u32Attribute(NHA_ID, id).end();
  },
  parse(reader, context) {
    const protocol = reader.u8(2);
    const onlink = (reader.u32(4) & RTNH_F_ONLINK) !== 0;
    reader.readAttributes(NHMSG_LEN);
    const id = reader.u32Attribute(NHA_ID) ?? 0;
    const via = reader.bytesAttribute(NHA_GATEWAY);
    const device = context.nameOf(reader.u32Attribute(NHA_OIF) ?? 0);
    // A group, a blackhole, a gateway that is not on the link: equal to nothing that denim wants.
    return {
      kind: "nexthop",
      id,
      device: onlink && device || "",
      via: via ? IpAddress.fromBytes(via) : new IpAddress(4, 0n),
      protocol,
    };
  },
  ours: (found, context, known) =>
    isDenims(found) && (known || context.owned(found.device) ||
      context.networks.some((network) => isNexthopIdOf(found.id, network))),
  dump: (socket, context) =>
    socket.dump(
      "list nexthops",
      (writer) => writer.begin(RTM_GETNEXTHOP, 0).u8(AF_UNSPEC).u8(0).u8(0).u8(0).u32(0).end(),
      (reader) => nexthopKind.parse(reader, context),
    ),
};
