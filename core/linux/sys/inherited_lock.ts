/**
 * Locks that outlive the process which took them.
 *
 * @module
 */

import { type FileDescriptor, flock, open } from "./libc.ts";
import { LOCK_SH, LOCK_UN, O_RDONLY } from "../uapi/socket.ts";

/**
 * A shared lock of a file (flock(2)) that every program which is started meanwhile has too: where this process
 * is killed, it is free once they have ended. Where the scope ends it is free at once.
 */
export class InheritedLock implements Disposable {
  readonly #fd: FileDescriptor;

  /** Waits for the lock of a file, which must be there; throws a LinuxError otherwise. */
  constructor(path: string) {
    this.#fd = open(path, O_RDONLY); // without O_CLOEXEC
    flock(this.#fd, LOCK_SH);
  }

  /** Frees it, also for a program that goes on in the background. */
  [Symbol.dispose](): void {
    flock(this.#fd, LOCK_UN);
    this.#fd[Symbol.dispose]();
  }
}
