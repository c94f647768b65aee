/**
 * The C library's system calls, over FFI. This file alone holds `any` pointers and errno; all else sees
 * numbers, arrays and {@link LinuxError}.
 *
 * @module
 */

import { ExpectedError } from "../../errors.ts";
import { EFD_CLOEXEC, POLLIN, SO_ATTACH_FILTER, SOL_SOCKET } from "../uapi/socket.ts";

/** A system call failed. */
export class LinuxError extends ExpectedError {
  /** The class's name, for logs. */
  override readonly name = "LinuxError";
  /** The number that the kernel gave (errno(3)). */
  readonly errno: number;
  /** The number's name: "EPERM". */
  readonly code: string;
  /** The kernel's own words, where it had some. */
  readonly detail: string | undefined;

  /**
   * Says what failed, and why.
   *
   * @param errno the kernel's number, positive
   * @param what the call, and what it was for: "setns /run/netns/pod1"
   * @param detail the kernel's own words, where it had some (`NLMSGERR_ATTR_MSG`)
   */
  constructor(errno: number, what: string, detail?: string) {
    const [code, meaning] = ERRNO[errno] ?? [`E${errno}`, `error ${errno}`];
    super(`${what}: ${detail || meaning} (${code})`);
    this.errno = errno;
    this.code = code;
    this.detail = detail;
  }
}

// asm-generic/errno-base.h and errno.h: those that denim's calls are known to give.
export const EPERM = 1;
export const ENOENT = 2;
export const ESRCH = 3;
export const EINTR = 4;
export const EIO = 5;
export const EAGAIN = 11;
export const EACCES = 13;
export const EBUSY = 16;
export const EEXIST = 17;
export const ENODEV = 19;
export const EINVAL = 22;
export const EBADFD = 77;
export const EMSGSIZE = 90;
export const ENOPROTOOPT = 92;
export const EOPNOTSUPP = 95;
export const EADDRINUSE = 98;
export const EADDRNOTAVAIL = 99;
export const ENETDOWN = 100;
export const ENETUNREACH = 101;
export const ENOBUFS = 105;
export const EHOSTUNREACH = 113;

const ERRNO: Readonly<Record<number, readonly [code: string, meaning: string]>> = {
  [EPERM]: ["EPERM", "not permitted"],
  [ENOENT]: ["ENOENT", "no such file or object"],
  [ESRCH]: ["ESRCH", "no such object"],
  [EINTR]: ["EINTR", "interrupted"],
  9: ["EBADF", "bad file descriptor"],
  [EAGAIN]: ["EAGAIN", "nothing there yet"],
  12: ["ENOMEM", "out of memory"],
  [EACCES]: ["EACCES", "permission denied"],
  14: ["EFAULT", "bad address"],
  [EBUSY]: ["EBUSY", "busy"],
  [EEXIST]: ["EEXIST", "exists already"],
  [ENODEV]: ["ENODEV", "no such device"],
  20: ["ENOTDIR", "not a directory"],
  21: ["EISDIR", "is a directory"],
  [EINVAL]: ["EINVAL", "invalid argument"],
  24: ["EMFILE", "too many open files"],
  28: ["ENOSPC", "no space left"],
  34: ["ERANGE", "out of range"],
  [EBADFD]: ["EBADFD", "the device is gone"],
  [EMSGSIZE]: ["EMSGSIZE", "message too long"],
  [ENOPROTOOPT]: ["ENOPROTOOPT", "option not available"],
  93: ["EPROTONOSUPPORT", "protocol not supported"],
  [EOPNOTSUPP]: ["EOPNOTSUPP", "not supported"],
  97: ["EAFNOSUPPORT", "address family not supported"],
  [EADDRINUSE]: ["EADDRINUSE", "address already in use"],
  [EADDRNOTAVAIL]: ["EADDRNOTAVAIL", "address not available"],
  [ENETDOWN]: ["ENETDOWN", "the device is down"],
  [ENETUNREACH]: ["ENETUNREACH", "network unreachable"],
  [ENOBUFS]: ["ENOBUFS", "events were lost"],
  111: ["ECONNREFUSED", "connection refused"],
  [EHOSTUNREACH]: ["EHOSTUNREACH", "host unreachable"],
};

const SIGNATURES = {
  __errno_location: { parameters: [], result: "pointer" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  ioctl_value: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  mount: { parameters: ["buffer", "buffer", "pointer", "u64", "pointer"], result: "i32" },
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  poll_blocking: {
    name: "poll",
    parameters: ["buffer", "u64", "i32"],
    result: "i32",
    nonblocking: true,
  },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  recvfrom: {
    parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"],
    result: "isize",
  },
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
  setns: { parameters: ["i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  umount2: { parameters: ["buffer", "i32"], result: "i32" },
  unshare: { parameters: ["i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
} as const;

type Signatures = typeof SIGNATURES;
type Symbols = { readonly [Name in keyof Signatures]: Deno.FromForeignFunction<Signatures[Name]> };

/**
 * The calls, each looked up when it is first made: Deno compiles a stub for each, which takes 0.2 ms, and the
 * CNI plugin, which starts for each pod anew, makes half of them.
 */
const libc = { symbols: {} as Symbols };
for (const name of Object.keys(SIGNATURES) as (keyof Signatures)[]) {
  Object.defineProperty(libc.symbols, name, {
    configurable: true,
    get() {
      const value = Deno.dlopen("libc.so.6", { [name]: SIGNATURES[name] }).symbols[name];
      Object.defineProperty(libc.symbols, name, { value });
      return value;
    },
  });
}

// errno's place is the thread's own, and an isolate's synchronous calls stay on one thread. Looked up before
// any call fails, since looking up may itself change errno.
const errnoView = new Deno.UnsafePointerView(libc.symbols.__errno_location()!);

/** The errno of the synchronous call just made on this thread. */
function errno(): number {
  return errnoView.getInt32();
}

/** Passes a call's result on, or throws what errno says. */
function checked<T extends number | bigint>(result: T, what: string): T {
  if (result < 0) throw new LinuxError(errno(), what);
  return result;
}

const encoder = new TextEncoder();

function cString(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(`${text}\0`);
}

/** A file descriptor that is closed when its scope ends. */
export class FileDescriptor implements Disposable {
  #fd: number;

  /** Takes over an open descriptor. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The descriptor's number; throws where it is closed. */
  get fd(): number {
    if (this.#fd < 0) throw new LinuxError(9, "use of a closed descriptor");
    return this.#fd;
  }

  /** Closes it; again is fine. */
  [Symbol.dispose](): void {
    if (this.#fd >= 0) libc.symbols.close(this.#fd);
    this.#fd = -1;
  }
}

/** open(2) */
export function open(path: string, flags: number, mode = 0): FileDescriptor {
  return new FileDescriptor(checked(libc.symbols.open(cString(path), flags, mode), `open ${path}`));
}

/** flock(2), which waits. */
export function flock(fd: FileDescriptor, operation: number): void {
  while (libc.symbols.flock(fd.fd, operation) < 0) {
    const error = errno();
    if (error !== EINTR) throw new LinuxError(error, "flock");
  }
}

/** socket(2) */
export function socket(domain: number, type: number, protocol: number): FileDescriptor {
  return new FileDescriptor(checked(libc.symbols.socket(domain, type, protocol), "socket"));
}

/** bind(2), to a `struct sockaddr` in its binary form. */
export function bind(fd: FileDescriptor, address: Uint8Array<ArrayBuffer>): void {
  checked(libc.symbols.bind(fd.fd, address, address.length), "bind");
}

/** getsockname(2): fills `address`, a `struct sockaddr` of the right length. */
export function getsockname(fd: FileDescriptor, address: Uint8Array<ArrayBuffer>): void {
  checked(
    libc.symbols.getsockname(fd.fd, address, new Uint32Array([address.length])),
    "getsockname",
  );
}

/** connect(2), to a `struct sockaddr` in its binary form. */
export function connect(fd: FileDescriptor, address: Uint8Array<ArrayBuffer>): void {
  checked(libc.symbols.connect(fd.fd, address, address.length), "connect");
}

/** getsockopt(2) of an option whose value is an `int`. */
export function getsockopt(fd: FileDescriptor, level: number, option: number): number {
  const value = new Int32Array(1);
  checked(
    libc.symbols.getsockopt(fd.fd, level, option, value, new Uint32Array([4])),
    `getsockopt ${level}/${option}`,
  );
  return value[0]!;
}

/** setsockopt(2), with the value in its binary form. */
export function setsockopt(
  fd: FileDescriptor,
  level: number,
  option: number,
  value: BufferSource,
): void {
  checked(
    libc.symbols.setsockopt(fd.fd, level, option, value, value.byteLength),
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

/** sendto(2): the first `length` bytes of `data`, to `address` or to where the socket is bound. */
export function send(
  fd: FileDescriptor,
  data: Uint8Array<ArrayBuffer>,
  length: number = data.length,
  address: Uint8Array<ArrayBuffer> | null = null,
): number {
  for (;;) {
    const sent = Number(
      libc.symbols.sendto(fd.fd, data, BigInt(length), 0, address, address?.length ?? 0),
    );
    if (sent >= 0) return sent;
    const error = errno();
    if (error !== EINTR) throw new LinuxError(error, "send");
  }
}

/** recvfrom(2): the number of bytes received, or -1 where nothing is there yet. */
export function receive(
  fd: FileDescriptor,
  data: Uint8Array<ArrayBuffer>,
  flags = 0,
  address: Uint8Array<ArrayBuffer> | null = null,
): number {
  for (;;) {
    const addressLength = address && new Uint32Array([address.length]);
    const length = Number(
      libc.symbols.recvfrom(fd.fd, data, BigInt(data.length), flags, address, addressLength),
    );
    if (length >= 0) return length;
    const error = errno();
    if (error === EAGAIN) return -1;
    if (error !== EINTR) throw new LinuxError(error, "receive");
  }
}

/** read(2): the number of bytes read, or -1 where nothing is there yet. */
export function read(fd: FileDescriptor, data: Uint8Array<ArrayBuffer>): number {
  for (;;) {
    const length = Number(libc.symbols.read(fd.fd, data, BigInt(data.length)));
    if (length >= 0) return length;
    const error = errno();
    if (error === EAGAIN) return -1;
    if (error !== EINTR) throw new LinuxError(error, "read");
  }
}

/** write(2) of the first `length` bytes; throws what the kernel says. */
export function write(
  fd: FileDescriptor,
  data: Uint8Array<ArrayBuffer>,
  length: number = data.length,
): void {
  checked(libc.symbols.write(fd.fd, data, BigInt(length)), "write");
}

/** ioctl(2) with a value in its binary form, which the kernel reads or fills. */
export function ioctl(
  fd: FileDescriptor,
  request: number,
  value: BufferSource,
  what: string,
): void {
  checked(libc.symbols.ioctl(fd.fd, BigInt(request), value), what);
}

/** ioctl(2) with a number. */
export function ioctlValue(fd: FileDescriptor, request: number, value: number, what: string): void {
  checked(libc.symbols.ioctl_value(fd.fd, BigInt(request), BigInt(value)), what);
}

/** eventfd(2), at 0. */
export function eventfd(): FileDescriptor {
  return new FileDescriptor(checked(libc.symbols.eventfd(0, EFD_CLOEXEC), "eventfd"));
}

/** Adds one to an eventfd, which wakes whoever polls it. */
export function notify(fd: FileDescriptor): void {
  checked(libc.symbols.write(fd.fd, new BigUint64Array([1n]), 8n), "write to an eventfd");
}

/** setns(2) with a network namespace's descriptor: moves this thread. */
export function setns(fd: FileDescriptor, kind: number, what: string): void {
  checked(libc.symbols.setns(fd.fd, kind), `setns ${what}`);
}

/** unshare(2): gives this thread a namespace of its own. */
export function unshare(kinds: number): void {
  checked(libc.symbols.unshare(kinds), "unshare");
}

/** mount(2), for a bind mount. */
export function mount(source: string, target: string, flags: number): void {
  checked(
    libc.symbols.mount(cString(source), cString(target), null, BigInt(flags), null),
    `mount ${source} on ${target}`,
  );
}

/** umount2(2) */
export function unmount(target: string, flags: number): void {
  checked(libc.symbols.umount2(cString(target), flags), `unmount ${target}`);
}

/** poll(2) for input on one descriptor, on this thread. Tells whether something came in time. */
export function pollInput(fd: FileDescriptor, timeoutMs: number): boolean {
  const endMs = performance.now() + timeoutMs;
  for (let leftMs = timeoutMs;;) {
    const count = libc.symbols.poll(pollfds(fd), 1n, Math.max(0, Math.ceil(leftMs)));
    if (count >= 0) return count > 0;
    const error = errno();
    if (error !== EINTR) throw new LinuxError(error, "poll");
    leftMs = endMs - performance.now();
  }
}

/** struct pollfd: the descriptor, the events asked for, and at this offset those that came. */
const POLLFD_LEN = 8;
const REVENTS = 6;

function pollfds(...fds: readonly FileDescriptor[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(fds.length * POLLFD_LEN);
  const view = new DataView(bytes.buffer);
  fds.forEach(({ fd }, index) => {
    view.setInt32(index * POLLFD_LEN, fd, true);
    view.setInt16(index * POLLFD_LEN + 4, POLLIN, true);
  });
  return bytes;
}

/**
 * Waits for input on a descriptor, off this thread, so that the event loop goes on. Resolves to true
 * when there is some, and to false once the signal is aborted.
 */
export async function inputOn(fd: FileDescriptor, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return false;
  // The wait is the kernel's: an eventfd in the same poll is the only way to end it early.
  using wake = eventfd();
  const onAbort = () => notify(wake);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    const fds = pollfds(fd, wake);
    // Reading the answer here also keeps the buffer from the collector while poll holds its pointer. There is
    // none where a signal to the process ended the wait (EINTR).
    do await libc.symbols.poll_blocking(fds, 2n, -1); while (fds[REVENTS] === 0 && !signal.aborted);
    return !signal.aborted;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
