/**
 * A network namespace as the kinds of kernel objects see it, made up: for tests without a kernel.
 *
 * @module
 */

import { Cidr, IpAddress } from "@denim/core";
import type { KernelContext } from "../../core/linux/objects/object_kind.ts";
import { MessageReader, MessageWriter } from "../../core/linux/netlink/netlink_codec.ts";
import { ENODEV, LinuxError } from "../../core/linux/sys/linux_error.ts";

/** Devices by index: denim's own, the pod bridge, and the outer device. */
const DEVICES: ReadonlyMap<number, string> = new Map([[7, "flannel.1"], [8, "cni0"], [9, "eth0"]]);

/** The address that denim wants `flannel.1` to have. */
const ADDRESS = IpAddress.parse("10.5.1.0");

/** A namespace with `flannel.1` (7, denim's), `cni0` (8, the pod bridge), `eth0` (9), in the network 10.5.0.0/16. */
export const CONTEXT: KernelContext = {
  indexOf(name) {
    for (const [index, device] of DEVICES) if (device === name) return index;
    throw new LinuxError(ENODEV, `device ${name}`);
  },
  nameOf: (index) => DEVICES.get(index),
  has: (name) => [...DEVICES.values()].includes(name),
  isUp: () => true,
  owned: (name) => name === "flannel.1",
  ownedDevices: () => ["flannel.1"],
  nexthop: () => undefined,
  wantsAddress: (address) => address.equals(ADDRESS),
  podBridge: "cni0",
  networks: [{ network: Cidr.parse("10.5.0.0/16"), subnetLength: 24 }],
};

/**
 * The messages that a function writes, as text: for each the type, the flags without NLM_F_REQUEST, and its octets
 * in groups of four, as the kernel aligns them.
 */
export function messagesOf(write: (writer: MessageWriter) => void): string[] {
  const writer = new MessageWriter();
  write(writer);
  const view = new DataView(writer.bytes.buffer);
  const texts: string[] = [];
  for (let at = 0; at < writer.length; at += view.getUint32(at, true)) {
    const type = view.getUint16(at + 4, true), flags = view.getUint16(at + 6, true) & ~1;
    const body = writer.bytes.subarray(at + 16, at + view.getUint32(at, true)).toHex();
    texts.push([`${type} 0x${flags.toString(16)}:`, ...body.match(/.{1,8}/g) ?? []].join(" "));
  }
  return texts;
}

/** Reads the first message that a function writes. */
export function readWritten<T>(
  write: (writer: MessageWriter) => void,
  read: (reader: MessageReader) => T,
): T {
  const writer = new MessageWriter();
  write(writer);
  const reader = new MessageReader(writer.bytes, writer.length);
  if (!reader.next()) throw new Error("nothing was written");
  return read(reader);
}
