/**
 * What the agent and the threads that carry packets say to each other. Nothing of it is said at a packet: then
 * they share memory.
 *
 * @module
 */

import type { Family } from "@denim/core/ip";
import type { InboundOptions } from "./inbound.ts";
import type { OutboundOptions } from "./outbound.ts";

/** What a thread needs. Descriptors are numbers: a process's threads share them. */
export interface CarrierSetup {
  /** The peers' table … */
  readonly peers: SharedArrayBuffer;
  /** … and its capacity. */
  readonly capacity: number;
  /** The counters … */
  readonly counters: SharedArrayBuffer;
  /** … and which of them are this thread's. */
  readonly number: number;
  /** The queue of the TUN device. */
  readonly tun: number;
  /** Readable when the thread shall end. */
  readonly wake: number;
  /** The UDP sockets. */
  readonly sockets: ReadonlyMap<Family, number>;
  /** Sockets for ICMP errors. */
  readonly rawSockets: ReadonlyMap<Family, number>;
  /** How it carries packets to the peers, if it does. */
  readonly outbound: OutboundOptions | undefined;
  /** How it carries packets from the peers, if it does. */
  readonly inbound: InboundOptions | undefined;
}

/** What a thread is told: the first time what it needs, and that it shall carry packets again. */
export type CarrierOrder = CarrierSetup | "go on";

/** What a thread says: it carries packets; its device is gone, and it waits for "go on"; it has ended; it failed. */
export type CarrierReport = "running" | "gone" | "ended" | CarrierFailure;

/** Why a thread carries nothing any more. */
export interface CarrierFailure {
  /** The error, which has lost its class between the threads, but has its message and stack. */
  readonly error: unknown;
  /** Whether it is a defect of denim, as `isDefect` says where it still has its class. */
  readonly defect: boolean;
}
