/**
 * A device whose checksum offload is broken, made up: frames go from one packet socket to the other by way of this
 * program, which completes no checksum that the sender's kernel left to the device.
 *
 * @module
 */

import { findLink, NetlinkSocket, type NetworkNamespace, PacketSocket } from "@denim/core/linux";

const POLL_MS = 1;
/** Where an Ethernet frame has IPv4's protocol, and behind 20 bytes of IPv4 the UDP port and checksum. */
const PROTOCOL = 14 + 9, PORT = 14 + 20 + 2, CHECKSUM = 14 + 20 + 6;

/** Joins two devices of a namespace. Frames travel until it is disposed of. */
export class CarelessWire implements AsyncDisposable {
  readonly #sockets: readonly PacketSocket[];
  readonly #carrying: Promise<void>;
  #stopped = false;

  /** The outer checksum of tunnel packets to `port` is left out, which a receiver allows; those inside stay undone. */
  constructor(namespace: NetworkNamespace, devices: readonly [string, string], port: number) {
    this.#sockets = namespace.run(() => {
      using netlink = new NetlinkSocket();
      return devices.map((name) => new PacketSocket(findLink(netlink, name)!.index));
    });
    this.#carrying = this.#carry(port);
  }

  async #carry(port: number): Promise<void> {
    const [a, b] = this.#sockets as [PacketSocket, PacketSocket];
    while (!this.#stopped) {
      for (const [from, to] of [[a, b], [b, a]] as const) {
        for (const frame of from.frames()) {
          const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
          if (frame[PROTOCOL] === 17 && view.getUint16(PORT) === port) view.setUint16(CHECKSUM, 0);
          to.send(frame);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  /** Stops carrying. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    await this.#carrying;
    for (const socket of this.#sockets) socket[Symbol.dispose]();
  }
}
