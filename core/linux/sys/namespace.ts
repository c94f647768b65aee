/**
 * Namespaces of the network, and of mounts. `setns` moves one thread, and JavaScript runs on one: a synchronous function runs whole in the
 * other namespace, and a socket that it opens there stays there.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import { checked, cString, type FileDescriptor, libc, open } from "./libc.ts";
import { EINVAL, LinuxError } from "./linux_error.ts";
import { readProcLink } from "./proc_files.ts";
import { AT_EMPTY_PATH, STATX, STATX_INO } from "../uapi/stat.ts";
import {
  CLONE_FS,
  CLONE_NEWNET,
  CLONE_NEWNS,
  MNT_DETACH,
  MS_BIND,
  O_CLOEXEC,
  O_RDONLY,
} from "../uapi/socket.ts";

/** Where `ip netns` keeps the names of namespaces (ip-netns(8)). */
const NETNS_RUN_DIR = "/run/netns";
const THIS_THREAD = "/proc/thread-self/ns/net";

/** An open network namespace. The kernel keeps it at least until it is closed. */
export class NetworkNamespace implements Disposable {
  readonly #fd: FileDescriptor;
  /** The path by which it was opened. */
  readonly path: string;

  private constructor(fd: FileDescriptor, path: string) {
    this.#fd = fd;
    this.path = path;
  }

  /**
   * Opens a namespace by its path: `/run/netns/NAME`, `/proc/PID/ns/net`. Throws a LinuxError if the path leads
   * nowhere (ENOENT), or not to a network namespace (EINVAL).
   */
  static open(path: string): NetworkNamespace {
    const namespace = new NetworkNamespace(open(path, O_RDONLY | O_CLOEXEC), path);
    try {
      namespace.run(() => {});
      return namespace;
    } catch (cause) {
      namespace[Symbol.dispose]();
      if (cause instanceof LinuxError && cause.errno === EINVAL) {
        throw new LinuxError(EINVAL, `open ${path}`, "not a network namespace", { cause });
      }
      throw cause;
    }
  }

  /** Opens the namespace that this thread is in. */
  static current(): NetworkNamespace {
    return new NetworkNamespace(open(THIS_THREAD, O_RDONLY | O_CLOEXEC), THIS_THREAD);
  }

  /** Makes a namespace with a name, as `ip netns add` does, with its loopback still down. */
  static create(name: string): NetworkNamespace {
    const path = `${NETNS_RUN_DIR}/${name}`;
    Deno.mkdirSync(NETNS_RUN_DIR, { recursive: true, mode: 0o755 });
    Deno.openSync(path, { write: true, createNew: true, mode: 0o444 }).close();
    try {
      using home = NetworkNamespace.current();
      try {
        unshare(CLONE_NEWNET);
        mount(THIS_THREAD, path, MS_BIND);
      } finally {
        setns(home.#fd, CLONE_NEWNET, THIS_THREAD);
      }
      return NetworkNamespace.open(path);
    } catch (error) {
      Deno.removeSync(path);
      throw error;
    }
  }

  /** Removes a name, as `ip netns delete` does. The kernel removes the namespace once no process is in it. */
  static remove(name: string): void {
    const path = `${NETNS_RUN_DIR}/${name}`;
    unmount(path, MNT_DETACH);
    Deno.removeSync(path);
  }

  /** The open namespace's descriptor, for `IFLA_NET_NS_FD`. */
  get fd(): number {
    return this.#fd.fd;
  }

  /** Runs a synchronous function in the namespace, and moves the thread back, also if the function throws. */
  run<T>(fn: () => T extends Promise<unknown> ? never : T): T {
    using home = open(THIS_THREAD, O_RDONLY | O_CLOEXEC);
    setns(this.#fd, CLONE_NEWNET, this.path);
    try {
      return fn();
    } finally {
      setns(home, CLONE_NEWNET, THIS_THREAD);
    }
  }

  /** Whether this thread is in the namespace. */
  get isHere(): boolean {
    // A namespace that is mounted on a file has that file's path for a link, so its number is asked for.
    return readProcLink(THIS_THREAD) === `net:[${inodeOf(this.#fd)}]`;
  }

  /** As {@link NetworkNamespace.run}, but needs no CAP_SYS_ADMIN if the thread is in the namespace already. */
  runHere<T>(fn: () => T extends Promise<unknown> ? never : T): T {
    return this.isHere ? fn() : this.run(fn);
  }

  /** Moves this thread into the namespace for good: for a worker that lives there. */
  enter(): void {
    setns(this.#fd, CLONE_NEWNET, this.path);
  }

  /** Closes the descriptor. */
  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }
}

/** The mounts of the first process: what a node's programs see, unless somebody gave them a view of their own. */
const NODE_MOUNTS = "/proc/1/ns/mnt";

/**
 * Has this thread see the file system as the node's programs do, for good: a service may have been given another view.
 * What the thread opens from then on, with synchronous calls, is what those would. It stays where it is if the kernel does
 * not say where the node's programs are. Throws a LinuxError, EPERM without CAP_SYS_ADMIN and CAP_SYS_CHROOT.
 */
export function enterNodeMounts(): void {
  let node: string;
  try {
    node = readProcLink(NODE_MOUNTS);
  } catch (error) {
    throwDefect(error);
    return;
  }
  if (node === readProcLink("/proc/thread-self/ns/mnt")) return;
  using mounts = open(NODE_MOUNTS, O_RDONLY | O_CLOEXEC);
  // A thread that shares its root with others is not moved.
  unshare(CLONE_FS);
  setns(mounts, CLONE_NEWNS, NODE_MOUNTS);
}

/** The number of the file that a descriptor leads to (statx(2)). */
function inodeOf({ fd }: FileDescriptor): bigint {
  const found = new Uint8Array(STATX.size);
  checked(libc.statx(fd, cString(""), AT_EMPTY_PATH, STATX_INO, found), "statx");
  return new DataView(found.buffer).getBigUint64(STATX.ino, true);
}

/** setns(2) with a namespace's descriptor: moves this thread. */
function setns(fd: FileDescriptor, kind: number, what: string): void {
  checked(libc.setns(fd.fd, kind), `setns ${what}`);
}

/** unshare(2): gives this thread something of its own, such as a namespace. */
function unshare(kinds: number): void {
  checked(libc.unshare(kinds), "unshare");
}

/** mount(2), for a bind mount. */
function mount(source: string, target: string, flags: number): void {
  checked(
    libc.mount(cString(source), cString(target), null, BigInt(flags), null),
    `mount ${source} on ${target}`,
  );
}

/** umount2(2), by path. */
function unmount(target: string, flags: number): void {
  checked(libc.umount2(cString(target), flags), `unmount ${target}`);
}
