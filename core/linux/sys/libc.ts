/**
 * The C library over FFI, and the system calls on files and descriptors; those on sockets are in sockets.ts, waits
 * in poll.ts, namespaces in namespace.ts. Only the files of this folder see pointers and errno; all else sees
 * numbers, arrays and {@link LinuxError}.
 *
 * @module
 */

import { EAGAIN, EBADF, EINTR, LinuxError } from "./linux_error.ts";

const SIGNATURES = {
  __errno_location: { parameters: [], result: "pointer" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
  closedir: { parameters: ["pointer"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  ioctl_value: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  mallopt: { parameters: ["i32", "i32"], result: "i32" },
  malloc_trim: { parameters: ["usize"], result: "i32" },
  mkfifo: { parameters: ["buffer", "u32"], result: "i32" },
  mount: { parameters: ["buffer", "buffer", "pointer", "u64", "pointer"], result: "i32" },
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  opendir: { parameters: ["buffer"], result: "pointer" },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  poll_blocking: {
    name: "poll",
    parameters: ["buffer", "u64", "i32"],
    result: "i32",
    nonblocking: true,
  },
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  readdir: { parameters: ["pointer"], result: "pointer" },
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "isize" },
  recvfrom: {
    parameters: ["i32", "buffer", "usize", "i32", "buffer", "buffer"],
    result: "isize",
  },
  recvmmsg: { parameters: ["i32", "pointer", "u32", "i32", "pointer"], result: "i32" },
  sendmmsg: { parameters: ["i32", "pointer", "u32", "i32"], result: "i32" },
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
  setns: { parameters: ["i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  umask: { parameters: ["u32"], result: "u32" },
  umount2: { parameters: ["buffer", "i32"], result: "i32" },
  unshare: { parameters: ["i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
} as const;

type Signatures = typeof SIGNATURES;

/** The calls of the C library that denim makes. */
export type Libc = {
  readonly [Name in keyof Signatures]: Deno.FromForeignFunction<Signatures[Name]>;
};

/**
 * The calls, each looked up when it is first made. Deno makes a call through a stub in a tenth of the time that it takes
 * through a pointer, and needs 0.3 ms to compile one. So a call that is made often gets one, and the CNI plugin, a new
 * process for each pod, does without. For the files of this folder alone.
 */
export const libc = {} as Libc;
/** Where each call is: a symbol of type "pointer" is its address. */
const ADDRESSES: Readonly<Record<string, Deno.PointerValue>> = Deno.dlopen(
  "libc.so.6",
  Object.fromEntries(
    Object.entries<Deno.ForeignFunction>(SIGNATURES).map(([key, { name = key }]) => [
      key,
      { name, type: "pointer" } as const,
    ]),
  ),
).symbols;
for (const name of Object.keys(SIGNATURES) as (keyof Signatures)[]) {
  const signature: Deno.ForeignFunction = SIGNATURES[name];
  const put = (value: unknown) => {
    Object.defineProperty(libc, name, { value, configurable: true });
    return value;
  };
  const compiled = () => put(Deno.dlopen("libc.so.6", { [name]: signature }).symbols[name]);
  Object.defineProperty(libc, name, {
    configurable: true,
    get: () => signature.nonblocking ? compiled() : put(pointed(signature, name, compiled)),
  });
}

/** How often a call is made through a pointer. */
const FEW_CALLS = 64;

/** A call through a pointer, which is `compiled` once it was made a few times. */
function pointed(signature: Deno.ForeignFunction, name: string, compiled: () => unknown): unknown {
  const address = ADDRESSES[name] as Deno.PointerObject<Deno.ForeignFunction>;
  const pointer = new Deno.UnsafeFnPointer(address, signature);
  let calls = 0;
  return (...args: Parameters<typeof pointer.call>) => {
    // Compiled before the call, since that may change errno.
    if (++calls === FEW_CALLS) compiled();
    return pointer.call(...args);
  };
}

// Each thread has an errno of its own, and an isolate's synchronous calls stay on one thread. Looked up before any
// call fails, because looking up may change errno.
const errnoView = new Deno.UnsafePointerView(libc.__errno_location()!);

/** The errno of the synchronous call just made on this thread. */
export function errno(): number {
  return errnoView.getInt32();
}

/** Returns a call's result, or throws a LinuxError with the errno if it is negative. */
export function checked<T extends number | bigint>(result: T, what: string): T {
  if (result < 0) throw new LinuxError(errno(), what);
  return result;
}

const encoder = new TextEncoder();

/** A text as C has it: UTF-8 with a zero at its end. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(`${text}\0`);
}

/** A file descriptor that is closed when its scope ends. */
export class FileDescriptor implements Disposable {
  #fd: number;

  /** Takes over an open descriptor. */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The descriptor's number. Throws a LinuxError (EBADF) if it is closed. */
  get fd(): number {
    if (this.#fd < 0) throw new LinuxError(EBADF, "use of a closed descriptor");
    return this.#fd;
  }

  /** Closes it, if it is still open. */
  [Symbol.dispose](): void {
    if (this.#fd >= 0) libc.close(this.#fd);
    this.#fd = -1;
  }
}

/** open(2). Throws a LinuxError that names the path. */
export function open(path: string, flags: number, mode = 0): FileDescriptor {
  return new FileDescriptor(checked(libc.open(cString(path), flags, mode), `open ${path}`));
}

/** flock(2): waits for the lock. */
export function flock(fd: FileDescriptor, operation: number): void {
  while (libc.flock(fd.fd, operation) < 0) {
    const error = errno();
    if (error !== EINTR) throw new LinuxError(error, "flock");
  }
}

/** read(2): the number of bytes read, or -1 if nothing is there yet. */
export function read(fd: FileDescriptor, data: Uint8Array<ArrayBuffer>): number {
  for (;;) {
    const length = Number(libc.read(fd.fd, data, BigInt(data.length)));
    if (length >= 0) return length;
    const error = errno();
    if (error === EAGAIN) return -1;
    if (error !== EINTR) throw new LinuxError(error, "read");
  }
}

/** write(2) of the first `length` bytes. Throws a LinuxError. */
export function write(
  fd: FileDescriptor,
  data: Uint8Array<ArrayBuffer>,
  length: number = data.length,
): void {
  checked(libc.write(fd.fd, data, BigInt(length)), "write");
}

/** ioctl(2) with a value in its binary form, which the kernel reads or fills. */
export function ioctl(
  fd: FileDescriptor,
  request: number,
  value: BufferSource,
  what: string,
): void {
  checked(libc.ioctl(fd.fd, BigInt(request), value), what);
}

/** ioctl(2) with a number. */
export function ioctlValue(fd: FileDescriptor, request: number, value: number, what: string): void {
  checked(libc.ioctl_value(fd.fd, BigInt(request), BigInt(value)), what);
}
