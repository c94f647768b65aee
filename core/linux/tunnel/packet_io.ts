/**
 * The system calls of a data path. Unlike those of libc.ts they make no check and no object for a packet. They are declared
 * apart so that only what carries packets pays for them. Their results are the kernel's own: a count, or an error's
 * number negated.
 *
 * @module
 */

import { EAGAIN, EBADFD, EINTR, EINVAL, EIO, EMSGSIZE, LinuxError } from "../sys/linux_error.ts";
import { MSG_DONTWAIT, POLLIN } from "../uapi/socket.ts";

/** The result of a call that found nothing there yet. */
export const NOTHING_YET: number = -EAGAIN;
/** The result of a call that a signal ended. */
export const INTERRUPTED: number = -EINTR;
/** The result of a call on a queue whose device was taken away. */
export const DEVICE_GONE: number = -EBADFD;
/** The result of sending what is too large for the path. */
export const TOO_LARGE: number = -EMSGSIZE;
/** The result of sending a series of datagrams that together are too large. */
export const SERIES_TOO_LARGE: number = -EINVAL;
/** The result of sending a series of datagrams by a device that can't do their checksums. */
export const NO_CHECKSUMS: number = -EIO;

/** The error that a result stands for; `action` is what failed: "receive datagrams". */
export function errorOf(result: number, action: string): LinuxError {
  return new LinuxError(-result, action);
}

const { symbols: libc } = Deno.dlopen("libc.so.6", {
  __errno_location: { parameters: [], result: "pointer" },
  // The results are as long as the data, which is never more than a number of 32 bits holds.
  readv: { parameters: ["i32", "pointer", "i32"], result: "i32" },
  writev: { parameters: ["i32", "pointer", "i32"], result: "i32" },
  sendmsg: { parameters: ["i32", "pointer", "i32"], result: "i32" },
  recvmsg: { parameters: ["i32", "pointer", "i32"], result: "i32" },
  poll: { parameters: ["pointer", "usize", "i32"], result: "i32" },
  sched_yield: { parameters: [], result: "i32" },
  syscall: { parameters: ["i64", "i32", "buffer", "u32"], result: "i64" },
});

/** sched_setattr(2), for which the C library has no name everywhere: its number, by `Deno.build.arch`. */
const SCHED_SETATTR = { x86_64: 314n, aarch64: 274n } as const;

/**
 * Asks for short turns on the processor for this thread, so that a thread with much to do soon lets those run for which it
 * works. Linux does so since 6.12; before that the call changes nothing.
 */
export function takeShortTurns(turnUs: number): void {
  // struct sched_attr: size, policy, flags, nice, priority, runtime in ns, deadline, period.
  const attributes = new DataView(new ArrayBuffer(48));
  attributes.setUint32(0, 48, true);
  attributes.setBigUint64(24, BigInt(turnUs) * 1000n, true);
  libc.syscall(SCHED_SETATTR[Deno.build.arch], 0, attributes, 0);
}

// As in libc.ts: errno's place is the thread's own.
const errno = new Deno.UnsafePointerView(libc.__errno_location()!);

function result(count: number): number {
  return count >= 0 ? count : -errno.getInt32();
}

/** sched_yield(2): lets other threads run that wait for this one's processor. */
export function yieldProcessor(): void {
  libc.sched_yield();
}

/** readv(2) */
export function readv(fd: number, iovec: Deno.PointerObject, count: number): number {
  return result(libc.readv(fd, iovec, count));
}

/** writev(2) */
export function writev(fd: number, iovec: Deno.PointerObject, count: number): number {
  return result(libc.writev(fd, iovec, count));
}

/** sendmsg(2) */
export function sendmsg(fd: number, message: Deno.PointerObject): number {
  return result(libc.sendmsg(fd, message, 0));
}

/** recvmsg(2), without waiting. */
export function recvmsg(fd: number, message: Deno.PointerObject): number {
  return result(libc.recvmsg(fd, message, MSG_DONTWAIT));
}

/** Waits until any of some descriptors has input (poll(2)). */
export class InputWait {
  readonly #fds: Int32Array<ArrayBuffer>;
  readonly #pointer: Deno.PointerObject;
  readonly #count: bigint;

  /** Waits for these. */
  constructor(fds: readonly number[]) {
    // struct pollfd: the descriptor, then the events asked for and those that came, 16 bits each.
    this.#fds = new Int32Array(new ArrayBuffer(8 * fds.length));
    fds.forEach((fd, index) => this.#fds.set([fd, POLLIN], 2 * index));
    this.#pointer = Deno.UnsafePointer.of(this.#fds)!;
    this.#count = BigInt(fds.length);
  }

  /** Waits, on this thread, without end. */
  wait(): void {
    libc.poll(this.#pointer, this.#count, -1);
  }

  /** Whether the wait found something on descriptor number `index`. */
  found(index: number): boolean {
    return this.#fds[2 * index + 1]! >>> 16 !== 0;
  }
}
