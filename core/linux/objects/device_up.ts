/**
 * The pod bridge's state: up (`RTM_*LINK`, linux/if_link.h).
 *
 * @module
 */

import { findLink, LINK_MESSAGES, UP, writeLinkHeader } from "./link.ts";
import type { ObjectKind } from "./object_kind.ts";
import { IFF_UP, RTM_NEWLINK } from "../uapi/rtnetlink.ts";
import { AF_UNSPEC } from "../uapi/socket.ts";

/** Asks that a device which is not denim's is up. */
export interface DeviceUp {
  /** Tells the kinds of object apart. */
  readonly kind: "deviceUp";
  /** The device's name. */
  readonly device: string;
}

/** Whether the pod bridge is up. */
export interface FoundDeviceUp extends DeviceUp {
  /** Whether the device is up; `undefined` of one that denim has just set up. */
  readonly up?: boolean;
}

/** Whether the pod bridge is up, for the reconciler. A setting: denim sets no device down. */
export const deviceUpKind: ObjectKind<DeviceUp, FoundDeviceUp> = {
  messages: LINK_MESSAGES,
  key: ({ device }) => `${device} up`,
  equal: (_wanted, { up }) => up !== false,
  /** `ip link set DEVICE up` */
  put: (writer, { device }, context) =>
    writeLinkHeader(writer.begin(RTM_NEWLINK, 0), { index: context.indexOf(device), ...UP }).end(),
  parse(reader, context) {
    const device = context.nameOf(reader.i32(4));
    if (reader.u8(0) !== AF_UNSPEC || device === undefined) return undefined;
    if (device !== context.podBridge) return undefined;
    return { kind: "deviceUp", device, up: (reader.u32(8) & IFF_UP) !== 0 };
  },
  ours: () => false,
  dump(socket, { podBridge }) {
    const link = podBridge === undefined ? undefined : findLink(socket, podBridge);
    return link === undefined ? [] : [{ kind: "deviceUp", device: link.name, up: link.up }];
  },
};
