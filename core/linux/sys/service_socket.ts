/**
 * Messages to the service manager (sd_notify(3)), which Deno has no sockets for.
 *
 * @module
 */

import { AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM } from "../uapi/socket.ts";
import { unixAddress } from "./socket_address.ts";
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
