/**
 * A backend of one's own: pods' packets travel in TCP connections, for networks that let nothing else
 * through. `tunSession` does what every data path in user space has to; here is what is TCP's.
 *
 * @module
 */

import {
  anyCase,
  type Backend,
  type NodeContext,
  type PeerHalf,
  sleep,
  throwDefect,
} from "@denim/core";
import { tunSession } from "@denim/backends/tun-session";
import * as z from "zod";

/** The backend, for `runAgent`. A node has nothing to tell its peers but where it is. */
export const tcp: Backend<{ readonly Port: number }, unknown> = {
  type: "tcp",
  leaseType: "tcp",
  // What net-conf's `Backend` may say beside its `Type`: the port on which every node listens.
  options: anyCase(z.object({ Port: z.int().min(1).max(65_535).default(8477) })),
  peerData: z.unknown(),
  open: (node, { Port }) =>
    Promise.resolve(tunSession(node, {
      device: "denim-tcp",
      mtuBytes: node.outer.mtuBytes, // a stream adds nothing to a packet that the pod could notice
      start(receive, signal) {
        for (const address of node.outer.addresses.values()) {
          const listener = Deno.listen({ hostname: `${address}`, port: Port });
          accept(listener, receive, node, signal).catch(node.fail);
        }
        return connector(node, Port, signal);
      },
    })),
};

/** How many packets wait for a connection before more are dropped, as a device would. */
const QUEUED_PACKETS = 1000;
/** The wait before a connection that failed is tried again. */
const RETRY_MS = 200;

type Queue = ReadableStreamDefaultController<Uint8Array>;

/** Sends packets to peers, to each by a connection that the first packet opens. */
function connector({ log, fail }: NodeContext, port: number, signal: AbortSignal) {
  const queues = new Map<string, Queue>();
  const connect = (hostname: string) => {
    const frames = new ReadableStream<Uint8Array>(
      { start: (queue) => void queues.set(hostname, queue) },
      { highWaterMark: QUEUED_PACKETS },
    );
    Deno.connect({ hostname, port })
      .then((connection) => {
        connection.setNoDelay();
        return frames.pipeTo(connection.writable, { signal });
      })
      .catch((error) => {
        throwDefect(error); // a mistake in this file must end the agent, not be tried again
        log.debug("tcp-connection-failed", `tcp: ${hostname}: ${error}`);
      })
      .then(() => sleep(RETRY_MS, signal))
      .then(() => queues.delete(hostname))
      .catch(fail);
  };
  return ({ publicIp }: PeerHalf<unknown>, packet: Uint8Array) => {
    const hostname = `${publicIp}`;
    if (!queues.has(hostname)) connect(hostname);
    const queue = queues.get(hostname)!;
    if (!((queue.desiredSize ?? 0) > 0)) return;
    // Each packet goes with its length before it, in two bytes.
    const frame = new Uint8Array(2 + packet.length);
    new DataView(frame.buffer).setUint16(0, packet.length);
    frame.set(packet, 2);
    queue.enqueue(frame);
  };
}

type Receive = (packet: Uint8Array, from: string) => void;

/** Hands on what comes in by the connections that others open. */
async function accept(
  listener: Deno.TcpListener,
  receive: Receive,
  { fail }: NodeContext,
  signal: AbortSignal,
) {
  signal.addEventListener("abort", () => listener.close());
  for await (const connection of listener) {
    // Its node is away, or opens another connection.
    readPackets(connection, receive).catch(throwDefect).catch(fail);
  }
}

async function readPackets(connection: Deno.TcpConn, receive: Receive) {
  let bytes = new Uint8Array(0);
  for await (const chunk of connection.readable) {
    const joined = new Uint8Array(bytes.length + chunk.length);
    joined.set(bytes);
    joined.set(chunk, bytes.length);
    let at = 0;
    for (
      let end;
      (end = at + 2 + (joined[at]! << 8 | joined[at + 1]!)) <= joined.length;
      at = end
    ) {
      receive(joined.subarray(at + 2, end), connection.remoteAddr.hostname);
    }
    bytes = joined.slice(at);
  }
}
