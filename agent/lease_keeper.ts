/**
 * A node's hold on its lease: renews it in time, writes it anew where the node publishes something else, claims
 * it again where it was lost, and notices who else writes it.
 *
 * @module
 */

import {
  EventCounter,
  expiryMs,
  formatLeaseValue,
  type Lease,
  type LeaseEvent,
  leaseKey,
  LeaseLostError,
  leasePublicIps,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  messageOf,
  overlaps,
  RuntimeError,
} from "@denim/core";

/** What a keeper works with. */
export interface LeaseKeeperOptions {
  /** Where the lease lives. */
  readonly store: LeaseStore;
  /** How long before its end the lease is renewed, in milliseconds. */
  readonly renewMarginMs: number;
  /** What the node asks for, as things are now. */
  readonly request: () => LeaseRequest;
  /** Told when another node has the subnet, or this one is the newcomer; and when it is this node's again. */
  readonly onTaken: (taken: boolean) => void;
  /** Where it is said what happens to the lease. */
  readonly log: Logger;
  /** The time in milliseconds since any moment, by which the node's age counts; the system's unless given. */
  readonly now?: () => number;
}

/** Waits between attempts at what fails from outside: from this, doubling … */
const MIN_RETRY_MS = 1_000;
/** … to this. */
const MAX_RETRY_MS = 60_000;
/** A lease whose margin is over already is renewed after this. */
const MIN_RENEW_WAIT_MS = 1_000;
/**
 * Of two nodes that write one lease the one that started less than this ago is the newcomer. Whoever runs
 * already answers within moments.
 */
const NEWCOMER_MS = 10_000;
/** The longest wait before the lease is written over another's: the other must still be a newcomer then. */
const MAX_CONTEST_MS = NEWCOMER_MS / 2;

/** Keeps one lease. All that it does in the store it does one after another. */
export class LeaseKeeper {
  readonly #options: LeaseKeeperOptions;
  readonly #now: () => number;
  #lease!: Lease;
  #acquiredAtMs = 0;
  #taken = false;
  /** When it is to be renewed, and when to be written; as `performance.now()` tells the time. */
  #renewAtMs = Infinity;
  #writeAtMs = Infinity;
  #written = Promise.withResolvers<void>();
  /** A revision of the lease that the store told of, and that is yet to be looked at. */
  #toldRevision: number | undefined;
  /** Whether it is the lease of the node's last run. */
  #known = false;
  /** The wait before the next writing over another's; none before the first. */
  #contestMs = 0;
  /** When the last one was due. */
  #contestedAtMs = -Infinity;
  readonly #reasons = new EventCounter();

  /** A keeper without a lease yet. */
  constructor(options: LeaseKeeperOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /** The lease; there is one once {@link LeaseKeeper.acquire} has resolved. */
  get lease(): Lease {
    return this.#lease;
  }

  /** Gets the node its lease. Rejects as {@link LeaseStore.acquire} does. */
  async acquire(signal: AbortSignal): Promise<Lease> {
    const { store, request } = this.#options;
    const asked = request();
    this.#take(await store.acquire(asked, signal));
    this.#known = this.#lease.key === leaseKey(asked.previousSubnets);
    this.#acquiredAtMs = this.#now();
    return this.#lease;
  }

  /**
   * Has the lease written as the node asks for it now. Resolves when it is, or another node has the subnet, or
   * the keeper has ended.
   */
  publish(): Promise<void> {
    this.#writeAtMs = 0;
    this.#reasons.add();
    return this.#written.promise;
  }

  /** Takes an event of the store's watch. */
  hear(event: LeaseEvent): void {
    const { key } = this.#lease;
    const leases = event.kind === "snapshot" ? event.leases : event.put;
    const own = leases.find((lease) => lease.key === key);
    if (this.#taken) {
      const mayBeFree = event.kind === "snapshot" || own !== undefined ||
        event.removed.some((other) => this.#inTheWay(other));
      if (mayBeFree) void this.publish();
      return;
    }
    if (own === undefined && (event.kind === "snapshot" || event.removed.includes(key))) {
      this.#options.log.warn(
        "lease-gone",
        `the lease ${key} is gone from the store; claiming it again`,
      );
      void this.publish();
    }
    if (own?.revision === undefined) return;
    // Its own writing may be told before it is known to have succeeded.
    this.#toldRevision = own.revision;
    this.#reasons.add();
  }

  /**
   * Keeps the lease until the signal is aborted. Rejects with a RuntimeError where the node turns out to be
   * the newcomer of two with one public IP.
   */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.#keep(signal);
    } finally {
      this.#written.resolve();
    }
  }

  async #keep(signal: AbortSignal): Promise<void> {
    let retryMs = MIN_RETRY_MS;
    for (;;) {
      const { count } = this.#reasons;
      let waitMs: number;
      try {
        await this.#attend(signal);
        retryMs = MIN_RETRY_MS;
        waitMs = Math.min(this.#writeAtMs, this.#renewAtMs) - performance.now();
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof NewcomerError) throw error;
        this.#options.log.error(
          "lease-write-failed",
          `the lease could not be written: ${messageOf(error)}`,
        );
        waitMs = retryMs * (0.5 + Math.random() / 2);
        retryMs = Math.min(retryMs * 2, MAX_RETRY_MS);
      }
      if (!await this.#reasons.after(count, waitMs, signal)) return;
    }
  }

  async #attend(signal: AbortSignal): Promise<void> {
    if (this.#writeAtMs === Infinity && this.#toldRevision !== undefined) {
      const told = this.#toldRevision;
      if (told !== this.#lease.revision) await this.#compare(signal);
      if (told === this.#toldRevision) this.#toldRevision = undefined;
    }
    if (this.#renewAtMs <= performance.now()) await this.#renew(signal);
    if (this.#writeAtMs > performance.now()) return;
    this.#writeAtMs = Infinity;
    try {
      await this.#claim(signal);
    } catch (error) {
      if (!(error instanceof LeaseLostError)) {
        this.#writeAtMs = 0;
        throw error;
      }
      if (!this.#taken) this.#giveUp(error.message);
    }
    // Not where there is something else to publish by now.
    if (this.#writeAtMs !== Infinity) return;
    this.#written.resolve();
    this.#written = Promise.withResolvers();
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const { store, log } = this.#options;
    try {
      this.#take(await store.renew(this.#lease, signal));
    } catch (error) {
      if (!(error instanceof LeaseLostError)) throw error;
      log.warn("lease-lost", `${error.message}; claiming it again`);
      this.#writeAtMs = 0;
      return;
    }
    const endMs = expiryMs(this.#lease.expiry);
    const until = endMs === undefined ? undefined : new Date(endMs).toISOString();
    log.info("lease-renewed", "lease renewed", { until });
  }

  /** Writes the lease, of the subnets that it has: pods live in them. */
  async #claim(signal: AbortSignal): Promise<void> {
    const { store, request, log } = this.#options;
    const { halves, key } = this.#lease;
    const lease = await store.acquire({
      ...request(),
      previousSubnets: halves.map(({ subnet }) => subnet),
      previousPublicIps: leasePublicIps(this.#lease),
      only: true,
    }, signal);
    this.#take(lease);
    if (!this.#taken) return;
    log.info("lease-regained", `the lease ${key} is this node's again`);
    this.#taken = false;
    this.#options.onTaken(false);
  }

  /** Somebody else wrote the lease: a person, as to make it a reservation, or another node. */
  async #compare(signal: AbortSignal): Promise<void> {
    const { store, log } = this.#options;
    const { halves, key, revision, expiry } = this.#lease;
    const publicIps = leasePublicIps(this.#lease);
    const previousSubnets = halves.map(({ subnet }) => subnet);
    const held = await store.held({ publicIps, previousSubnets }, signal);
    if (held?.key !== key) {
      this.#writeAtMs = 0;
      return;
    }
    if (held.revision === revision) return;
    if (held.revision! < revision!) {
      log.warn(
        "lease-older",
        `the store has an older lease ${key}, as after a copy was put back; writing it again`,
      );
      this.#writeAtMs = 0;
      return;
    }
    if (expiry !== "never" && held.expiry === "never") {
      log.info("lease-reserved", `the lease ${key} is a reservation now`);
      if (formatLeaseValue(held) === formatLeaseValue(this.#lease)) this.#take(held);
      else this.#writeAtMs = 0;
      return;
    }
    this.#contest([...publicIps.values()].join(" "));
  }

  /** Another node writes the lease, under the same public IP: the one that came last ends. */
  #contest(address: string): void {
    const { log, onTaken } = this.#options;
    const { key } = this.#lease;
    const nowMs = this.#now();
    const answered = nowMs - this.#contestedAtMs <= 2 * this.#contestMs;
    if (!answered) this.#contestMs = 0;
    // A clone that was refused, and starts again, is no reason to end a node that was there before it.
    if (nowMs - this.#acquiredAtMs < NEWCOMER_MS && (answered || !this.#known)) {
      onTaken(true);
      throw new NewcomerError(
        `another node has the public IP ${address} and holds the lease ${key}; if this machine is a clone ` +
          "of it, give this one an address of its own, and start the agent again",
      );
    }
    log.error(
      "lease-contested",
      `somebody else wrote this node's lease ${key}: look for another machine with the public IP ` +
        `${address}, as a clone has; the lease is written again`,
    );
    // The first time at once: the newcomer shall hear of it before it is ready.
    this.#writeAtMs = performance.now() + this.#contestMs;
    this.#contestedAtMs = nowMs + this.#contestMs;
    this.#contestMs = Math.min(Math.max(this.#contestMs * 2, MIN_RETRY_MS), MAX_CONTEST_MS);
  }

  /** The lease is as the store has it now. A reservation is never renewed. */
  #take(lease: Lease): void {
    this.#lease = lease;
    const leftMs = (expiryMs(lease.expiry) ?? Infinity) - this.#options.renewMarginMs - Date.now();
    this.#renewAtMs = performance.now() + Math.max(leftMs, MIN_RENEW_WAIT_MS);
  }

  /** Another node has the subnet: pods' traffic would be the stranger's. */
  #giveUp(why: string): void {
    this.#options.log.error(
      "lease-taken",
      `${why}; this node keeps what it has but is not ready: drain its pods and start the agent again, or ` +
        "have the other lease released",
    );
    this.#taken = true;
    this.#renewAtMs = Infinity;
    this.#options.onTaken(true);
  }

  #inTheWay(key: string): boolean {
    return overlaps(key, this.#lease.halves.map(({ subnet }) => subnet));
  }
}

/** This node is the newcomer of two that have one public IP. */
class NewcomerError extends RuntimeError {}
