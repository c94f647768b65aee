/**
 * What the kinds of rtnetlink objects have in common. Each kind is one file beside this one.
 *
 * @module
 */

import type { IpAddress } from "../../ip.ts";
import type { Nexthop, PodNetwork } from "../../kernel_state.ts";
import type { MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import type { LinuxError } from "../sys/linux_error.ts";
import { NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from "../uapi/netlink.ts";

/**
 * The protocol number on denim's routes and nexthops (`rtm_protocol`), by which it tells them from
 * anyone else's. Free in iproute2's rt_protos and in linux/rtnetlink.h.
 */
export const RTPROT_DENIM = 155;

/** What a kind has to know of its network namespace: the devices, and what in the namespace is denim's. */
export interface KernelContext {
  /** A device's index; throws a LinuxError (ENODEV) if there is no such device. */
  indexOf(name: string): number;
  /** A device's name. */
  nameOf(index: number): string | undefined;
  /** Whether there is such a device. */
  has(name: string): boolean;
  /** Whether there is such a device, and it is set up. */
  isUp(name: string): boolean;
  /** Whether the device is denim's own, so that denim removes what others put on it. */
  owned(name: string): boolean;
  /** denim's own devices, those that exist. */
  ownedDevices(): readonly string[];
  /** The nexthop object with this number that denim wants. */
  nexthop(id: number): Nexthop | undefined;
  /** Whether denim wants some device to have the address. */
  wantsAddress(address: IpAddress): boolean;
  /** The pod bridge, which is not denim's own; `undefined` while there is none. */
  readonly podBridge: string | undefined;
  /** The cluster's networks: what leads elsewhere may be another agent's, for another cluster. */
  readonly networks: readonly PodNetwork[];
}

/** What every rtnetlink object has. */
export interface RtnetlinkObject {
  /** Tells the kinds of object apart. */
  readonly kind: string;
  /** The name of the device that the object lies on, if it lies on one. */
  readonly device?: string | undefined;
}

/** rtnetlink's messages about one kind. */
export interface KindMessages {
  /** The message that makes an object, and reports one: `RTM_NEWROUTE`. */
  readonly new: number;
  /** The message that removes an object, and reports its removal: `RTM_DELROUTE`. */
  readonly del: number;
  /** The multicast groups in which the kernel reports both: `RTNLGRP_IPV4_ROUTE`. */
  readonly groups: readonly [number, ...number[]];
}

/**
 * One kind of rtnetlink object: how it is identified, compared, written and read.
 *
 * `Want` is what denim asks for. `Found` is what the kernel has: the same fields, and optional ones besides that
 * denim leaves to the kernel. So what denim wrote is also a valid `Found`.
 */
export interface ObjectKind<Want extends Found, Found extends RtnetlinkObject> {
  /** The messages about this kind. */
  readonly messages: KindMessages;
  /** Text that is equal for two objects if the kernel takes them for the same one. */
  key(object: Found): string;
  /** Whether the kernel's object is as wanted. */
  equal(wanted: Want, found: Found): boolean;
  /**
   * Appends the one message that creates the object. If an object stands in its place the message replaces it
   * with `mayReplace`, else it fails with EEXIST; kinds that have nobody else's objects replace in any case.
   */
  put(writer: MessageWriter, object: Want, context: KernelContext, mayReplace: boolean): void;
  /** Appends the one message that removes the object. A kind without it is a setting, which stays. */
  remove?(writer: MessageWriter, object: Found, context: KernelContext): void;
  /** Reads a message; `undefined` if it is not about an object that denim may have to do with. */
  parse(reader: MessageReader, context: KernelContext): Found | undefined;
  /**
   * Whether denim removes an object that no owner wants.
   *
   * @param known whether denim had an object under the same key before
   */
  ours(found: Found, context: KernelContext, known: boolean): boolean;
  /** Lists the objects that are, or may be, denim's. Throws a LinuxError. */
  dump(socket: NetlinkSocket, context: KernelContext): Found[];
  /** Keys of objects other than its device that the kernel asks for before it takes this one. */
  needs?(object: Want): readonly string[];
  /** Whether objects of later tables are lost with this one, in part without an event. */
  carries?(object: Want, context: KernelContext): boolean;
  /** Whether the kernel removes `other` together with `removed`. */
  removesToo?(removed: Found, other: Want): boolean;
  /**
   * The kernel refused the object. Removes the reason if that is denim's to do. Returns whether to try once more, this
   * time replacing what may stand in the object's place.
   */
  recover?(error: LinuxError, object: Want, socket: NetlinkSocket, context: KernelContext): boolean;
}

/** The flags of a message that creates an object, and replaces another only if that is known to be denim's. */
export function putFlags(mayReplace: boolean): number {
  return NLM_F_CREATE | (mayReplace ? NLM_F_REPLACE : NLM_F_EXCL);
}

/** The key of a device, which objects of several tables need. */
export function deviceKey(name: string): string {
  return `device ${name}`;
}
