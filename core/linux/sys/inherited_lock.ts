/**
 * Locks that outlive the process that took them.
 *
 * @module
 */

import { type FileDescriptor, flock, open } from "./libc.ts";
import { LOCK_SH, LOCK_UN, O_RDONLY } from "../uapi/socket.ts";

/**
 * A shared lock of a file (flock(2)) that child processes inherit: if this process is killed, the lock is free once
 * they have ended. When the scope ends it is free at once.
 */
export class InheritedLock implements Disposable {
  readonly #fd: FileDescriptor;

  /** Waits for the lock of a file. Throws a LinuxError if the file is missing. */
  constructor(path: string) {
    this.#fd = open(path, O_RDONLY); // without O_CLOEXEC
    flock(this.#fd, LOCK_SH);
  }

  /** Frees it, also if a child process goes on. */
  [Symbol.dispose](): void {
    flock(this.#fd, LOCK_UN);
    this.#fd[Symbol.dispose]();
  }
}
