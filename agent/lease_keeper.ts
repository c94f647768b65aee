/**
 * A node's hold on its lease: renews it in time, writes it again if the node publishes something else, claims
 * it again if it was lost, and notices if anybody else writes it.
 *
 * @module
 */

import {
  Backoff,
  Complaints,
  type Counter,
  EventCounter,
  expiryMs,
  formatLeaseValue,
  type Lease,
  type LeaseEvent,
  LeaseLostError,
  LeaseMovedError,
  leasePublicIps,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  messageOf,
  type Metrics,
  NO_METRICS,
  overlaps,
  RuntimeError,
  throwDefect,
} from "@denim/core";

/** What a keeper works with. */
export interface LeaseKeeperOptions {
  /** Where the lease lives. */
  readonly store: LeaseStore;
  /** How long before its end the lease is renewed, in milliseconds. */
  readonly renewMarginMs: number;
  /** What the node asks for, as things are now. */
  readonly request: () => LeaseRequest;
  /** Called when another node has the subnet, or this one is the newcomer; and when it is this node's again. */
  readonly onTaken: (taken: boolean) => void;
  /** Called when another running node writes the lease, which stays this node's. */
  readonly onContested?: (lease: Lease) => void;
  /** Takes what happens to the lease. */
  readonly log: Logger;
  /** Counts what happens to the lease. */
  readonly metrics?: Metrics;
  /** The time in milliseconds since any moment, by which the node's age counts; the system's unless given. */
  readonly now?: () => number;
}

/** Waits between attempts at what the store does not do. */
const RETRY = { minMs: 1_000, maxMs: 60_000, jitter: 0.5 };
/** How long to wait with the renewal of a lease whose margin has begun already. */
const MIN_RENEW_WAIT_MS = 1_000;
/**
 * Of two nodes that write one lease, one that started less than this ago is the newcomer. The other one, which was
 * running already, answers within moments.
 */
const NEWCOMER_MS = 10_000;
/**
 * Waits before the lease is written over another node's, but for the first time. The other must still be a newcomer
 * then.
 */
const CONTEST = { minMs: 1_000, maxMs: NEWCOMER_MS / 2 };
/** Newcomers that only ask, also many of them at once, are answered so often: each before it is ready. */
const REPLY_MS = 200;

/** Keeps one lease. Its requests to the store follow one another. */
export class LeaseKeeper {
  readonly #options: LeaseKeeperOptions;
  readonly #now: () => number;
  #lease!: Lease;
  #acquiredAtMs = 0;
  #taken = false;
  /** When to renew it, as `performance.now()` has it. */
  #renewAtMs = Infinity;
  /** When to write it, as `performance.now()` has it. */
  #writeAtMs = Infinity;
  #written = Promise.withResolvers<void>();
  /** A revision of the lease that the watch reported and that was not compared yet. */
  #reportedRevision: number | undefined;
  #isProven = false;
  readonly #contest = new Backoff(CONTEST);
  /** The wait before the lease is next written over another node's. */
  #contestMs = 0;
  /** When that was last due. */
  #contestedAtMs = -Infinity;
  /** When a newcomer was last answered, or is to be. */
  #repliedAtMs = -Infinity;
  readonly #complaints = new Complaints();
  readonly #reasons = new EventCounter();
  readonly #renewals: Counter;
  readonly #claims: Counter;
  readonly #failures: Counter;

  /** A keeper without a lease yet. */
  constructor(options: LeaseKeeperOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    const { metrics = NO_METRICS } = options;
    this.#renewals = metrics.counter(
      "denim_lease_renewals_total",
      "Renewals of this node's lease.",
    );
    this.#claims = metrics.counter(
      "denim_lease_claims_total",
      "Times that this node wrote its lease again, with other values or because it was lost.",
    );
    this.#failures = metrics.counter(
      "denim_lease_failures_total",
      "Attempts to renew or write this node's lease that failed.",
    );
    metrics.gauge(
      "denim_lease_end_timestamp_seconds",
      "When this node's lease ends unless it is renewed, in seconds since 1970; missing if it never ends.",
      () => (expiryMs(this.#lease?.expiry ?? "unknown") ?? NaN) / 1000,
    );
  }

  /** Whether no running node had the lease before this one; known once {@link LeaseKeeper.acquire} has resolved. */
  get isProven(): boolean {
    return this.#isProven;
  }

  /** The lease; there is one once {@link LeaseKeeper.acquire} has resolved. */
  get lease(): Lease {
    return this.#lease;
  }

  /**
   * Gets the node its lease. Rejects as {@link LeaseStore.acquire} does.
   *
   * @param wasOwn whether the lease that was held for the node's addresses is its own for certain, and not that of a
   * running node which has an address of them too
   */
  async acquire(wasOwn: boolean, signal: AbortSignal): Promise<Lease> {
    const { store, request } = this.#options;
    this.#adopt(await store.acquire(request(), signal));
    this.#isProven = wasOwn || !this.#lease.wasHeld;
    this.#acquiredAtMs = this.#now();
    return this.#lease;
  }

  /**
   * Has the lease written as the node asks for it now. Resolves when it is written, or another node has the subnet,
   * or the keeper has ended.
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
    // The watch may report the keeper's own write before the store has confirmed it.
    this.#reportedRevision = own.revision;
    this.#reasons.add();
  }

  /**
   * Keeps the lease until the signal is aborted. Rejects with a RuntimeError if the node turns out to be the newcomer
   * of two with one public IP, and with a LeaseMovedError if the store has other subnets for it.
   */
  async run(signal: AbortSignal): Promise<void> {
    try {
      await this.#keep(signal);
    } finally {
      this.#written.resolve();
    }
  }

  async #keep(signal: AbortSignal): Promise<void> {
    const backoff = new Backoff(RETRY);
    for (;;) {
      const { count } = this.#reasons;
      let waitMs: number;
      try {
        await this.#attend(signal);
        backoff.reset();
        this.#complaints.resolve();
        waitMs = Math.min(this.#writeAtMs, this.#renewAtMs) - performance.now();
      } catch (error) {
        if (error !== signal.reason) throwDefect(error);
        if (signal.aborted) return;
        if (error instanceof NewcomerError || error instanceof LeaseMovedError) throw error;
        this.#failures.add();
        const message = messageOf(error);
        if (this.#complaints.isNew(message)) {
          this.#options.log.error(
            "lease-write-failed",
            `the store does not take the lease ${this.#lease.key}, trying again: ${message}`,
          );
        }
        waitMs = backoff.next();
      }
      if (!await this.#reasons.after(count, waitMs, signal)) return;
    }
  }

  async #attend(signal: AbortSignal): Promise<void> {
    if (this.#writeAtMs === Infinity && this.#reportedRevision !== undefined) {
      const reported = this.#reportedRevision;
      if (reported !== this.#lease.revision) await this.#compare(signal);
      if (reported === this.#reportedRevision) this.#reportedRevision = undefined;
    }
    if (this.#renewAtMs <= performance.now()) await this.#renew(signal);
    if (this.#writeAtMs > performance.now()) return;
    this.#writeAtMs = Infinity;
    try {
      await this.#claim(signal);
    } catch (error) {
      if (!(error instanceof LeaseLostError) || error instanceof LeaseMovedError) {
        this.#writeAtMs = 0;
        throw error;
      }
      if (!this.#taken) this.#giveUp(error.message);
    }
    // Skip if another publish was requested meanwhile.
    if (this.#writeAtMs !== Infinity) return;
    this.#written.resolve();
    this.#written = Promise.withResolvers();
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const { store, log } = this.#options;
    try {
      this.#adopt(await store.renew(this.#lease, signal));
    } catch (error) {
      if (!(error instanceof LeaseLostError)) throw error;
      log.warn("lease-lost", `${error.message}; claiming it again`);
      this.#writeAtMs = 0;
      return;
    }
    this.#renewals.add();
    const endMs = expiryMs(this.#lease.expiry);
    const until = endMs === undefined ? undefined : new Date(endMs).toISOString();
    log.info("lease-renewed", "lease renewed", { until });
  }

  /** Writes the lease with the subnets that it has, because pods live in them. */
  async #claim(signal: AbortSignal): Promise<void> {
    const { store, request, log } = this.#options;
    const { halves, key } = this.#lease;
    const lease = await store.acquire({
      ...request(),
      previousSubnets: halves.map(({ subnet }) => subnet),
      previousPublicIps: leasePublicIps(this.#lease),
      only: true,
    }, signal);
    this.#adopt(lease);
    this.#claims.add();
    if (!this.#taken) return;
    log.info("lease-regained", `the lease ${key} is this node's again`);
    this.#taken = false;
    this.#options.onTaken(false);
  }

  /** Finds out what another write made of the lease: an operator made it a reservation, or another node has it. */
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
        `the store has an older lease ${key}, as after a copy was restored; writing it again`,
      );
      this.#writeAtMs = 0;
      return;
    }
    if (expiry !== "never" && held.expiry === "never") {
      log.info("lease-reserved", `the lease ${key} is a reservation now`);
      if (formatLeaseValue(held) === formatLeaseValue(this.#lease)) this.#adopt(held);
      else this.#writeAtMs = 0;
      return;
    }
    // A newcomer that does not know yet whose the lease is leaves its value as it is.
    const claims = formatLeaseValue(held) !== formatLeaseValue(this.#lease);
    this.#contend([...publicIps.values()].join(" "), claims);
  }

  /**
   * Another node writes the lease, under the same public IP: the one that had it last ends.
   *
   * @param claims whether it wrote what it publishes itself
   */
  #contend(address: string, claims: boolean): void {
    const { log, onTaken } = this.#options;
    const { key } = this.#lease;
    const nowMs = this.#now();
    const answered = claims && nowMs - this.#contestedAtMs <= 2 * this.#contestMs;
    if (claims && !answered) {
      this.#contestMs = 0;
      this.#contest.reset();
    }
    // A newcomer, also one that was refused and starts again, must not end a node that was there before it.
    if (nowMs - this.#acquiredAtMs < NEWCOMER_MS && (answered || !this.#isProven)) {
      onTaken(true);
      throw new NewcomerError(
        `another node has the public IP ${address} and holds the lease ${key}: choose another outer device ` +
          "with --iface if many machines have that address, as behind a virtual machine's NAT, or give this " +
          "one an address of its own if it is a clone of the other; then start the agent again",
      );
    }
    // At once the first time, so that the newcomer learns of it before it is ready.
    const sinceReplyMs = nowMs - this.#repliedAtMs;
    const waitMs = claims ? this.#contestMs : Math.max(REPLY_MS - sinceReplyMs, 0);
    this.#options.onContested?.(this.#lease);
    log.error(
      "lease-contested",
      `another program wrote this node's lease ${key}: look for another machine with the public IP ` +
        `${address}, for example a clone; writing the lease again`,
      { waitMs: Math.round(waitMs) },
    );
    this.#writeAtMs = performance.now() + waitMs;
    if (claims) {
      this.#contestedAtMs = nowMs + waitMs;
      this.#contestMs = this.#contest.next();
    } else this.#repliedAtMs = nowMs + waitMs;
  }

  /** Takes over the lease as the store has it now. A reservation is never renewed. */
  #adopt(lease: Lease): void {
    this.#lease = lease;
    const leftMs = (expiryMs(lease.expiry) ?? Infinity) - this.#options.renewMarginMs - Date.now();
    this.#renewAtMs = performance.now() + Math.max(leftMs, MIN_RENEW_WAIT_MS);
  }

  /** Another node has the subnet: it gets the pods' traffic. */
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
