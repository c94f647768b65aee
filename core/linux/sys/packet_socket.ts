/**
 * Captures the frames of a device (packet(7)).
 *
 * @module
 */

import { type FileDescriptor } from "./libc.ts";
import { bind, receive, send, setsockopt, socket } from "./sockets.ts";
import {
  AF_PACKET,
  ETH_P_ALL,
  MSG_DONTWAIT,
  SO_RCVBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_RAW,
  SOL_SOCKET,
} from "../uapi/socket.ts";

/** struct sockaddr_ll: family, protocol, ifindex, hatype, pkttype, halen, addr. */
const SOCKADDR_LL_LEN = 20;
const MAX_FRAME_BYTES = 65_535;
/** Room for the frames that come until the next call of `frames`. */
const RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024;

const networkOrder = (value: number) => ((value & 255) << 8) | (value >> 8);

/** Captures every frame that a device of this thread's namespace sends or receives. Needs CAP_NET_RAW. */
export class PacketSocket implements Disposable {
  readonly #fd: FileDescriptor;
  readonly #buffer = new Uint8Array(new ArrayBuffer(MAX_FRAME_BYTES));

  /** Starts to listen on the device with this index. The kernel keeps frames until they are read. */
  constructor(index: number) {
    // Without a protocol until it is bound to a device, so that it gets no other device's frames before.
    using undo = new DisposableStack();
    this.#fd = undo.use(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
    setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, new Uint32Array([RECEIVE_BUFFER_BYTES]));
    const address = new Uint8Array(SOCKADDR_LL_LEN);
    const view = new DataView(address.buffer);
    view.setUint16(0, AF_PACKET, true);
    view.setUint16(2, networkOrder(ETH_P_ALL), true);
    view.setInt32(4, index, true);
    bind(this.#fd, address);
    undo.move();
  }

  /** The frames captured since the last call, in order, each a copy. Does not wait. */
  frames(): Uint8Array<ArrayBuffer>[] {
    const frames = [];
    for (;;) {
      const length = receive(this.#fd, this.#buffer, MSG_DONTWAIT);
      if (length < 0) return frames;
      frames.push(this.#buffer.slice(0, length));
    }
  }

  /** Sends a frame by the device, unchanged. Throws a LinuxError. */
  send(frame: Uint8Array<ArrayBuffer>): void {
    send(this.#fd, frame);
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }
}
