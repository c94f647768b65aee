/**
 * Ends the waits of threads that are in a system call (eventfd(2)).
 *
 * @module
 */

import { type FileDescriptor } from "./libc.ts";
import { eventfd, notify } from "./poll.ts";

/** An eventfd that is never read: once it is readable it stays so, for every thread that waits for it. */
export class Wake implements Disposable {
  readonly #descriptor: FileDescriptor = eventfd();

  /** The descriptor's number, for a wait. */
  get fd(): number {
    return this.#descriptor.fd;
  }

  /** Ends the waits. */
  wake(): void {
    notify(this.#descriptor);
  }

  /** Closes the descriptor. */
  [Symbol.dispose](): void {
    this.#descriptor[Symbol.dispose]();
  }
}
