/**
 * Messages to the service manager (sd_notify(3)), which Deno has no sockets for.
 *
 * @module
 */

import { AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM } from "../uapi/socket.ts";
import { connect, send, socket } from "./sockets.ts";

/**
 * Sends a message, such as `READY=1\nSTATUS=fine`. Throws a LinuxError.
 *
 * @param path the manager's datagram socket, as `NOTIFY_SOCKET` has it: a path, or `@` and a name without a file
 */
export function sendToServiceManager(path: string, message: string): void {
  using descriptor = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  connect(descriptor, unixAddress(path));
  send(descriptor, new TextEncoder().encode(message));
}

/** `struct sockaddr_un` (unix(7)). An abstract name begins with a zero and ends with the address. */
function unixAddress(path: string): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(path.startsWith("@") ? `\0${path.slice(1)}` : `${path}\0`);
  const bytes = new Uint8Array(2 + name.length);
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  return bytes;
}
