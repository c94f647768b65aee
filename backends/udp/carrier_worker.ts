/**
 * A thread that carries packets: from one queue of the TUN device to the peers, from the peers to that queue,
 * or both in turns. It spends its life in system calls, which on a thread of its own may block.
 *
 * @module
 */

/// <reference lib="deno.worker" />

import { isDefect } from "@denim/core/errors";
import { type Family, IpAddress } from "@denim/core/ip";
import {
  DEVICE_GONE,
  errorOf,
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
 * How long the thread runs at a stretch while others wait for the processor, in microseconds. With Linux's usual
 * 3 ms it fills the buffer of a pod's socket before the pod gets to read.
 */
const TURN_US = 100;
/**
 * How often the thread lets others run and looks again before it sleeps, after it has carried much. To be woken costs
 * more, and the kernel would wake it on the processor of the thread that wakes it.
 */
const LOOKS = 5;
/** This many bytes in a turn are much. */
const MUCH_BYTES = 16 * 1024;
/** What one direction carries before the other has its turn: packets and bytes out, and series in. */
const OUT_PACKETS = 64, OUT_BYTES = 128 * 1024, IN_SERIES = 8;

/**
 * Carries what is there, up to a turn's worth, and says how much it was; there may be more.
 *
 * @param fresh whether it is the first turn after a wait
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
    pathMtuBytes: (address) => pathMtuBytes(address.toAddress()),
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
      // After a wait the first packet goes at once: its sender is probably waiting for an answer.
      if (fresh && packets === 0) outbound.flushSingle();
    }
    // A batch that is not full waits for one more turn: packets that just arrived may call forth the next one.
    if (packets > 0 || result === INTERRUPTED) return bytes > MUCH_BYTES ? "much" : "some";
    outbound.flush();
    if (result === NOTHING_YET) return "nothing";
    if (result === DEVICE_GONE) return "gone";
    throw errorOf(result, "read from the TUN device");
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
        if (result < 0 && result !== INTERRUPTED) throw errorOf(result, "receive datagrams");
        if (result >= 0) inbound.take(result);
        packets++;
        bytes += result;
      }
    }
    return packets === 0 ? "nothing" : bytes > MUCH_BYTES ? "much" : "some";
  };
}

/** Makes the loop that carries packets until the agent stops it or the device is gone. */
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
    // After a wait, only the directions that have input take a turn; then both, until neither finds anything.
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

const report: (report: CarrierReport) => void = (report) => self.postMessage(report);

self.onmessage = ({ data }: MessageEvent<CarrierOrder>) => {
  try {
    if (data !== "go on") carry = prepare(data);
    report("running");
    report(carry!());
  } catch (error) {
    report({ error, defect: isDefect(error) });
  }
};
