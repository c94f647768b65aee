/**
 * The thread that carries packets from one queue of the TUN device to the peers. It spends its life in
 * system calls, which on a thread of its own may block.
 *
 * @module
 */

/// <reference lib="deno.worker" />

import { IpAddress } from "@denim/core/ip";
import {
  DEVICE_GONE,
  InputWait,
  INTERRUPTED,
  NOTHING_YET,
  readv,
  sendmsg,
  takeShortTurns,
} from "@denim/core/linux/packet-io";
import { forbidFragments, pathMtuBytes, sendRaw } from "@denim/core/linux/udp-socket";
import { Counters } from "./counters.ts";
import { Outbound, type OutboundKernel } from "./outbound.ts";
import { PeerMap } from "./peer_map.ts";
import {
  type OutboundSetup,
  TURN_US,
  type WorkerOrder,
  type WorkerReport,
} from "./worker_messages.ts";

/** Makes the loop that carries packets until it shall end, or the device is gone. */
function prepare(setup: OutboundSetup): () => WorkerReport {
  const { tun, sockets, rawSockets, options } = setup;
  const peers = new PeerMap(setup.peers, setup.capacity);
  const counters = new Counters(setup.counters, setup.capacity, setup.worker);
  const [ipv4 = -1, ipv6 = -1] = [sockets.get(4), sockets.get(6)];

  const send = (socket: number) => {
    for (;;) {
      const result = sendmsg(socket, message);
      if (result !== INTERRUPTED) return result;
    }
  };
  const kernel: OutboundKernel = {
    send(family, fragments) {
      const socket = family === 4 ? ipv4 : ipv6;
      if (!fragments) return send(socket);
      forbidFragments(socket, family, false);
      try {
        return send(socket);
      } finally {
        forbidFragments(socket, family, true);
      }
    },
    sendPacket(family, offset, byteLength, destination) {
      const { bytes } = outbound.memory;
      const to = bytes.slice(destination, destination + (family === 4 ? 4 : 16));
      const packet = bytes.slice(offset, offset + byteLength);
      sendRaw(rawSockets.get(family) ?? -1, packet, IpAddress.fromBytes(to));
    },
    pathMtuBytes(family, a, b, c, d) {
      const bytes = new DataView(new ArrayBuffer(16));
      [a, b, c, d].forEach((word, index) => bytes.setInt32(4 * index, word));
      const address = IpAddress.fromBytes(new Uint8Array(bytes.buffer, 0, family === 4 ? 4 : 16));
      return pathMtuBytes(address);
    },
    nowMs: () => performance.now(),
  };
  const outbound = new Outbound(peers, counters, kernel, options);
  const message = outbound.memory.pointer(outbound.message);
  const iovec = outbound.memory.pointer(outbound.readIovec);
  const { readIovecCount } = outbound;
  const input = new InputWait([tun, setup.wake]);

  return () => {
    while (!peers.stopped) {
      outbound.prepareRead();
      const result = readv(tun, iovec, readIovecCount);
      if (result >= 0) {
        outbound.take(result);
        continue;
      }
      // Nothing more for now: what waits for company goes alone.
      outbound.flush();
      if (result === NOTHING_YET) input.wait();
      else if (result === DEVICE_GONE) return "gone";
      else if (result !== INTERRUPTED) {
        throw new Error(`reading from the TUN device: errno ${-result}`);
      }
    }
    return "ended";
  };
}

let carry: (() => WorkerReport) | undefined;

self.onmessage = ({ data }: MessageEvent<WorkerOrder<OutboundSetup>>) => {
  if (data !== "go on") {
    takeShortTurns(TURN_US);
    carry = prepare(data.setup);
  }
  self.postMessage("running" satisfies WorkerReport);
  self.postMessage(carry!());
};
