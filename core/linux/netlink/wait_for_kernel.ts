/**
 * Waits on this thread until the kernel has done something.
 *
 * @module
 */

import { ENOBUFS, LinuxError } from "../sys/linux_error.ts";
import { pollInput } from "../sys/poll.ts";
import { receive } from "../sys/sockets.ts";
import { joinGroups, openNetlink } from "./netlink_socket.ts";
import { RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_LINK } from "../uapi/rtnetlink.ts";
import { MSG_DONTWAIT } from "../uapi/socket.ts";

const MESSAGE_BYTES = 64 * 1024;

/**
 * Asks `done` now and again after each change of a device, or of an IPv6 address or route, in this thread's
 * namespace, until it says yes. False if it does not within the time.
 */
export function waitForKernel(done: () => boolean, timeoutMs: number): boolean {
  if (done()) return true;
  const { fd } = openNetlink();
  using _ = fd;
  joinGroups(fd, [RTNLGRP_LINK, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE]);
  const buffer = new Uint8Array(new ArrayBuffer(MESSAGE_BYTES));
  const endMs = performance.now() + timeoutMs;
  // Asked again first: the socket reports nothing that happened before it listened.
  for (;;) {
    if (done()) return true;
    const leftMs = Math.ceil(endMs - performance.now());
    if (leftMs <= 0 || !pollInput(fd, leftMs)) return done();
    try {
      while (receive(fd, buffer, MSG_DONTWAIT) >= 0);
    } catch (error) {
      // ENOBUFS: events were lost, so there is more than one reason to ask again.
      if (!(error instanceof LinuxError) || error.errno !== ENOBUFS) throw error;
    }
  }
}
