/**
 * Addresses of devices (`RTM_*ADDR`, linux/if_addr.h).
 *
 * @module
 */

import { Cidr, FAMILIES, type Family, IpAddress } from "../../ip.ts";
import type { DeviceAddress } from "../../kernel_state.ts";
import { EACCES } from "../sys/linux_error.ts";
import { trySysctl } from "../sys/sysctl.ts";
import type { MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import type { ObjectKind } from "./object_kind.ts";
import { addressFamily } from "../sys/address_family.ts";
import { NLM_F_CREATE, NLM_F_REPLACE } from "../uapi/netlink.ts";
import {
  IFA_ADDRESS,
  IFA_BROADCAST,
  IFA_F_DADFAILED,
  IFA_F_DEPRECATED,
  IFA_F_NODAD,
  IFA_F_PERMANENT,
  IFA_F_TEMPORARY,
  IFA_F_TENTATIVE,
  IFA_LOCAL,
  IFADDRMSG_LEN,
  RT_SCOPE_UNIVERSE,
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV6_IFADDR,
} from "../uapi/rtnetlink.ts";

/** An address as the kernel has it. */
export interface AddressState {
  /** The index of the device that has it. */
  readonly index: number;
  /** The address. */
  readonly address: IpAddress;
  /** How much of it is network. */
  readonly prefixLength: number;
  /** How far it is valid (`RT_SCOPE_…`): a link-local address has `RT_SCOPE_LINK`. */
  readonly scope: number;
  /** Whether it is not usable yet: the kernel still probes whether another host has it. */
  readonly tentative: boolean;
  /** Whether the probe found another host that has it. */
  readonly duplicate: boolean;
  /** Whether it never expires, as an address that a person gave. */
  readonly permanent: boolean;
  /** Of IPv6, whether it changes from time to time (RFC 8981); of IPv4, whether it is not the first of its network. */
  readonly temporary: boolean;
  /** Whether new connections should not use it any more. */
  readonly deprecated: boolean;
}

/**
 * Writes the message that gives a device an address. An IPv6 address is usable at once, unless the kernel
 * shall first probe whether another host has it (`dad`, RFC 4862 section 5.4).
 */
export function writeNewAddress(
  writer: MessageWriter,
  index: number,
  address: IpAddress,
  prefixLength: number,
  options: { readonly dad?: boolean } = {},
): void {
  const flags = address.family === 6 && !options.dad ? IFA_F_NODAD : 0;
  writer.begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE)
    .u8(addressFamily(address.family)).u8(prefixLength).u8(flags).u8(RT_SCOPE_UNIVERSE).u32(index)
    .addressAttribute(IFA_LOCAL, address).addressAttribute(IFA_ADDRESS, address);
  // The kernel sets none by itself; a network of one or two addresses has none (RFC 3021).
  if (address.family === 4 && prefixLength < 31) {
    writer.addressAttribute(IFA_BROADCAST, new Cidr(address, prefixLength).last);
  }
  writer.end();
}

/** Writes the message that takes an address from a device. */
export function writeRemovedAddress(
  writer: MessageWriter,
  index: number,
  address: IpAddress,
  prefixLength: number,
): void {
  writer.begin(RTM_DELADDR, 0)
    .u8(addressFamily(address.family)).u8(prefixLength).u8(0).u8(0).u32(index)
    .addressAttribute(IFA_LOCAL, address).end();
}

/** Reads `RTM_NEWADDR` or `RTM_DELADDR`. */
export function parseAddress(reader: MessageReader): AddressState | undefined {
  const prefixLength = reader.u8(1), flags = reader.u8(2), scope = reader.u8(3);
  const index = reader.u32(4);
  reader.readAttributes(IFADDRMSG_LEN);
  // IFA_ADDRESS is the peer's on a point-to-point device; IPv6 says IFA_LOCAL only there.
  const bytes = reader.bytesAttribute(IFA_LOCAL) ?? reader.bytesAttribute(IFA_ADDRESS);
  return bytes && {
    index,
    address: IpAddress.fromBytes(bytes),
    prefixLength,
    scope,
    tentative: (flags & IFA_F_TENTATIVE) !== 0,
    duplicate: (flags & IFA_F_DADFAILED) !== 0,
    permanent: (flags & IFA_F_PERMANENT) !== 0,
    temporary: (flags & IFA_F_TEMPORARY) !== 0,
    deprecated: (flags & IFA_F_DEPRECATED) !== 0,
  };
}

/** The addresses of a family, of one device or of all. */
export function listAddresses(
  socket: NetlinkSocket,
  family: Family,
  index = 0,
): AddressState[] {
  return dumpAddresses(socket, family, index, parseAddress);
}

function dumpAddresses<T>(
  socket: NetlinkSocket,
  family: Family,
  index: number,
  parse: (reader: MessageReader) => T | undefined,
): T[] {
  return socket.dump(
    "list addresses",
    (writer) =>
      writer.begin(RTM_GETADDR, 0).u8(addressFamily(family)).u8(0).u8(0).u8(0).u32(index).end(),
    parse,
  );
}

/** An address as {@link addressKind} finds it. */
export type FoundAddress = DeviceAddress;

/** The key of an address, which routes need that name it as their source. */
export function addressKey(device: string, address: IpAddress, prefixLength: number): string {
  return `address ${device} ${address}/${prefixLength}`;
}

/**
 * Addresses, for the reconciler. Packets need none of its fields but those that are part of its key, so two of
 * the same key are equal.
 */
export const addressKind: ObjectKind<DeviceAddress, FoundAddress> = {
  messages: {
    new: RTM_NEWADDR,
    del: RTM_DELADDR,
    groups: [RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR],
  },
  key: ({ device, address, prefixLength }) => addressKey(device, address, prefixLength),
  equal: () => true,
  /** `ip address replace ADDRESS/LENGTH dev DEVICE`, for IPv6 with `nodad` */
  put: (writer, { device, address, prefixLength }, context) =>
    writeNewAddress(writer, context.indexOf(device), address, prefixLength),
  /** `ip address del ADDRESS/LENGTH dev DEVICE` */
  remove: (writer, { device, address, prefixLength }, context) =>
    writeRemovedAddress(writer, context.indexOf(device), address, prefixLength),
  parse(reader, context) {
    const state = parseAddress(reader);
    const device = state && context.nameOf(state.index);
    if (state === undefined || device === undefined) return undefined;
    // Link-local addresses are the kernel's own, except on the pod bridge.
    if (state.scope !== RT_SCOPE_UNIVERSE && device !== context.podBridge) return undefined;
    const { address, prefixLength } = state;
    return { kind: "address", device, address, prefixLength };
  },
  ours: ({ device, address }, context, known) =>
    known || context.owned(device) ||
    // On the pod bridge, an earlier lease's. Any other may be an operator's.
    device === context.podBridge &&
      context.networks.some(({ network }) => network.contains(address)),
  dump(socket, context) {
    const { podBridge } = context;
    const devices = [...context.ownedDevices(), ...podBridge === undefined ? [] : [podBridge]];
    return devices.flatMap((device) =>
      FAMILIES.flatMap((family) =>
        dumpAddresses(
          socket,
          family,
          context.indexOf(device),
          (reader) => addressKind.parse(reader, context),
        )
      )
    );
  },
  /** Routes that name the address as their source; kernels before 6.6 remove them without an event. */
  carries: ({ device }, context) => context.owned(device),
  /** The kernel gives no IPv6 address to a device while IPv6 is off there, as new devices may have it. */
  recover({ errno }, { device, address }, _socket, context) {
    if (errno !== EACCES || address.family !== 6 || !context.owned(device)) return false;
    trySysctl(`net/ipv6/conf/${device}/disable_ipv6`, "0");
    return true;
  },
  /**
   * With the first IPv4 address of a network the kernel removes the others of that network. An IPv6 address
   * exists once whatever its prefix length.
   */
  removesToo: (removed, other) =>
    removed.device === other.device && (removed.address.equals(other.address) ||
      removed.address.family === 4 && removed.prefixLength === other.prefixLength &&
        new Cidr(removed.address, removed.prefixLength).contains(other.address)),
};
