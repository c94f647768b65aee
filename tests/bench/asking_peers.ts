/**
 * Stand-ins for the agents of thousands of peers, as far as one agent notices them: each takes turns with it, as
 * `agent/mesh/prober.ts` does. What the peers' kernels do, a kernel does.
 *
 * @module
 */

import { type Cidr, IpAddress, sleep } from "@denim/core";
import type { NetworkNamespace } from "@denim/core/linux/namespace";
import { ICMP_TYPE, PROBE_MAGIC } from "../../core/linux/probe/probe_filter.ts";
import type { FileDescriptor } from "../../core/linux/sys/libc.ts";
import { socketAddress } from "../../core/linux/sys/socket_address.ts";
import { receive, send, setsockopt, socket } from "../../core/linux/sys/sockets.ts";
import {
  AF_INET,
  IPPROTO_ICMP,
  IPPROTO_RAW,
  MSG_DONTWAIT,
  SO_RCVBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_RAW,
  SOL_SOCKET,
} from "../../core/linux/uapi/socket.ts";
import { checksumOf } from "../support/packet.ts";

/**
 * Who has asked does so again after so long, who was asked a little sooner, but after a time at the most; in seconds. Of so
 * many questions one is a datagram.
 */
const REST_SECONDS = 60, LEAD_SECONDS = 2, MAX_PUT_OFF_SECONDS = 180, DATAGRAM_TURNS = 32;
/** The largest packet that VXLAN carries over an underlay of 1,500 bytes. */
const PACKET_BYTES = 1450;
/** Where headers have what matters here (RFC 791, RFC 792), and the tag of a question over the data path. */
const IP_LEN = 20, TTL = 8, PROTOCOL = 9, SOURCE = 12, DESTINATION = 16, CHECKSUM = 2;
const TAG = 1;

/** What is known to one peer's agent of the one that it asks. */
interface AskingPeer {
  readonly address: Uint8Array;
  dueSecond: number;
  turnSecond: number;
  turns: number;
}

/** Agents of peers, in the namespace of the node that plays these. */
export class AskingPeers implements Disposable {
  readonly #own: IpAddress;
  readonly #peers: readonly AskingPeer[];
  readonly #byAddress: ReadonlyMap<string, AskingPeer>;
  readonly #open = new DisposableStack();
  readonly #questions: FileDescriptor;
  readonly #answers: FileDescriptor;
  readonly #packet = new DataView(new ArrayBuffer(PACKET_BYTES));
  readonly #received = new Uint8Array(128);

  /** Asks nothing yet. `own` is the address of the node that is asked, `subnets` are the peers'. */
  constructor(namespace: NetworkNamespace, own: IpAddress, subnets: readonly Cidr[]) {
    this.#own = own;
    this.#peers = subnets.map(({ address }, index) => ({
      address: address.toBytes(),
      // In another order than that of the node's own turns.
      dueSecond: index * 37 % REST_SECONDS,
      turnSecond: 0,
      turns: index % DATAGRAM_TURNS,
    }));
    this.#byAddress = new Map(this.#peers.map((peer) => [peer.address.join("."), peer]));
    const raw = (protocol: number) => {
      const open = () => socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, protocol);
      return this.#open.use(namespace.run(open));
    };
    this.#questions = raw(IPPROTO_RAW);
    this.#answers = raw(IPPROTO_ICMP);
    setsockopt(this.#answers, SOL_SOCKET, SO_RCVBUFFORCE, new Uint32Array([4 * 1024 * 1024]));
    const packet = this.#packet;
    packet.setUint8(0, 0x45);
    packet.setUint8(TTL, 64);
    packet.setUint8(PROTOCOL, IPPROTO_ICMP);
    new Uint8Array(packet.buffer).set(own.toBytes(), DESTINATION);
    packet.setUint8(IP_LEN, ICMP_TYPE[4].request);
    packet.setUint32(IP_LEN + 8, PROBE_MAGIC);
    packet.setUint32(IP_LEN + 12, TAG);
    const icmp = new Uint8Array(packet.buffer, IP_LEN);
    packet.setUint16(IP_LEN + CHECKSUM, checksumOf([...icmp]));
  }

  /** Closes the sockets. */
  [Symbol.dispose](): void {
    this.#open[Symbol.dispose]();
  }

  /** Asks until the signal is aborted. */
  async run(signal: AbortSignal): Promise<void> {
    for (let second = 0; await sleep(1000, signal); second++) {
      this.#listen(second);
      for (const peer of this.#peers) if (peer.dueSecond <= second) this.#turn(peer, second);
    }
  }

  /** Takes the questions of the node. */
  #listen(second: number): void {
    const bytes = this.#received;
    while (receive(this.#answers, bytes, MSG_DONTWAIT) >= 0) {
      if (bytes[IP_LEN] !== ICMP_TYPE[4].request) continue;
      const peer = this.#byAddress.get(bytes.subarray(DESTINATION, DESTINATION + 4).join("."));
      if (peer === undefined) continue;
      peer.dueSecond = Math.min(
        second + REST_SECONDS - LEAD_SECONDS,
        peer.turnSecond + MAX_PUT_OFF_SECONDS,
      );
    }
  }

  #turn(peer: AskingPeer, second: number): void {
    peer.turnSecond = second;
    peer.dueSecond = second + REST_SECONDS;
    // An agent does not notice a datagram.
    if (++peer.turns % DATAGRAM_TURNS === 0) return;
    new Uint8Array(this.#packet.buffer).set(peer.address, SOURCE);
    send(
      this.#questions,
      new Uint8Array(this.#packet.buffer),
      PACKET_BYTES,
      socketAddress(this.#own, 0),
    );
  }
}
