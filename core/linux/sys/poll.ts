/**
 * Waits for input, and for room for output (poll(2)), and eventfds, which end such waits early (eventfd(2)).
 *
 * @module
 */

import { EFD_CLOEXEC, POLLIN, POLLOUT } from "../uapi/socket.ts";
import { checked, errno, FileDescriptor, libc } from "./libc.ts";
import { EINTR, LinuxError } from "./linux_error.ts";

/** eventfd(2), with a count of 0. */
export function eventfd(): FileDescriptor {
  return new FileDescriptor(checked(libc.eventfd(0, EFD_CLOEXEC), "eventfd"));
}

/** Adds one to an eventfd's count, which ends every wait for it. */
export function notify(fd: FileDescriptor): void {
  checked(libc.write(fd.fd, new BigUint64Array([1n]), 8n), "write to an eventfd");
}

/** Waits for input on one descriptor, on this thread; false if none came in time. */
export function pollInput(fd: FileDescriptor, timeoutMs: number): boolean {
  return pollOne(fd, POLLIN, timeoutMs);
}

/** Waits for room to write to one descriptor, on this thread; false if none came in time. */
export function pollOutput(fd: FileDescriptor, timeoutMs: number): boolean {
  return pollOne(fd, POLLOUT, timeoutMs);
}

function pollOne(fd: FileDescriptor, events: number, timeoutMs: number): boolean {
  const endMs = performance.now() + timeoutMs;
  for (let leftMs = timeoutMs;;) {
    const count = libc.poll(pollfds(events, fd), 1n, Math.max(0, Math.ceil(leftMs)));
    if (count >= 0) return count > 0;
    const error = errno();
    if (error !== EINTR) throw new LinuxError(error, "poll");
    leftMs = endMs - performance.now();
  }
}

/** struct pollfd: the descriptor, the events asked for, and at this offset those that came. */
const POLLFD_LEN = 8;
const REVENTS = 6;

function pollfds(
  events: number,
  ...fds: readonly FileDescriptor[]
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(fds.length * POLLFD_LEN);
  const view = new DataView(bytes.buffer);
  fds.forEach(({ fd }, index) => {
    view.setInt32(index * POLLFD_LEN, fd, true);
    view.setInt16(index * POLLFD_LEN + 4, events, true);
  });
  return bytes;
}

/**
 * Waits for input on a descriptor, off this thread, so that the event loop goes on. Resolves to true
 * when there is some, and to false once the signal is aborted.
 */
export async function inputOn(fd: FileDescriptor, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return false;
  // The kernel waits: only an eventfd in the same poll can end that early.
  using wake = eventfd();
  const onAbort = () => notify(wake);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    const fds = pollfds(POLLIN, fd, wake);
    // Reading `fds` here also keeps the buffer from the collector while poll holds its pointer. If a signal to the
    // process ended the wait (EINTR), there is no event, and it waits again.
    do await libc.poll_blocking(fds, 2n, -1); while (fds[REVENTS] === 0 && !signal.aborted);
    return !signal.aborted;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
