/**
 * Generic netlink (linux/genetlink.h): a part of the kernel has a family of messages, whose number the kernel gives
 * out when it starts.
 *
 * @module
 */

import {
  CTRL_ATTR_FAMILY_ID,
  CTRL_ATTR_FAMILY_NAME,
  CTRL_CMD_GETFAMILY,
  GENL_HDRLEN,
  GENL_ID_CTRL,
} from "../uapi/genetlink.ts";
import { ENOENT, LinuxError } from "../sys/linux_error.ts";
import type { MessageWriter } from "./netlink_codec.ts";
import type { NetlinkSocket } from "./netlink_socket.ts";

/** Begins a message of a family: a command in the version of its interface. */
export function beginGeneric(
  writer: MessageWriter,
  family: number,
  command: number,
  version: number,
): MessageWriter {
  return writer.begin(family, 0).u8(command).u8(version).u16(0);
}

/** The number of the family with this name. Throws a LinuxError: ENOENT if the kernel has none. */
export function genericFamily(socket: NetlinkSocket, name: string): number {
  const what = `look up the netlink family ${name}`;
  const id = socket.get(
    what,
    (writer) =>
      beginGeneric(writer, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1)
        .stringAttribute(CTRL_ATTR_FAMILY_NAME, name).end(),
    (reader) => reader.readAttributes(GENL_HDRLEN).u16Attribute(CTRL_ATTR_FAMILY_ID),
  );
  if (id === undefined) throw new LinuxError(ENOENT, what);
  return id;
}
