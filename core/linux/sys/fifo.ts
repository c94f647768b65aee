/**
 * Named pipes (fifo(7)). An end that is opened for reading and writing is never without its other half, so that opening
 * it never waits.
 *
 * @module
 */

import { O_CLOEXEC, O_NONBLOCK, O_RDWR, O_WRONLY } from "../uapi/socket.ts";
import { checked, cString, errno, FileDescriptor, libc, open, read } from "./libc.ts";
import { EAGAIN, EINTR, ENOENT, ENXIO, LinuxError } from "./linux_error.ts";
import { pollInput, pollOutput } from "./poll.ts";

/** Who may use a FIFO: its owner alone. */
const OWNER_ALONE = 0o600;
/** What a pipe takes in one piece, also among other writers (`PIPE_BUF`, pipe(7)), in bytes. */
const PIPE_BUF = 4096;

/** Makes a FIFO that its owner alone may open. Throws a LinuxError if something is at the path. */
export function makeFifo(path: string): void {
  checked(libc.mkfifo(cString(path), OWNER_ALONE), `make the FIFO ${path}`);
}

/** The end of a FIFO at which many writers' lines arrive, each of them whole if it is no longer than `PIPE_BUF`. */
export class FifoReader implements Disposable {
  readonly #fd: FileDescriptor;
  readonly #chunk = new Uint8Array(PIPE_BUF);

  /** Opens a FIFO. */
  constructor(path: string) {
    this.#fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  }

  /** The descriptor's number: `/proc/PID/fd/N` shows others that this process listens. */
  get fd(): number {
    return this.#fd.fd;
  }

  /** Waits for lines on this thread, and reads those that are there; none if none came in time. */
  lines(timeoutMs: number): readonly string[] {
    if (!pollInput(this.#fd, timeoutMs)) return [];
    const decoder = new TextDecoder();
    let text = "";
    do {
      const length = read(this.#fd, this.#chunk);
      if (length <= 0) break;
      text += decoder.decode(this.#chunk.subarray(0, length), { stream: true });
    } while (!text.endsWith("\n"));
    return text.split("\n").filter((line) => line !== "");
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }
}

/** The end of a FIFO that one process writes to. */
export class FifoWriter implements Disposable {
  readonly #fd: FileDescriptor;

  private constructor(fd: FileDescriptor) {
    this.#fd = fd;
  }

  /** Opens a FIFO that somebody reads; `undefined` if nobody does. Throws a LinuxError for what is none. */
  static open(path: string): FifoWriter | undefined {
    const fd = libc.open(cString(path), O_WRONLY | O_NONBLOCK | O_CLOEXEC, 0);
    if (fd >= 0) return new FifoWriter(new FileDescriptor(fd));
    const error = errno();
    if (error === ENXIO || error === ENOENT) return undefined;
    throw new LinuxError(error, `open the FIFO ${path}`);
  }

  /**
   * Writes a text. Throws a LinuxError if the reader is gone (EPIPE), or if it reads nothing for so long that there is no
   * more room (EAGAIN).
   */
  write(text: string, patienceMs: number): void {
    const bytes = new TextEncoder().encode(text);
    for (let done = 0; done < bytes.length;) {
      const rest = bytes.subarray(done);
      const length = Number(libc.write(this.#fd.fd, rest, BigInt(rest.length)));
      if (length >= 0) {
        done += length;
        continue;
      }
      const error = errno();
      if (error === EINTR || error === EAGAIN && pollOutput(this.#fd, patienceMs)) continue;
      throw new LinuxError(error, "write to a FIFO");
    }
  }

  /** Closes it: its reader then finds the end. */
  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }
}
