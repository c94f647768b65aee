/**
 * Errors of system calls.
 *
 * @module
 */

import { ExpectedError } from "../../errors.ts";

/** A system call, or a step of a netlink batch, failed. */
export class LinuxError extends ExpectedError {
  /** The class's name, for logs. */
  override readonly name = "LinuxError";
  /** The number that the kernel gave (errno(3)). */
  readonly errno: number;
  /** The number's name: "EPERM". */
  readonly code: string;
  /** The kernel's own words; `undefined` if it sent none. */
  readonly detail: string | undefined;

  /**
   * Says what failed, and why.
   *
   * @param errno the kernel's number, positive
   * @param what the call, and what it was for: "setns /run/netns/pod1"
   * @param detail the kernel's own words, if it sent some (`NLMSGERR_ATTR_MSG`)
   * @param options the error that this one says more about
   */
  constructor(errno: number, what: string, detail?: string, options?: ErrorOptions) {
    const [code, meaning] = ERRNO[errno] ?? [`E${errno}`, `error ${errno}`];
    super(`${what}: ${detail || meaning} (${code})`, options);
    this.errno = errno;
    this.code = code;
    this.detail = detail;
  }
}

// asm-generic/errno-base.h and errno.h: the errors that denim's calls are known to give.
export const EPERM = 1;
export const ENOENT = 2;
export const ESRCH = 3;
export const EINTR = 4;
export const EIO = 5;
export const ENXIO = 6;
export const EBADF = 9;
export const EAGAIN = 11;
export const EACCES = 13;
export const EBUSY = 16;
export const EEXIST = 17;
export const ENODEV = 19;
export const EINVAL = 22;
export const EROFS = 30;
export const EBADFD = 77;
export const EMSGSIZE = 90;
export const EPROTONOSUPPORT = 93;
export const EOPNOTSUPP = 95;
export const EADDRINUSE = 98;
export const EADDRNOTAVAIL = 99;
export const ENETDOWN = 100;
export const ENETUNREACH = 101;
export const ENOBUFS = 105;
export const ECONNREFUSED = 111;
export const EHOSTUNREACH = 113;

const ERRNO: Readonly<Record<number, readonly [code: string, meaning: string]>> = {
  [EPERM]: ["EPERM", "not permitted"],
  [ENOENT]: ["ENOENT", "no such file or object"],
  [ESRCH]: ["ESRCH", "no such object"],
  [EINTR]: ["EINTR", "interrupted"],
  [ENXIO]: ["ENXIO", "no such device or address"],
  [EBADF]: ["EBADF", "bad file descriptor"],
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
  [EROFS]: ["EROFS", "the file system is read-only"],
  32: ["EPIPE", "nobody reads"],
  34: ["ERANGE", "out of range"],
  [EBADFD]: ["EBADFD", "the device is gone"],
  [EMSGSIZE]: ["EMSGSIZE", "message too long"],
  92: ["ENOPROTOOPT", "option not available"],
  [EPROTONOSUPPORT]: ["EPROTONOSUPPORT", "protocol not supported"],
  [EOPNOTSUPP]: ["EOPNOTSUPP", "not supported"],
  97: ["EAFNOSUPPORT", "address family not supported"],
  [EADDRINUSE]: ["EADDRINUSE", "address already in use"],
  [EADDRNOTAVAIL]: ["EADDRNOTAVAIL", "address not available"],
  [ENETDOWN]: ["ENETDOWN", "the device is down"],
  [ENETUNREACH]: ["ENETUNREACH", "network unreachable"],
  [ENOBUFS]: ["ENOBUFS", "events were lost"],
  [ECONNREFUSED]: ["ECONNREFUSED", "connection refused"],
  [EHOSTUNREACH]: ["EHOSTUNREACH", "host unreachable"],
};
