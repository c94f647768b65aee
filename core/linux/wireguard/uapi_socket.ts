/**
 * A WireGuard program's socket, on which it is configured (the cross-platform userspace interface of wireguard.com):
 * a request is lines `key=value` and an empty one, and so is the answer, which ends with `errno=`.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import type { FileDescriptor } from "../sys/libc.ts";
import { EAGAIN, ECONNREFUSED, EINVAL, EIO, LinuxError } from "../sys/linux_error.ts";
import { unixAddress } from "../sys/socket_address.ts";
import { connect, receive, send, setsockopt, socket } from "../sys/sockets.ts";
import { AF_UNIX, SO_RCVTIMEO, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET } from "../uapi/socket.ts";

/** Where WireGuard programs have their sockets. */
const FOLDER = "/var/run/wireguard";
/** A program that has not answered after this long does not. */
const ANSWER_TIMEOUT_S = 5n;
const RECEIVE_BYTES = 64 * 1024;

/** The path of the socket of the program that has a device. */
function uapiPath(device: string): string {
  return `${FOLDER}/${device}.sock`;
}

/** A connection to the program that has a device. */
export class UapiSocket implements Disposable {
  readonly #fd: FileDescriptor;
  readonly #device: string;
  readonly #buffer = new Uint8Array(new ArrayBuffer(RECEIVE_BYTES));
  #failure: LinuxError | undefined;

  /** Connects. Throws a LinuxError: ENOENT or ECONNREFUSED if no program has a device of this name. */
  constructor(device: string) {
    this.#device = device;
    using undo = new DisposableStack();
    this.#fd = undo.use(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const timeout = new BigInt64Array([ANSWER_TIMEOUT_S, 0n]);
    setsockopt(this.#fd, SOL_SOCKET, SO_RCVTIMEO, timeout);
    const path = uapiPath(device);
    try {
      connect(this.#fd, unixAddress(path));
    } catch (error) {
      if (!(error instanceof LinuxError)) throw error;
      throw new LinuxError(error.errno, `connect to ${path}`);
    }
    undo.move();
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }

  /** Why the program is not asked any more: an answer that comes late would be taken for another request's. */
  get failure(): LinuxError | undefined {
    return this.#failure;
  }

  /**
   * Makes a request and returns the lines of the answer as keys and values. Throws a LinuxError with what the program
   * says, or if it does not answer, and then at each request; none has the request's text, which may hold secrets.
   */
  ask(request: string): (readonly [key: string, value: string])[] {
    if (this.#failure !== undefined) throw this.#failure;
    const what = `ask the WireGuard program of ${this.#device}`;
    const text = this.#exchange(request, what);
    const lines = text.trimEnd().split("\n").map((line) => {
      const at = line.indexOf("=");
      return [line.slice(0, at), line.slice(at + 1)] as const;
    });
    const [key, value] = lines.pop()!;
    const errno = key === "errno" ? Math.abs(Number(value)) : EINVAL;
    if (errno !== 0) throw new LinuxError(errno || EIO, what);
    return lines;
  }

  #exchange(request: string, what: string): string {
    const bytes = new TextEncoder().encode(`${request}\n`);
    for (let sent = 0; sent < bytes.length;) sent += send(this.#fd, bytes.slice(sent));
    const decoder = new TextDecoder();
    let text = "";
    while (!text.endsWith("\n\n")) {
      const length = receive(this.#fd, this.#buffer);
      if (length <= 0) {
        throw this.#failure = length < 0
          ? new LinuxError(EAGAIN, what, "it gave no answer")
          : new LinuxError(ECONNREFUSED, what, "it ended");
      }
      text += decoder.decode(this.#buffer.subarray(0, length), { stream: true });
    }
    return text;
  }
}

/** Whether a program answers for a device. */
export function hasProgram(device: string): boolean {
  try {
    using _socket = new UapiSocket(device);
    return true;
  } catch (error) {
    throwDefect(error);
    return false;
  }
}
