/**
 * The thread that carries packets from the peers to one queue of the TUN device. It spends its life in
 * system calls, which on a thread of its own may block.
 *
 * @module
 */

/// <reference lib="deno.worker" />

import {
  InputWait,
  INTERRUPTED,
  NOTHING_YET,
  recvmsg,
  takeShortTurns,
  writev,
} from "@denim/core/linux/packet-io";
import { Counters } from "./counters.ts";
import { Inbound } from "./inbound.ts";
import { PeerMap } from "./peer_map.ts";
import {
  type InboundSetup,
  TURN_US,
  type WorkerOrder,
  type WorkerReport,
} from "./worker_messages.ts";

/** As often as one socket is read while the other one may wait. */
const TURN = 64;

/** Makes the loop that carries packets until it shall end. */
function prepare(setup: InboundSetup): () => WorkerReport {
  const { tun } = setup;
  const sockets = [...setup.sockets.values()];
  const peers = new PeerMap(setup.peers, setup.capacity);
  const counters = new Counters(setup.counters, setup.capacity, setup.worker);
  const kernel = {
    write(count: number) {
      for (;;) {
        const result = writev(tun, iovec, count);
        if (result !== INTERRUPTED) return result;
      }
    },
  };
  const inbound = new Inbound(peers, counters, kernel, setup.options);
  const message = inbound.memory.pointer(inbound.message);
  const iovec = inbound.memory.pointer(inbound.writeIovec);
  const input = new InputWait([...sockets, setup.wake]);

  /** Takes what a socket has, up to a turn's worth; whether it may have more. */
  const drain = (socket: number) => {
    for (let count = 0; count < TURN; count++) {
      inbound.prepareReceive();
      const result = recvmsg(socket, message);
      if (result >= 0) inbound.take(result);
      else if (result === NOTHING_YET) return false;
      else if (result !== INTERRUPTED) throw new Error(`receiving datagrams: errno ${-result}`);
    }
    return true;
  };

  return () => {
    while (!peers.stopped) {
      let more = false;
      for (const socket of sockets) more = drain(socket) || more;
      if (!more) input.wait();
    }
    return "ended";
  };
}

let carry: (() => WorkerReport) | undefined;

self.onmessage = ({ data }: MessageEvent<WorkerOrder<InboundSetup>>) => {
  if (data !== "go on") {
    takeShortTurns(TURN_US);
    carry = prepare(data.setup);
  }
  self.postMessage("running" satisfies WorkerReport);
  self.postMessage(carry!());
};
