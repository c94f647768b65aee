/**
 * What the agent and its workers say to each other. Nothing of it is said at a packet: then they share
 * memory.
 *
 * @module
 */

import type { Family } from "@denim/core/ip";
import type { InboundOptions } from "./inbound.ts";
import type { OutboundOptions } from "./outbound.ts";

/**
 * How long a worker runs at a stretch where others wait for the processor, in microseconds. With the usual 3 ms
 * it fills the buffer of a pod's socket before the pod gets to read.
 */
export const TURN_US = 100;

/** What a worker needs. Descriptors are numbers: a process's threads share them. */
export interface WorkerSetup {
  /** The peers' table, and its capacity. */
  readonly peers: SharedArrayBuffer;
  readonly capacity: number;
  /** The counters, and which of them are this worker's. */
  readonly counters: SharedArrayBuffer;
  readonly worker: number;
  /** The queue of the TUN device. */
  readonly tun: number;
  /** Readable when the worker shall end. */
  readonly wake: number;
  /** The UDP sockets. */
  readonly sockets: ReadonlyMap<Family, number>;
}

/** What an outbound worker needs. */
export interface OutboundSetup extends WorkerSetup {
  /** Sockets for ICMP errors. */
  readonly rawSockets: ReadonlyMap<Family, number>;
  readonly options: OutboundOptions;
}

/** What an inbound worker needs. */
export interface InboundSetup extends WorkerSetup {
  readonly options: InboundOptions;
}

/** What a worker is told: the first time what it needs, and whenever it shall carry packets. */
export type WorkerOrder<Setup> = { readonly setup: Setup } | "go on";

/** What a worker says: it carries packets; its device is gone, and it waits for "go on"; it has ended. */
export type WorkerReport = "running" | "gone" | "ended";
