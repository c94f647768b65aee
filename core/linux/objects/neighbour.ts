/**
 * Neighbour tables and VXLAN forwarding databases, which share a message (`RTM_*NEIGH`,
 * linux/neighbour.h).
 *
 * @module
 */

import { FAMILIES, type Family, IpAddress } from "../../ip.ts";
import type { FdbEntry, Neighbour } from "../../kernel_state.ts";
import { MacAddress } from "../../mac.ts";
import type { MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import { type Devices, type ObjectKind } from "./object_kind.ts";
import { addressFamily } from "../sys/address_family.ts";
import { NLM_F_CREATE, NLM_F_REPLACE } from "../uapi/netlink.ts";
import {
  NDA_DST,
  NDA_IFINDEX,
  NDA_LLADDR,
  NDMSG_LEN,
  NTF_SELF,
  NUD_PERMANENT,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from "../uapi/rtnetlink.ts";
import { AF_BRIDGE } from "../uapi/socket.ts";

/** Writes `struct ndmsg`. */
function writeHeader(
  writer: MessageWriter,
  family: number,
  index: number,
  flags: number,
): MessageWriter {
  return writer.u8(family).u8(0).u16(0).u32(index).u16(NUD_PERMANENT).u8(flags).u8(0);
}

/** What a neighbour and an FDB entry share, as the kernel has it. */
interface Found {
  readonly device: string;
  readonly mac: MacAddress;
  /** What is not permanent is the kernel's own to keep or to drop. */
  readonly permanent: boolean;
}

const NO_MAC = MacAddress.fromBytes(new Uint8Array(6));

/** Reads the parts that both have. Only denim's devices are of interest, among perhaps many neighbours. */
function parse(
  reader: MessageReader,
  devices: Devices,
): Found & { readonly address: IpAddress } | undefined {
  const device = devices.nameOf(reader.u32(4));
  if (device === undefined || !devices.owned(device)) return undefined;
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

function permanent(found: Neighbour | FdbEntry): boolean {
  return (found as Partial<Found>).permanent !== false;
}

/** Entries of neighbour tables, for the reconciler. */
export const neighbourKind: ObjectKind<Neighbour> = {
  key: ({ device, address }) => `neighbour ${device} ${address}`,
  equal: (wanted, found) => wanted.mac.equals(found.mac) && permanent(found),
  put(writer, { device, address, mac }, devices) {
    writer.begin(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
    writeHeader(writer, addressFamily(address.family), devices.indexOf(device), 0)
      .addressAttribute(NDA_DST, address).addressAttribute(NDA_LLADDR, mac).end();
  },
  remove(writer, { device, address }, devices) {
    writer.begin(RTM_DELNEIGH, 0);
    writeHeader(writer, addressFamily(address.family), devices.indexOf(device), 0)
      .addressAttribute(NDA_DST, address).end();
  },
  parse(reader, devices) {
    if (reader.u8(0) === AF_BRIDGE) return undefined;
    const parts = parse(reader, devices);
    return parts && { kind: "neighbour", ...parts };
  },
  ours: permanent,
  dump: (socket, devices, ownedDevices) =>
    ownedDevices.flatMap((device) =>
      FAMILIES.flatMap((family: Family) =>
        socket.dump(
          `list neighbours of ${device}`,
          (writer) =>
            // A strict dump takes no field of the header but the family; the device is an attribute.
            writer.begin(RTM_GETNEIGH, 0)
              .u8(addressFamily(family)).u8(0).u16(0).u32(0).u16(0).u8(0).u8(0)
              .u32Attribute(NDA_IFINDEX, devices.indexOf(device)).end(),
          (reader) => neighbourKind.parse(reader, devices),
        )
      )
    ),
};

/** Entries of VXLAN forwarding databases, for the reconciler. */
export const fdbKind: ObjectKind<FdbEntry> = {
  key: ({ device, mac }) => `fdb ${device} ${mac}`,
  equal: (wanted, found) => wanted.remote.equals(found.remote) && permanent(found),
  put(writer, { device, mac, remote }, devices) {
    writer.begin(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
    writeHeader(writer, AF_BRIDGE, devices.indexOf(device), NTF_SELF)
      .addressAttribute(NDA_LLADDR, mac).addressAttribute(NDA_DST, remote).end();
  },
  remove(writer, { device, mac, remote }, devices) {
    writer.begin(RTM_DELNEIGH, 0);
    writeHeader(writer, AF_BRIDGE, devices.indexOf(device), NTF_SELF)
      .addressAttribute(NDA_LLADDR, mac).addressAttribute(NDA_DST, remote).end();
  },
  parse(reader, devices) {
    if (reader.u8(0) !== AF_BRIDGE) return undefined;
    const parts = parse(reader, devices);
    if (parts === undefined) return undefined;
    const { address: remote, ...rest } = parts;
    return { kind: "fdb", ...rest, remote } as FdbEntry;
  },
  ours: permanent,
  dump: (socket, devices, ownedDevices) =>
    ownedDevices.flatMap((device) =>
      socket.dump(
        `list the FDB of ${device}`,
        (writer) =>
          writer.begin(RTM_GETNEIGH, 0)
            .u8(AF_BRIDGE).u8(0).u16(0).u32(devices.indexOf(device)).u16(0).u8(0).u8(0).end(),
        (reader) => fdbKind.parse(reader, devices),
      )
    ),
};
