/**
 * A device whose checksum offload is broken, made up: a wire that completes no checksum that the sender's kernel left to
 * the device.
 *
 * @module
 */

import type { NetworkNamespace } from "@denim/core/linux";
import { PacketWire } from "./packet_wire.ts";

/** Where an Ethernet frame has IPv4's protocol, and behind 20 bytes of IPv4 the UDP port and checksum. */
const PROTOCOL = 14 + 9, PORT = 14 + 20 + 2, CHECKSUM = 14 + 20 + 6;

/**
 * Joins two devices of a namespace. The outer checksum of tunnel packets to `port` is left out, which a receiver allows;
 * those inside stay undone.
 */
export function carelessWire(
  namespace: NetworkNamespace,
  devices: readonly [string, string],
  port: number,
): PacketWire {
  return new PacketWire(namespace, devices, {
    pass(frame, to) {
      const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
      if (frame[PROTOCOL] === 17 && view.getUint16(PORT) === port) view.setUint16(CHECKSUM, 0);
      to.send(frame);
    },
  });
}
