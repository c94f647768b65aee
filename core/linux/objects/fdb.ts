/**
 * Entries of VXLAN forwarding databases (`RTM_*NEIGH` of the bridge's family, linux/neighbour.h).
 *
 * @module
 */

import type { FdbEntry } from "../../kernel_state.ts";
import {
  NEIGHBOUR_MESSAGES,
  parseNeighbourMessage,
  writeNeighbourHeader,
} from "./neighbour_message.ts";
import type { ObjectKind } from "./object_kind.ts";
import { NLM_F_CREATE, NLM_F_REPLACE } from "../uapi/netlink.ts";
import {
  NDA_DST,
  NDA_LLADDR,
  NTF_SELF,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from "../uapi/rtnetlink.ts";
import { AF_BRIDGE } from "../uapi/socket.ts";

/** An FDB entry as the kernel has it. */
export interface FoundFdbEntry extends FdbEntry {
  /** Whether it is permanent; `undefined` of one that denim has just written. */
  readonly permanent?: boolean;
}

/** FDB entries, for the reconciler. On denim's own devices every permanent entry is denim's. */
export const fdbKind: ObjectKind<FdbEntry, FoundFdbEntry> = {
  messages: NEIGHBOUR_MESSAGES,
  key: ({ device, mac }) => `fdb ${device} ${mac}`,
  equal: (wanted, found) => wanted.remote.equals(found.remote) && found.permanent !== false,
  /** `bridge fdb replace MAC dev DEVICE dst REMOTE self permanent` */
  put(writer, { device, mac, remote }, context) {
    writer.begin(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
    writeNeighbourHeader(writer, AF_BRIDGE, context.indexOf(device), NTF_SELF)
      .addressAttribute(NDA_LLADDR, mac).addressAttribute(NDA_DST, remote).end();
  },
  /** `bridge fdb del MAC dev DEVICE dst REMOTE self` */
  remove(writer, { device, mac, remote }, context) {
    writer.begin(RTM_DELNEIGH, 0);
    writeNeighbourHeader(writer, AF_BRIDGE, context.indexOf(device), NTF_SELF)
      .addressAttribute(NDA_LLADDR, mac).addressAttribute(NDA_DST, remote).end();
  },
  parse(reader, context) {
    if (reader.u8(0) !== AF_BRIDGE) return undefined;
    const entry = parseNeighbourMessage(reader, context);
    if (entry === undefined) return undefined;
    const { device, mac, address, permanent } = entry;
    return { kind: "fdb", device, mac, remote: address, permanent };
  },
  ours: ({ permanent }) => permanent !== false,
  dump: (socket, context) =>
    context.ownedDevices().flatMap((device) =>
      socket.dump(
        `list the FDB of ${device}`,
        (writer) =>
          writer.begin(RTM_GETNEIGH, 0)
            .u8(AF_BRIDGE).u8(0).u16(0).u32(context.indexOf(device)).u16(0).u8(0).u8(0).end(),
        (reader) => fdbKind.parse(reader, context),
      )
    ),
};
