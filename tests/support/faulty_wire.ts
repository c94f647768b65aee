/**
 * A wire between two nodes that loses, doubles and reorders datagrams, for kernels without netem.
 *
 * @module
 */

import type { NetworkNamespace, PacketSocket } from "@denim/core/linux";
import { checksumOf } from "./packet.ts";
import { PacketWire } from "./packet_wire.ts";

/** How much goes wrong, from 0 to 1. */
export interface Faults {
  /** How many datagrams are lost. */
  readonly loss: number;
  /** How many arrive twice. */
  readonly duplication: number;
  /** How many arrive after the next ones. */
  readonly reordering: number;
}

const ETHERNET = 14, IPV4 = 20, UDP = 8;

/** Joins two devices of a namespace. Frames travel until it is disposed of. */
export class FaultyWire implements AsyncDisposable {
  readonly #wire: PacketWire;
  readonly #faults: Faults;
  #state = 0x9e37_79b9;
  #held: (() => void)[] = [];
  /** How many datagrams were lost, arrived twice, and arrived late. */
  readonly counts: { lost: number; doubled: number; late: number } = {
    lost: 0,
    doubled: 0,
    late: 0,
  };

  /** Datagrams to `port` over IPv4 meet with faults, all else passes. The same faults in every run. */
  constructor(
    namespace: NetworkNamespace,
    devices: readonly [string, string],
    port: number,
    faults: Faults,
  ) {
    this.#faults = faults;
    this.#wire = new PacketWire(namespace, devices, {
      pass: (frame, to) => {
        const datagrams = split(frame, port);
        if (datagrams === undefined) to.send(frame);
        else for (const datagram of datagrams) this.#pass(to, datagram);
      },
      passed: () => {
        for (const send of this.#held.splice(0)) send();
      },
    });
  }

  #pass(to: PacketSocket, frame: Uint8Array<ArrayBuffer>): void {
    const { loss, duplication, reordering } = this.#faults;
    if (this.#chance(loss)) {
      this.counts.lost++;
      return;
    }
    if (this.#chance(reordering)) {
      this.counts.late++;
      this.#held.push(() => to.send(frame));
    } else to.send(frame);
    if (this.#chance(duplication)) {
      this.counts.doubled++;
      to.send(frame);
    }
  }

  #chance(share: number): boolean {
    this.#state = Math.imul(this.#state, 1664525) + 1013904223;
    return (this.#state >>> 0) / 2 ** 32 < share;
  }

  /** Stops carrying. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#wire[Symbol.asyncDispose]();
  }
}

/**
 * The datagrams in a frame, each a frame by itself: a sender's kernel hands many over as one if the device
 * is to cut them. `undefined` for any other frame.
 */
function split(frame: Uint8Array, port: number): Uint8Array<ArrayBuffer>[] | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  const data = ETHERNET + IPV4 + UDP;
  const ours = frame.length > data && view.getUint16(12) === 0x0800 && frame[ETHERNET] === 0x45 &&
    frame[ETHERNET + 9] === 17 && view.getUint16(ETHERNET + IPV4 + 2) === port;
  if (!ours) return undefined;
  return innerPackets(frame.subarray(data)).map((packet) => {
    const datagram = new Uint8Array(data + packet.length);
    datagram.set(frame.subarray(0, data));
    datagram.set(packet, data);
    const out = new DataView(datagram.buffer);
    out.setUint16(ETHERNET + 2, IPV4 + UDP + packet.length);
    out.setUint16(ETHERNET + 10, 0);
    const header = [...datagram.subarray(ETHERNET, ETHERNET + IPV4)];
    out.setUint16(ETHERNET + 10, checksumOf(header));
    out.setUint16(ETHERNET + IPV4 + 4, UDP + packet.length);
    // The device would have done it; without one it is not looked at.
    out.setUint16(ETHERNET + IPV4 + 6, 0);
    return datagram;
  });
}

/** The IPv4 packets that stand one behind the other; one that is cut short is left out. */
export function innerPackets(data: Uint8Array): Uint8Array[] {
  const packets = [];
  for (let at = 0; at + 20 <= data.length;) {
    const length = data[at + 2]! * 256 + data[at + 3]!;
    if (length < 20 || at + length > data.length) break;
    packets.push(data.subarray(at, at + length));
    at += length;
  }
  return packets;
}
