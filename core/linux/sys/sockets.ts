/**
 * The system calls on sockets.
 *
 * @module
 */

import { SO_ATTACH_FILTER, SOL_SOCKET } from "../uapi/socket.ts";
import { checked, errno, FileDescriptor, libc } from "./libc.ts";
import { EAGAIN, EINTR, LinuxError } from "./linux_error.ts";

/** socket(2) */
export function socket(domain: number, type: number, protocol: number): FileDescriptor {
  return new FileDescriptor(checked(libc.socket(domain, type, protocol), "socket"));
}

/** bind(2), to a `struct sockaddr` in its binary form. */
export function bind(fd: FileDescriptor, address: Uint8Array<ArrayBuffer>): void {
  checked(libc.bind(fd.fd, address, address.length), "bind");
}

/** getsockname(2): fills `address`, a `struct sockaddr` of the right length. */
export function getsockname(fd: FileDescriptor, address: Uint8Array<ArrayBuffer>): void {
  checked(
    libc.getsockname(fd.fd, address, new Uint32Array([address.length])),
    "getsockname",
  );
}

/** connect(2), to a `struct sockaddr` in its binary form. */
export function connect(fd: FileDescriptor, address: Uint8Array<ArrayBuffer>): void {
  checked(libc.connect(fd.fd, address, address.length), "connect");
}

/** getsockopt(2) of an option whose value is an `int`. */
export function getsockopt(fd: FileDescriptor, level: number, option: number): number {
  const value = new Int32Array(1);
  checked(
    libc.getsockopt(fd.fd, level, option, value, new Uint32Array([4])),
    `getsockopt ${level}/${option}`,
  );
  return value[0]!;
}

/** getsockopt(2) of an option whose value is a struct that the kernel fills, and may read before. */
export function getsockoptInto(
  fd: FileDescriptor,
  level: number,
  option: number,
  value: Uint8Array<ArrayBuffer>,
): void {
  checked(
    libc.getsockopt(fd.fd, level, option, value, new Uint32Array([value.length])),
    `getsockopt ${level}/${option}`,
  );
}

/** setsockopt(2), with the value in its binary form. */
export function setsockopt(
  fd: FileDescriptor,
  level: number,
  option: number,
  value: BufferSource,
): void {
  checked(
    libc.setsockopt(fd.fd, level, option, value, value.byteLength),
    `setsockopt ${level}/${option}`,
  );
}

/**
 * Attaches a classic BPF program to a socket (socket(7), `SO_ATTACH_FILTER`): packets for which it
 * returns 0 never arrive. Each instruction is a `struct sock_filter`: code, jt, jf, k.
 */
export function attachFilter(
  fd: FileDescriptor,
  program: readonly (readonly [code: number, jt: number, jf: number, k: number])[],
): void {
  const instructions = new DataView(new ArrayBuffer(program.length * 8));
  program.forEach(([code, jt, jf, k], index) => {
    instructions.setUint16(index * 8, code, true);
    instructions.setUint8(index * 8 + 2, jt);
    instructions.setUint8(index * 8 + 3, jf);
    instructions.setUint32(index * 8 + 4, k, true);
  });
  // struct sock_fprog: the length, and at 8 the pointer. `instructions` is alive until after the call.
  const fprog = new DataView(new ArrayBuffer(16));
  fprog.setUint16(0, program.length, true);
  const pointer = Deno.UnsafePointer.of(instructions);
  fprog.setBigUint64(8, Deno.UnsafePointer.value(pointer), true);
  setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, fprog);
  instructions.getUint8(0);
}

/** sendto(2): the first `length` bytes of `data`, to `address`, or to the socket's peer. */
export function send(
  fd: FileDescriptor,
  data: Uint8Array<ArrayBuffer>,
  length: number = data.length,
  address: Uint8Array<ArrayBuffer> | null = null,
): number {
  for (;;) {
    const sent = Number(
      libc.sendto(fd.fd, data, BigInt(length), 0, address, address?.length ?? 0),
    );
    if (sent >= 0) return sent;
    const error = errno();
    if (error !== EINTR) throw new LinuxError(error, "send");
  }
}

/** recvfrom(2): the number of bytes received, or -1 if nothing is there yet. */
export function receive(
  fd: FileDescriptor,
  data: Uint8Array<ArrayBuffer>,
  flags = 0,
  address: Uint8Array<ArrayBuffer> | null = null,
): number {
  for (;;) {
    const addressLength = address && new Uint32Array([address.length]);
    const length = Number(
      libc.recvfrom(fd.fd, data, BigInt(data.length), flags, address, addressLength),
    );
    if (length >= 0) return length;
    const error = errno();
    if (error === EAGAIN) return -1;
    if (error !== EINTR) throw new LinuxError(error, "receive");
  }
}
