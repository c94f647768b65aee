/**
 * What the reconciler needs to know of a kind of kernel object. Each kind is one file with the kernel's
 * word for it: link.ts, address.ts, neighbour.ts, nexthop.ts, route.ts, forwarding.ts.
 *
 * @module
 */

import type { PodNetwork } from "../../kernel_state.ts";
import type { MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from "../uapi/netlink.ts";

/**
 * The protocol number on denim's routes and nexthops (`rtm_protocol`), by which it tells them from
 * anyone else's. Free in iproute2's rt_protos and in linux/rtnetlink.h.
 */
export const RTPROT_DENIM = 155;

/** Names and indexes of the namespace's devices, and what in the namespace is denim's. */
export interface Devices {
  /** A device's index; throws a LinuxError (ENODEV) where there is no such device. */
  indexOf(name: string): number;
  /** Whether there is such a device. */
  has(name: string): boolean;
  /** A device's name. */
  nameOf(index: number): string | undefined;
  /** Whether the device is denim's own, so that what others put on it goes. */
  owned(name: string): boolean;
  /** The pods' bridge, which is not denim's own; `undefined` where there is none. */
  readonly podBridge: string | undefined;
  /** The cluster's networks: what leads elsewhere may be another agent's, for another cluster. */
  readonly networks: readonly PodNetwork[];
}

/** One kind of object: how it is known again, compared, written and read. */
export interface ObjectKind<T> {
  /** What makes two objects of the kind the same one to the kernel, as text. */
  key(object: T): string;
  /** Whether the kernel's object is as it should be. */
  equal(wanted: T, found: T): boolean;
  /**
   * Writes the message that makes the object, or, where `known` to be there, makes it right. Of a kind that
   * has no message, does it.
   */
  put(writer: MessageWriter, object: T, devices: Devices, known: boolean): void;
  /** Writes the message that takes the object away. Settings of the node have none, and stay. */
  remove?(writer: MessageWriter, object: T, devices: Devices): void;
  /** Reads a message of `RTM_NEW…` or `RTM_DEL…`; `undefined` for what can't be an object of the kind. */
  parse(reader: MessageReader, devices: Devices): T | undefined;
  /**
   * Whether an object that the kernel has is denim's, so that it goes where nobody wants it. `held` says
   * that the reconciler had one under the same key.
   */
  ours(found: T, devices: Devices, held: boolean): boolean;
  /** The objects of the kind that are, or may be, denim's. */
  dump(socket: NetlinkSocket, devices: Devices, ownedDevices: readonly string[]): T[];
}

/** The flags for an object that shall be made, and replaced only where it is known to be denim's. */
export function putFlags(known: boolean): number {
  return NLM_F_CREATE | (known ? NLM_F_REPLACE : NLM_F_EXCL);
}
