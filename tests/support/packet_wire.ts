/**
 * A wire made up: frames go from one device's packet socket to another's by way of this program, which may change them.
 *
 * @module
 */

import { findLink, NetlinkSocket, type NetworkNamespace, PacketSocket } from "@denim/core/linux";

const POLL_MS = 1;

/** What a wire does to frames. */
export interface WireEffects {
  /** Takes a frame that came in, and sends on what is to come out. */
  pass(frame: Uint8Array<ArrayBuffer>, to: PacketSocket): void;
  /** Called when all frames that had come in are passed. */
  passed?(): void;
}

/** Joins two devices of a namespace. Frames travel until it is disposed of. */
export class PacketWire implements AsyncDisposable {
  readonly #sockets: readonly PacketSocket[];
  readonly #carrying: Promise<void>;
  #stopped = false;

  /** Begins to carry. */
  constructor(
    namespace: NetworkNamespace,
    devices: readonly [string, string],
    effects: WireEffects,
  ) {
    this.#sockets = namespace.run(() => {
      using netlink = new NetlinkSocket();
      return devices.map((name) => new PacketSocket(findLink(netlink, name)!.index));
    });
    this.#carrying = this.#carry(effects);
  }

  async #carry(effects: WireEffects): Promise<void> {
    const [a, b] = this.#sockets as [PacketSocket, PacketSocket];
    while (!this.#stopped) {
      for (const [from, to] of [[a, b], [b, a]] as const) {
        for (const frame of from.frames()) effects.pass(frame, to);
      }
      effects.passed?.();
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
