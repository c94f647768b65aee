/**
 * Forwarding switches: written under `/proc/sys`, told of and listed by rtnetlink (`RTM_*NETCONF`,
 * linux/netconf.h).
 *
 * @module
 */

import { messageOf, RuntimeError } from "../../errors.ts";
import { FAMILIES, type Family } from "../../ip.ts";
import { ALL_DEVICES, type Forwarding } from "../../kernel_state.ts";
import { EOPNOTSUPP, LinuxError } from "../sys/linux_error.ts";
import type { MessageReader } from "../netlink/netlink_codec.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { type Devices, type ObjectKind } from "./object_kind.ts";
import { addressFamily } from "../sys/address_family.ts";
import { FORWARDING, writeSysctl } from "../sys/sysctl.ts";
import {
  NETCONFA_FORWARDING,
  NETCONFA_IFINDEX,
  NETCONFA_IFINDEX_ALL,
  NETCONFMSG_LEN,
  RTM_GETNETCONF,
} from "../uapi/rtnetlink.ts";
import { AF_INET, AF_INET6 } from "../uapi/socket.ts";

/** A switch as the kernel has it. */
interface FoundForwarding extends Forwarding {
  readonly on: boolean;
}

function nameOf({ family, device }: Forwarding): string {
  return `IPv${family} forwarding${device === ALL_DEVICES ? "" : ` of ${device}`}`;
}

/** Forwarding switches, for the reconciler. What nobody wants on stays as it is. */
export const forwardingKind: ObjectKind<Forwarding> = {
  key: nameOf,
  equal: (_wanted, found) => (found as Partial<FoundForwarding>).on !== false,
  put(_writer, forwarding) {
    const { family, device } = forwarding;
    const setting = device === ALL_DEVICES
      ? FORWARDING[family]
      : `net/ipv${family}/conf/${device}/forwarding`;
    try {
      writeSysctl(setting, "1");
    } catch (error) {
      throw new RuntimeError(
        `${nameOf(forwarding)} can't be switched on (${setting}): ${messageOf(error)}`,
      );
    }
  },
  parse(reader, devices) {
    const family = familyOf(reader.u8(0));
    reader.readAttributes(NETCONFMSG_LEN);
    const on = reader.u32Attribute(NETCONFA_FORWARDING);
    const device = deviceOf(reader, devices);
    // News of another setting says nothing of this one.
    if (family === undefined || on === undefined || device === undefined) return undefined;
    const found: FoundForwarding = { kind: "forwarding", family, device, on: on !== 0 };
    return found;
  },
  ours: () => false,
  dump: (socket, devices) => FAMILIES.flatMap((family) => dumpFamily(socket, family, devices)),
};

function familyOf(number: number): Family | undefined {
  return number === AF_INET ? 4 : number === AF_INET6 ? 6 : undefined;
}

function deviceOf(reader: MessageReader, devices: Devices): string | undefined {
  const index = reader.u32Attribute(NETCONFA_IFINDEX) ?? 0;
  return index === NETCONFA_IFINDEX_ALL ? ALL_DEVICES : devices.nameOf(index);
}

function dumpFamily(socket: NetlinkSocket, family: Family, devices: Devices): Forwarding[] {
  try {
    return socket.dump(
      "list forwarding switches",
      (writer) => writer.begin(RTM_GETNETCONF, 0).u8(addressFamily(family)).end(),
      (reader) => forwardingKind.parse(reader, devices),
    );
  } catch (error) {
    // A kernel without IPv6: writing says so better, where somebody wants it.
    if (error instanceof LinuxError && error.errno === EOPNOTSUPP) return [];
    throw error;
  }
}
