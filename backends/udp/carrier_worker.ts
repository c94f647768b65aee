/**
 * A thread that carries packets: from one queue of the TUN device to the peers, from the peers to that queue,
 * or both in turns. It spends its life in system calls, which on a thread of its own may block.
 *
 * @module
 */

/// <reference lib="deno.worker" />

import { type Family, IpAddress } from "@denim/core/ip";
import {
  DEVICE_GONE,
  InputWait,
  INTERRUPTED,
  NOTHING_YET,
  readv,
  recvmsg,
  sendmsg,
  takeShortTurns,
  writev,
  yieldProcessor,
} from "@denim/core/linux/packet-io";
import { forbidFragments, pathMtuBytes, sendRaw } from "@denim/core/linux/udp-socket";
import { Anticipation } from "./anticipation.ts";
import type { CarrierOrder, CarrierReport, CarrierSetup } from "./carrier_messages.ts";
import { Counters } from "./counters.ts";
import { Inbound } from "./inbound.ts";
import { Outbound, type OutboundKernel } from "./outbound.ts";
import { PeerMap } from "./peer_map.ts";

/**
 * How long the thread runs at a stretch where others wait for the processor, in microseconds. With Linux's usual
 * 3 ms it fills the buffer of a pod's socket before the pod gets to read.
 */
const TURN_US = 100;
/**
 * How often it lets others run and looks again before it sleeps, where it has carried much: to be woken costs
 * more, and the waker's processor is where it would wake up, beside the waker.
 */
const LOOKS = 5;
/** This many bytes in a turn are much. */
const MUCH_BYTES = 16 * 1024;
/** What one direction carries before the other has its turn: packets and bytes out, and series in. */
const OUT_PACKETS = 64, OUT_BYTES = 128 * 1024, IN_SERIES = 8;

/**
 * Carries what is there, up to a turn's worth; `fresh` is the first turn after there was nothing. Tells how much it
 * was, after which there may be more.
 */
type Turn = (fresh: boolean) => "nothing" | "some" | "much" | "gone";

function outboundTurn(
  setup: CarrierSetup,
  peers: PeerMap,
  counters: Counters,
  options: NonNullable<CarrierSetup["outbound"]>,
): Turn {
  const { tun, sockets } = setup;
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
      const packet = bytes.slice(offset, offset + byteLength);
      const to = addressOf(family, bytes.subarray(destination, destination + 16));
      sendRaw(setup.rawSockets.get(family) ?? -1, packet, to);
    },
    pathMtuBytes(family, ...words) {
      const view = new DataView(new ArrayBuffer(16));
      words.forEach((word, index) => view.setInt32(4 * index, word));
      return pathMtuBytes(addressOf(family, new Uint8Array(view.buffer)));
    },
    nowMs: () => performance.now(),
  };
  const outbound = new Outbound(peers, counters, kernel, options);
  const message = outbound.memory.pointer(outbound.message);
  const iovec = outbound.memory.pointer(outbound.readIovec);
  const { readIovecCount } = outbound;
  return (fresh) => {
    let result = 0, packets = 0, bytes = 0;
    for (; packets < OUT_PACKETS && bytes < OUT_BYTES; packets++) {
      outbound.prepareRead();
      result = readv(tun, iovec, readIovecCount);
      if (result < 0) break;
      outbound.take(result);
      bytes += result;
      // Who speaks into silence waits for an answer: that goes before any look for more.
      if (fresh && packets === 0) outbound.flushSingle();
    }
    // What waits for company waits for one more look: what came in meanwhile may call forth the next packet.
    if (packets > 0 || result === INTERRUPTED) return bytes > MUCH_BYTES ? "much" : "some";
    outbound.flush();
    if (result === NOTHING_YET) return "nothing";
    if (result === DEVICE_GONE) return "gone";
    throw new Error(`reading from the TUN device: errno ${-result}`);
  };
}

function addressOf(family: Family, bytes: Uint8Array): IpAddress {
  return IpAddress.fromBytes(bytes.subarray(0, family === 4 ? 4 : 16));
}

function inboundTurn(
  setup: CarrierSetup,
  peers: PeerMap,
  counters: Counters,
  options: NonNullable<CarrierSetup["inbound"]>,
): Turn {
  const { tun } = setup;
  const sockets = [...setup.sockets.values()];
  const write = (count: number) => {
    for (;;) {
      const result = writev(tun, iovec, count);
      if (result !== INTERRUPTED) return result;
    }
  };
  const inbound = new Inbound(peers, counters, { write }, options);
  const message = inbound.memory.pointer(inbound.message);
  const iovec = inbound.memory.pointer(inbound.writeIovec);

  return () => {
    let packets = 0, bytes = 0;
    for (const socket of sockets) {
      for (let count = 0; count < IN_SERIES; count++) {
        inbound.prepareReceive();
        const result = recvmsg(socket, message);
        if (result === NOTHING_YET) break;
        if (result < 0 && result !== INTERRUPTED) throw new Error(`receiving: errno ${-result}`);
        if (result >= 0) inbound.take(result);
        packets++;
        bytes += result;
      }
    }
    return packets === 0 ? "nothing" : bytes > MUCH_BYTES ? "much" : "some";
  };
}

/** Makes the loop that carries packets until it shall end, or the device is gone. */
function prepare(setup: CarrierSetup): () => CarrierReport {
  takeShortTurns(TURN_US);
  const peers = new PeerMap(setup.peers, setup.capacity);
  const counters = new Counters(setup.counters, setup.capacity, setup.number);
  const { outbound, inbound, tun, wake, sockets } = setup;
  const turns: { readonly turn: Turn; readonly fds: readonly number[] }[] = [];
  if (outbound) turns.push({ turn: outboundTurn(setup, peers, counters, outbound), fds: [tun] });
  if (inbound) {
    turns.push({ turn: inboundTurn(setup, peers, counters, inbound), fds: [...sockets.values()] });
  }
  const fds = [...turns.flatMap((each) => each.fds), wake];
  const input = new InputWait(fds);
  const anticipation = new Anticipation(turns.length);
  return () => {
    // After a wait only those have a turn for whom there is something; then all, until nobody finds any more.
    let fresh: boolean = false, looks = 0;
    while (!peers.stopped) {
      let idle: boolean = !fresh;
      for (const [way, { turn, fds: own }] of turns.entries()) {
        if (fresh && !own.some((fd) => input.found(fds.indexOf(fd)))) continue;
        const found = turn(fresh);
        if (found === "gone") return "gone";
        if (found === "nothing") continue;
        idle = false;
        if (found === "much") looks = LOOKS;
        else anticipation.carried(way, performance.now());
      }
      fresh = idle && looks === 0 && !anticipation.looksOn(performance.now());
      if (fresh) input.wait();
      else if (idle) {
        looks = Math.max(looks - 1, 0);
        yieldProcessor();
      }
    }
    return "ended";
  };
}

let carry: (() => CarrierReport) | undefined;

self.onmessage = ({ data }: MessageEvent<CarrierOrder>) => {
  if (data !== "go on") carry = prepare(data);
  self.postMessage("running" satisfies CarrierReport);
  self.postMessage(carry!());
};
