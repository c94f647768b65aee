/**
 * Answers to what a backend may ask the kernel.
 *
 * @module
 */

import type { KernelReader } from "../../backend.ts";
import { findLink } from "./link.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { routeTo } from "./route.ts";

/** A reader that asks over a socket, in that socket's namespace. */
export function kernelReader(socket: NetlinkSocket): KernelReader {
  return {
    hasDevice: (device) => findLink(socket, device) !== undefined,
    macOf: (device) => findLink(socket, device)?.mac,
    routeTo(address) {
      const route = routeTo(socket, address);
      if (route === undefined) return undefined;
      const link = findLink(socket, route.index);
      return link && { device: link.name, gateway: route.gateway };
    },
  };
}
