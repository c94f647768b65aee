/**
 * Where nodes agree on who holds which subnet.
 *
 * @module
 */

import { ExpectedError } from "./errors.ts";
import type { HostNetwork } from "./host_network.ts";
import type { Cidr, Family, IpAddress } from "./ip.ts";
import type { Lease } from "./lease.ts";
import type { NetworkConfig } from "./net_conf.ts";

/** How long a lease lives unless it is renewed, in milliseconds: flannel's 24 hours. */
export const LEASE_TTL_MS: number = 24 * 60 * 60 * 1000;

/** How long a note stays unless it is written again, in milliseconds. */
export const NOTE_TTL_MS: number = 10 * 60 * 1000;

/** What a node tells all others. */
export interface Note {
  /** For agents. */
  readonly text: string;
  /** For people, where the store has a place for that: one sentence of at most 1,000 characters. */
  readonly summary: string;
}

/** How a store recognises a node. */
export interface NodeIdentity {
  /** The addresses at which other nodes reach this one, one for each enabled family. */
  readonly publicIps: ReadonlyMap<Family, IpAddress>;
  /** The subnets that the node had in its last run, from its subnet.env. */
  readonly previousSubnets: readonly Cidr[];
  /** The addresses at which it was reached then; the present ones unless given. */
  readonly previousPublicIps?: ReadonlyMap<Family, IpAddress>;
}

/** What a node asks for, and what it publishes with it. */
export interface LeaseRequest extends NodeIdentity {
  /** The lease's `BackendType`. */
  readonly backendType: string;
  /** What the backend publishes for each family, as JSON: `BackendData` and `BackendV6Data`. */
  readonly backendData: ReadonlyMap<Family, unknown>;
  /** Whether the previous subnets alone will do, because pods live in them. */
  readonly only?: boolean;
  /** What the node knows of the network between the hosts, whose addresses no subnet may hold. */
  readonly hostNetwork?: HostNetwork;
}

/** What an administrator wants kept for a node. */
export interface ReservationRequest {
  /** The subnets, one for each family that net-conf enables. */
  readonly subnets: readonly Cidr[];
  /** The addresses at which other nodes reach the node, by which the store recognises it. */
  readonly publicIps: ReadonlyMap<Family, IpAddress>;
}

/** What a watch reports. */
export type LeaseEvent =
  | {
    /** All leases, as at this moment: the first event, and again after a gap. */
    readonly kind: "snapshot";
    /** Every lease that is held. */
    readonly leases: readonly Lease[];
  }
  | {
    /** What changed since the event before; a store puts what belongs together into one. */
    readonly kind: "changes";
    /** New leases, and old ones with new values. */
    readonly put: readonly Lease[];
    /** The keys ({@link Lease.key}) of leases that were given up or have ended. */
    readonly removed: readonly string[];
  };

/**
 * A place where leases live, as an agent needs it. Every method takes an `AbortSignal` and rejects with its
 * reason once it is aborted. Failures are `RuntimeError`s whose message names the store.
 */
export interface LeaseStore extends AsyncDisposable {
  /** The store's kind and place, for logs: `sqlite:/var/lib/denim/denim.db`. No secrets. */
  readonly description: string;

  /** The cluster's net-conf. Waits until there is one. Rejects with a `ConfigError` if it is not valid. */
  networkConfig(signal: AbortSignal): Promise<NetworkConfig>;

  /**
   * The net-conf as {@link LeaseStore.networkConfig} gives it, then each different one that is written, until the
   * signal is aborted. A later one that is not valid is left out, with an error in the log.
   */
  watchNetworkConfig(signal: AbortSignal): AsyncIterable<NetworkConfig>;

  /** The lease that a node holds, found as {@link LeaseStore.acquire} would find it. */
  held(node: NodeIdentity, signal: AbortSignal): Promise<Lease | undefined>;

  /**
   * Gives a node its subnet: the one that it held in its last run, under the addresses that it had then; else
   * the one leased to its public IP; else that of its last run, if free; else a free one. A reservation
   * (its expiry is "never") stays one. {@link Lease.wasHeld} tells whether there was one. No subnet holds an address that
   * a host is known to have, this node or another. Rejects with a `RuntimeError` if the network is full, and with a
   * `LeaseLostError` if no other subnet would do: a `LeaseMovedError` if the node has others by now.
   */
  acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease>;

  /**
   * Lengthens a lease to {@link LEASE_TTL_MS} from now. Rejects with a `LeaseLostError` if the node no
   * longer holds it.
   */
  renew(lease: Lease, signal: AbortSignal): Promise<Lease>;

  /** Gives up a lease by its key ({@link Lease.key}). Resolves to whether there was one. */
  release(key: string, signal: AbortSignal): Promise<boolean>;

  /**
   * All leases, then each change, without a gap, until the signal is aborted. An expiry may be "unknown". Rejects
   * with a defect of denim's own (see `isDefect`); waits through everything else that happens to the store.
   */
  watch(signal: AbortSignal): AsyncIterable<LeaseEvent>;

  /** The hosts of the store's servers as they are known now, names or addresses. A store in a file lacks it. */
  readonly servers?: readonly string[];

  /**
   * The node has other addresses: connections from the former ones are dead, though nothing reports that, and a store
   * that has any makes new ones.
   */
  reconnect?(): void;

  /**
   * The addresses at which other nodes reach this one, as an administrator wrote them into the store: they go before
   * the agent's own flags. A family without one is missing. A store in which none can be written lacks the method.
   */
  publicIps?(signal: AbortSignal): Promise<ReadonlyMap<Family, IpAddress>>;

  /**
   * Tells the cluster whether pods on this node lack a network, so that its scheduler gives the node no pods meanwhile. A
   * store that has no scheduler lacks the method.
   */
  setNetworkUnavailable?(unavailable: boolean, signal: AbortSignal): Promise<void>;

  /**
   * Leaves a short note for all other nodes, in place of the one before; `undefined` takes it away. It stays for
   * {@link NOTE_TTL_MS}. A store that has no room for notes lacks the method.
   *
   * @param key that of the node's lease
   */
  writeNote?(key: string, note: Note | undefined, signal: AbortSignal): Promise<void>;

  /**
   * The texts of the notes that nodes have left, by the keys of their leases; `undefined` if this node may not read them.
   * A store that has no room for notes lacks the method.
   */
  notes?(signal: AbortSignal): Promise<ReadonlyMap<string, string> | undefined>;

  /**
   * How far this host's clock is ahead of the store's, in milliseconds, to a second or so; `undefined` if the store does
   * not tell the time now. A store in a file of this host has no clock of its own, and lacks the method.
   */
  clockAheadMs?(signal: AbortSignal): Promise<number | undefined>;
}

/** A place where leases live, as an administrator needs it: {@link LeaseStore}'s rules hold. */
export interface LeaseAdmin extends AsyncDisposable {
  /** The store's kind and place, for messages. No secrets. */
  readonly description: string;

  /** The net-conf's text as it is stored, valid or not; `undefined` if there is none. */
  networkConfigText(signal: AbortSignal): Promise<string | undefined>;

  /**
   * Writes the net-conf, after the checks that {@link LeaseStore.networkConfig} makes (a `ConfigError`
   * if it fails them). With `ifAbsent`, only if there is none. Resolves to whether it wrote.
   */
  setNetworkConfig(
    text: string,
    options: { readonly ifAbsent: boolean },
    signal: AbortSignal,
  ): Promise<boolean>;

  /** Every lease that can be read, with its end, which may cost a request a lease. */
  leases(signal: AbortSignal): Promise<readonly Lease[]>;

  /**
   * Makes a reservation, or one of the lease that the node holds: it never runs out. Rejects with a
   * `ConfigError` if net-conf does not allow the subnets, and with a `RuntimeError` if they or the
   * node are taken.
   */
  reserve(request: ReservationRequest, signal: AbortSignal): Promise<Lease>;

  /**
   * Gives up a lease or a reservation by its key ({@link Lease.key}). Resolves to whether there was one. A living node
   * claims its subnet again.
   */
  release(key: string, signal: AbortSignal): Promise<boolean>;
}

/** The lease is no longer this node's: it has ended, was deleted, or another node has it. */
export class LeaseLostError extends ExpectedError {
  /** The class's name, for logs. */
  override readonly name: string = "LeaseLostError";
}

/**
 * The cluster gave this node other subnets, as one that was made again: it is no other node that has those of before,
 * and waiting for them is in vain.
 */
export class LeaseMovedError extends LeaseLostError {
  /** The class's name, for logs. */
  override readonly name: string = "LeaseMovedError";
}
