/**
 * Messages between the agent and the threads that carry packets: when a thread starts, stops or fails. All else they
 * share in memory.
 *
 * @module
 */

import type { Family } from "@denim/core/ip";
import type { InboundOptions } from "./inbound.ts";
import type { OutboundOptions } from "./outbound.ts";

/** What a thread needs. Descriptors are numbers: a process's threads share them. */
export interface CarrierSetup {
  /** The peers' table. */
  readonly peers: SharedArrayBuffer;
  /** The table's capacity, and the counters'. */
  readonly capacity: number;
  /** The counters of all threads. */
  readonly counters: SharedArrayBuffer;
  /** Which of the counters are this thread's. */
  readonly number: number;
  /** The queue of the TUN device. */
  readonly tun: number;
  /** A descriptor that becomes readable when the thread is to end. */
  readonly wake: number;
  /** The UDP sockets. */
  readonly sockets: ReadonlyMap<Family, number>;
  /** Sockets for ICMP errors. */
  readonly rawSockets: ReadonlyMap<Family, number>;
  /** How it carries packets to the peers; `undefined` if another thread does. */
  readonly outbound: OutboundOptions | undefined;
  /** How it carries packets from the peers; `undefined` if another thread does. */
  readonly inbound: InboundOptions | undefined;
}

/** What the agent tells a thread: to carry packets, with all that it needs; or to go on, after its device was gone. */
export type CarrierOrder = CarrierSetup | "go on";

/** What a thread tells the agent: it carries packets; its device is gone, and it waits for "go on"; it ended; it failed. */
export type CarrierReport = "running" | "gone" | "ended" | CarrierFailure;

/** Why a thread carries nothing any more. */
export interface CarrierFailure {
  /** The error. On its way between the threads it lost its class, but not its message and its stack. */
  readonly error: unknown;
  /** Whether it is a defect of denim; the thread knows, since there the error still has its class. */
  readonly defect: boolean;
}
