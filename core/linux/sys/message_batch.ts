/**
 * Many datagrams in one system call (sendmmsg(2), recvmmsg(2)), and the clock by which the kernel says when each came.
 *
 * @module
 */

import { CLOCK_REALTIME, MSG_DONTWAIT } from "../uapi/socket.ts";
import { checked, errno, type FileDescriptor, libc } from "./libc.ts";
import { EAGAIN, EINTR, LinuxError } from "./linux_error.ts";

/** `struct mmsghdr`: a `struct msghdr`, the length of what was sent or received, and 4 bytes of padding. */
export const MMSGHDR_LEN = 64;

/**
 * Sends messages without waiting. Stops at the first that the kernel refuses.
 *
 * @param messages points to `struct mmsghdr`s
 * @returns how many were sent; if none, the first one's error, negated
 */
export function sendMessages(
  fd: FileDescriptor,
  messages: Deno.PointerObject,
  count: number,
): number {
  for (;;) {
    const sent = libc.sendmmsg(fd.fd, messages, count, MSG_DONTWAIT);
    if (sent >= 0) return sent;
    const error = errno();
    if (error !== EINTR) return -error;
  }
}

/**
 * Receives messages that are there. Throws a LinuxError.
 *
 * @param messages points to `struct mmsghdr`s
 * @returns how many there were, at most `count`
 */
export function receiveMessages(
  fd: FileDescriptor,
  messages: Deno.PointerObject,
  count: number,
): number {
  for (;;) {
    const received = libc.recvmmsg(fd.fd, messages, count, MSG_DONTWAIT, null);
    if (received >= 0) return received;
    const error = errno();
    if (error === EAGAIN) return 0;
    if (error !== EINTR) throw new LinuxError(error, "receive messages");
  }
}

const timespec = new DataView(new ArrayBuffer(16));

/** The time by the clock of packets' timestamps (`SO_TIMESTAMPNS`), in milliseconds since 1970. */
export function realTimeMs(): number {
  checked(libc.clock_gettime(CLOCK_REALTIME, timespec), "clock_gettime");
  return Number(timespec.getBigInt64(0, true)) * 1e3 + timespec.getUint32(8, true) / 1e6;
}
