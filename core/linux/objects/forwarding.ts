/**
 * Forwarding switches: written under `/proc/sys`; rtnetlink lists and reports them (`RTM_*NETCONF`,
 * linux/netconf.h).
 *
 * @module
 */

import { messageOf, RuntimeError, throwDefect } from "../../errors.ts";
import { FAMILIES, type Family } from "../../ip.ts";
import { ALL_DEVICES, type Forwarding } from "../../kernel_state.ts";
import { EOPNOTSUPP, LinuxError } from "../sys/linux_error.ts";
import type { MessageReader } from "../netlink/netlink_codec.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import type { KernelContext, KindMessages } from "./object_kind.ts";
import { addressFamily } from "../sys/address_family.ts";
import { FORWARDING, requireWritable, writeSysctl } from "../sys/sysctl.ts";
import {
  NETCONFA_FORWARDING,
  NETCONFA_IFINDEX,
  NETCONFA_IFINDEX_ALL,
  NETCONFMSG_LEN,
  RTM_DELNETCONF,
  RTM_GETNETCONF,
  RTM_NEWNETCONF,
  RTNLGRP_IPV4_NETCONF,
  RTNLGRP_IPV6_NETCONF,
} from "../uapi/rtnetlink.ts";
import { AF_INET, AF_INET6 } from "../uapi/socket.ts";

/** A switch as the kernel has it. */
export interface FoundForwarding extends Forwarding {
  /** Whether the switch is on; `undefined` of one that denim has just switched on. */
  readonly on?: boolean;
}

/** How rtnetlink reports switches. */
export const FORWARDING_MESSAGES: KindMessages = {
  new: RTM_NEWNETCONF,
  del: RTM_DELNETCONF,
  groups: [RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF],
};

/** The key of a switch, which messages show to operators too. */
export function forwardingKey({ family, device }: Forwarding): string {
  return `IPv${family} forwarding${device === ALL_DEVICES ? "" : ` of ${device}`}`;
}

/** Switches forwarding on: `sysctl -w net.ipv4.conf.DEVICE.forwarding=1`. Throws a RuntimeError. */
export function switchOn(forwarding: Forwarding): void {
  access(forwarding, (setting) => writeSysctl(setting, "1"));
}

/** Whether forwarding is on or could be switched on; changes nothing. Throws as {@link switchOn} does if not. */
export function requireSwitchable(forwarding: Forwarding): void {
  access(forwarding, (setting) => requireWritable(setting, "1"));
}

function access(forwarding: Forwarding, use: (setting: string) => void): void {
  const { family, device } = forwarding;
  const setting = device === ALL_DEVICES
    ? FORWARDING[family]
    : `net/ipv${family}/conf/${device}/forwarding`;
  try {
    use(setting);
  } catch (error) {
    throwDefect(error);
    throw new RuntimeError(
      `${forwardingKey(forwarding)} can't be switched on (${setting}): ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/** Reads `RTM_NEWNETCONF` or `RTM_DELNETCONF`; `undefined` if the message is about another setting. */
export function parseForwarding(
  reader: MessageReader,
  context: KernelContext,
): FoundForwarding | undefined {
  const family = familyOf(reader.u8(0));
  reader.readAttributes(NETCONFMSG_LEN);
  const on = reader.u32Attribute(NETCONFA_FORWARDING);
  const device = deviceOf(reader, context);
  if (family === undefined || on === undefined || device === undefined) return undefined;
  return { kind: "forwarding", family, device, on: on !== 0 };
}

function familyOf(number: number): Family | undefined {
  return number === AF_INET ? 4 : number === AF_INET6 ? 6 : undefined;
}

function deviceOf(reader: MessageReader, context: KernelContext): string | undefined {
  const index = reader.u32Attribute(NETCONFA_IFINDEX) ?? 0;
  return index === NETCONFA_IFINDEX_ALL ? ALL_DEVICES : context.nameOf(index);
}

/** The switches of all devices and of each. Throws a LinuxError. */
export function listForwarding(socket: NetlinkSocket, context: KernelContext): FoundForwarding[] {
  return FAMILIES.flatMap((family) => {
    try {
      return socket.dump(
        "list forwarding switches",
        (writer) => writer.begin(RTM_GETNETCONF, 0).u8(addressFamily(family)).end(),
        (reader) => parseForwarding(reader, context),
      );
    } catch (error) {
      // A kernel without IPv6. If an owner wants its switch, the error of the write says more.
      if (error instanceof LinuxError && error.errno === EOPNOTSUPP) return [];
      throw error;
    }
  });
}
