/**
 * Leases in a SQLite file. Every write is one transaction that takes the file's write lock at its start,
 * so that agents in several processes never give a subnet twice; each lease that it writes gets the next
 * revision, by which a watch reads just what is new.
 *
 * The file may be deleted, damaged, or put back from a copy while agents run. Before each use it is looked at
 * whether it is still the same; one that can't be used is waited for; one that is gone is made anew, with the
 * net-conf; and of one that took another's place the watch tells which of the node's own leases it lacks.
 *
 * @module
 */

import type { StatementSync } from "node:sqlite";
import {
  awaitNetConf,
  chooseLease,
  chooseReservation,
  ConfigError,
  type Expiry,
  expiryMs,
  findHeld,
  followNetConf,
  formatLeaseValue,
  holdsAlike,
  type Lease,
  LEASE_TTL_MS,
  type LeaseAdmin,
  type LeaseEvent,
  type LeaseIndex,
  leaseKey,
  LeaseLostError,
  LeaseReader,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  logLeaseReplaced,
  messageOf,
  type NetworkConfig,
  type NodeIdentity,
  noNetConf,
  Outage,
  overlaps,
  parseNetworkConfig,
  readNetConf,
  requestedLease,
  requireHeld,
  type ReservationRequest,
  RuntimeError,
  sleep,
  type StoredLease,
} from "../../mod.ts";
import { Bell, SETTLE_MS } from "./bell.ts";
import {
  Database,
  explain,
  FileError,
  FileGoneError,
  isBusy,
  isFull,
  nextBase,
} from "./database.ts";

/** How long another's lock is waited for when the store is opened, where nothing else is under way yet. */
const OPEN_TIMEOUT_MS = 10_000;
/** How often the file is looked at also where nobody was heard to write to it. */
const POLL_MS = 500;
/** How long it is tried again while another process has the lock … */
const LOCK_WAIT_MS = 10_000;
/** … and how often. */
const LOCK_RETRY_MS = 10;
/** How often a file that can't be used is tried again. */
const TROUBLE_RETRY_MS = 500;
/** How long a deleted file may come back, as from a copy, before it is made anew. */
const REMAKE_MS = 400;
/** How long the trace of a lease that is gone is kept, for watches to find. */
const TRACE_TTL_MS = 10 * 60 * 1000;

/** How a store is opened. */
export interface SqliteStoreOptions {
  /** Hears what the store waits for, and of leases that can't be read. */
  readonly log: Logger;
  /** The time in milliseconds since 1970; the system's unless given. */
  readonly now?: () => number;
  /** False for who would rather hear of a file that can't be used than wait for it. */
  readonly patient?: boolean;
}

/** What is done with the file: it may be that it can be read, but not written. */
type Use = "read" | "write";

/** A row of `leases`; without a value it is the trace of a lease that is gone. */
interface Row {
  readonly revision: number;
  readonly key: string;
  readonly value: string | null;
  readonly expires_at_ms: number | null;
}

/** How far the file is. */
interface State {
  /** The revision of the last write of a lease. */
  readonly revision: number;
  /** Traces up to this revision may have been wiped out. */
  readonly wiped: number;
  /** When the next lease runs out, or the next trace may be wiped out. */
  readonly nextEndMs: number | null;
}

/** Leases in one file, which any number of processes on this machine may have open. */
export class SqliteStore implements LeaseStore, LeaseAdmin {
  /** `sqlite:` and the file's path. */
  readonly description: string;
  readonly #path: string;
  readonly #log: Logger;
  readonly #reader: LeaseReader;
  readonly #now: () => number;
  readonly #patient: boolean;
  readonly #outage: Outage;
  readonly #bell: Bell;
  readonly #closed = new AbortController();
  #database: Database | undefined;
  /** Since when the file has been gone. */
  #goneSinceMs: number | undefined;
  /** The net-conf's text, as it was last read or written. */
  #knownNetConf: string | undefined;
  /** The leases given through this store, by key: what its node lives by. */
  readonly #given = new Map<string, Lease>();
  /** The last revision that was read or written. */
  #lastRevision = 0;

  private constructor(path: string, options: SqliteStoreOptions) {
    this.description = `sqlite:${path}`;
    this.#path = path;
    this.#log = options.log;
    this.#reader = new LeaseReader(this.description, options.log);
    this.#now = options.now ?? Date.now;
    this.#patient = options.patient ?? true;
    this.#outage = new Outage(this.description, "can be used again", options.log);
    this.#bell = new Bell(path, options.log);
    this.#bell.look();
    this.#database = Database.open(path, { make: true, lockTimeoutMs: OPEN_TIMEOUT_MS });
    this.#bell.ringFor(this.#database.identity, this.#database.made);
    this.#lastRevision = this.#state().revision;
  }

  /**
   * Opens the file at `path`, and makes it (mode 0600) and its directory where they are not there. Throws a
   * RuntimeError that names the file where it can't be used: no right to it, not denim's, damaged, or
   * another version's. Later on, unless `patient` is false, a file that can't be used is waited for.
   */
  static open(path: string, options: SqliteStoreOptions): SqliteStore {
    return new SqliteStore(path, options);
  }

  /** The net-conf in the file; waits until it has one. */
  async networkConfig(signal: AbortSignal): Promise<NetworkConfig> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    for await (const text of this.#netConfs(ending)) return readNetConf(text, this.description);
    throw ending.reason;
  }

  /** The net-conf, then each other one that any process writes. */
  async *watchNetworkConfig(signal: AbortSignal): AsyncGenerator<NetworkConfig, void, void> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    try {
      yield* followNetConf(this.#netConfs(ending), this.description, this.#log);
    } catch (error) {
      if (!ending.aborted) throw error;
    }
  }

  /** The net-confs that the file holds, from the first on, read after each change to the file. */
  #netConfs(ending: AbortSignal): AsyncGenerator<string, void, void> {
    return awaitNetConf(this.#netConfReadings(ending), this.description, this.#log);
  }

  async *#netConfReadings(ending: AbortSignal): AsyncGenerator<string | undefined, void, void> {
    this.#bell.listen();
    let count: number;
    do {
      count = this.#bell.count;
      yield await this.#use("read", ending, () => this.#netConf());
    } while (await this.#bell.after(count, POLL_MS, ending));
  }

  /** Writes the net-conf, after its checks; see {@link LeaseStore.setNetworkConfig}. */
  async setNetworkConfig(
    text: string,
    options: { readonly ifAbsent: boolean },
    signal: AbortSignal,
  ): Promise<boolean> {
    parseNetworkConfig(text);
    return await this.#write(signal, () => {
      if (options.ifAbsent && this.#netConf() !== undefined) return false;
      this.#writeNetConf(text);
      return true;
    });
  }

  /** The lease that a node holds; see {@link LeaseStore.held}. */
  async held(node: NodeIdentity, signal: AbortSignal): Promise<Lease | undefined> {
    return await this.#use("read", signal, () => findHeld(node, this.#index())?.lease);
  }

  /** Gives a node its subnet, in one transaction; see {@link LeaseStore.acquire}. */
  async acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    await this.networkConfig(signal);
    const given = this.#given.get(leaseKey(request.previousSubnets));
    if (given === undefined) await this.#settle(signal);
    const lease = await this.#write(signal, () => {
      if (given !== undefined) this.#clearTheWay(given);
      const config = readNetConf(this.#netConf()!, this.description);
      const found = findHeld(request, this.#index());
      const choice = chooseLease(
        config,
        request,
        found?.lease,
        () => this.#keys().filter((key) => key !== found?.key),
      );
      const { subnets, keeps } = choice;
      if (found !== undefined && !keeps) {
        logLeaseReplaced(this.#log, config, request, found, choice);
        this.#remove(found.key);
      }
      const reserved = keeps && found?.lease?.expiry === "never";
      const lease = requestedLease(request, subnets, reserved ? "never" : this.#nextExpiry());
      return this.#put(lease);
    });
    for (const [key, other] of this.#given) if (holdsAlike(other, lease)) this.#given.delete(key);
    this.#given.set(lease.key, lease);
    return lease;
  }

  /** Lengthens a lease; see {@link LeaseStore.renew}. */
  async renew(lease: Lease, signal: AbortSignal): Promise<Lease> {
    return await this.#write(signal, () => {
      const row = requireHeld(lease, this.#row(lease.key), (row) => this.#read(row));
      const expiry = row.expires_at_ms === null ? "never" : this.#nextExpiry();
      return this.#put({ ...lease, expiry });
    });
  }

  /**
   * All leases, then each change, soon after it was committed, by whichever process. Of a file that took
   * another's place, as after a long sleep, what is new is told at once; and all, so that the rest is
   * gone, when the nodes that live have had the time to claim their subnets in it.
   */
  async *watch(signal: AbortSignal): AsyncGenerator<LeaseEvent, void, void> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    this.#bell.listen();
    let seen = -1;
    let settledAtMs = Infinity;
    let cleared = true;
    try {
      for (;;) {
        const { count } = this.#bell;
        const { revision, nextEndMs } = await this.#use("read", ending, () => this.#lookAround());
        if (nextEndMs !== null && nextEndMs <= this.#now()) {
          // Each write sees to what has run out. Where none can be made, as on a full disk, what else is new
          // is told all the same.
          cleared = await this.#tryClear(ending, cleared);
          if (cleared) continue;
        }
        if (this.#now() >= settledAtMs) {
          seen = -1;
          settledAtMs = Infinity;
        }
        if (revision !== seen) {
          const news = await this.#use("read", ending, () => this.#newsSince(seen));
          const first = seen < 0;
          const { put, removed } = this.#readNews(news.rows);
          seen = news.revision;
          if (first) yield { kind: "snapshot", leases: put };
          else {
            if (news.incomplete) settledAtMs = this.#now() + SETTLE_MS;
            const lost = news.incomplete ? await this.#use("read", ending, () => this.#lost()) : [];
            yield { kind: "changes", put, removed: [...removed, ...lost.map(({ key }) => key)] };
          }
        }
        const nextMs = Math.min(nextEndMs !== null && cleared ? nextEndMs : Infinity, settledAtMs);
        const waitMs = Math.min(Math.max(nextMs - this.#now(), 1), POLL_MS);
        if (!await this.#bell.after(count, waitMs, ending)) return;
      }
    } catch (error) {
      if (!ending.aborted) throw error;
    }
  }

  /** The net-conf's text; see {@link LeaseStore.networkConfigText}. */
  async networkConfigText(signal: AbortSignal): Promise<string | undefined> {
    return await this.#use("read", signal, () => this.#netConf());
  }

  /** Every lease; see {@link LeaseStore.leases}. */
  async leases(signal: AbortSignal): Promise<readonly Lease[]> {
    return await this.#use(
      "read",
      signal,
      () => this.#rows().flatMap((row) => this.#read(row) ?? []),
    );
  }

  /** Keeps subnets for a node for good; see {@link LeaseStore.reserve}. */
  async reserve(request: ReservationRequest, signal: AbortSignal): Promise<Lease> {
    await this.#settle(signal);
    return await this.#write(signal, () => {
      const text = this.#netConf();
      if (text === undefined) throw noNetConf(this.description);
      const lease = chooseReservation(
        readNetConf(text, this.description),
        request,
        this.#rows().map((row) => ({ key: row.key, lease: this.#read(row) })),
      );
      const is = this.#row(lease.key);
      return is?.expires_at_ms === null ? lease : this.#put(lease);
    });
  }

  /** Gives up a lease or a reservation; see {@link LeaseStore.release}. */
  async release(key: string, signal: AbortSignal): Promise<boolean> {
    const released = await this.#write(signal, () => this.#remove(key));
    this.#given.delete(key);
    return released;
  }

  /** Writes leases as they are, in one transaction: what a person reserves, or a test or bench makes up. */
  async putLeases(leases: Iterable<Lease>, signal: AbortSignal): Promise<void> {
    await this.#write(signal, () => {
      for (const lease of leases) this.#put(lease);
    });
  }

  /** Gives up the leases with these keys, in one transaction; keys that nobody holds are no fault. */
  async removeLeases(keys: Iterable<string>, signal: AbortSignal): Promise<void> {
    await this.#write(signal, () => {
      for (const key of keys) this.#remove(key);
    });
  }

  /** Closes the file, ends every watch, and rejects what still waits. */
  [Symbol.asyncDispose](): Promise<void> {
    if (!this.#closed.signal.aborted) {
      this.#closed.abort(new RuntimeError(`${this.description} is closed`));
      this.#bell[Symbol.dispose]();
      this.#drop();
    }
    return Promise.resolve();
  }

  #drop(): void {
    this.#database?.[Symbol.dispose]();
    this.#database = undefined;
  }

  /** The file, opened anew where it is not the same any more. */
  #open(): Database {
    if (this.#database?.isInPlace) return this.#database;
    this.#drop();
    const goneMs = performance.now() - (this.#goneSinceMs ?? Infinity);
    try {
      const make = this.#patient && goneMs >= REMAKE_MS;
      this.#bell.look();
      this.#database = Database.open(this.#path, { make, lockTimeoutMs: 0 });
      this.#goneSinceMs = undefined;
      this.#takeOver(this.#database, this.#database.made);
      return this.#database;
    } catch (error) {
      this.#drop();
      if (error instanceof FileGoneError) this.#goneSinceMs ??= performance.now();
      else this.#goneSinceMs = undefined;
      throw error;
    }
  }

  /**
   * Makes a file this store's that was made anew, or is an older copy: with revisions later than all before,
   * and the net-conf. The node's leases it claims again when the watch tells that they are gone.
   */
  #takeOver(database: Database, made: boolean): void {
    const isOlder = this.#state().revision < this.#lastRevision;
    this.#bell.ringFor(database.identity, made || isOlder);
    const netConf = this.#netConf() === undefined ? this.#knownNetConf : undefined;
    if (isOlder || netConf !== undefined) {
      database.transaction("BEGIN IMMEDIATE", () => {
        if (isOlder) this.#raiseRevision(Math.max(nextBase(), this.#lastRevision));
        if (netConf !== undefined) this.#writeNetConf(netConf);
      });
      this.#bell.ring();
    }
    this.#lastRevision = this.#state().revision;
    if (made) this.#log.warn("store-recreated", `${this.description} was made anew`);
    else if (isOlder || netConf !== undefined || this.#lost().length > 0) {
      this.#log.warn("store-replaced", `${this.description} is another file than before`);
    }
  }

  /** The leases of this node that are not in the file, or are another's there. */
  #lost(): Lease[] {
    return [...this.#given.values()].filter((lease) => {
      const row = this.#row(lease.key);
      const is = row && this.#read(row);
      return is === undefined || !holdsAlike(is, lease);
    });
  }

  /**
   * Takes away what stands in the way of a lease that this node lives by: in an older copy, what has been given
   * up since. Once the nodes that live had their time, a subnet may be another's by right.
   */
  #clearTheWay(given: Lease): void {
    if (this.#bell.unsettledMs === 0) return;
    const subnets = given.halves.map(({ subnet }) => subnet);
    for (const row of this.#rows()) {
      const lease = this.#read(row);
      const alike = lease !== undefined && holdsAlike(lease, given);
      if (alike ? row.key !== given.key : overlaps(row.key, subnets)) this.#remove(row.key);
    }
  }

  /** Waits until the nodes that live have claimed their subnets in a file that took another's place. */
  async #settle(signal: AbortSignal): Promise<void> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    for (let said = false;; said = true) {
      const ms = await this.#use("read", signal, () => this.#bell.unsettledMs);
      if (ms === 0) return;
      if (!said) {
        this.#log.info(
          "leases-rewritten",
          `${this.description} is another file than before; nodes that live come first`,
        );
      }
      await sleep(ms, ending);
      ending.throwIfAborted();
    }
  }

  /** What a watch looks at, in one statement of some microseconds. */
  #state(): State {
    return this.#statement(
      "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'leases'), 0) AS revision, " +
        "wiped_revision AS wiped, (SELECT min(expires_at_ms) FROM leases) AS nextEndMs FROM state",
    ).get() as unknown as State;
  }

  /** {@link SqliteStore.#state}, after a look at whether what is in the file was replaced. */
  #lookAround(): State {
    const { revision, wiped } = this.#state();
    const last = this.#lastRevision;
    if (revision < last || wiped > last) {
      this.#bell.look();
      this.#takeOver(this.#database!, false);
    }
    const state = this.#state();
    this.#lastRevision = state.revision;
    return state;
  }

  /**
   * What was written after a revision. Incomplete for one so long ago that traces have been wiped out since,
   * or of what another file had.
   */
  #newsSince(seen: number): { revision: number; incomplete: boolean; rows: readonly Row[] } {
    return this.#database!.transaction("BEGIN", () => {
      const { revision, wiped } = this.#state();
      const rows = this.#statement("SELECT * FROM leases WHERE revision > ? ORDER BY revision")
        .all(seen) as unknown as Row[];
      return { revision, incomplete: seen < wiped, rows };
    });
  }

  /** Reads new rows, and remembers what they say of this node's leases. */
  #readNews(rows: readonly Row[]): { put: Lease[]; removed: string[] } {
    const put: Lease[] = [];
    const removed: string[] = [];
    for (const row of rows) {
      const lease = this.#read(row);
      if (lease === undefined) removed.push(row.key);
      else put.push(lease);
      const given = this.#given.get(row.key);
      // One that was deleted is claimed again.
      if (given === undefined || lease === undefined) continue;
      if (holdsAlike(lease, given)) this.#given.set(row.key, lease);
      else this.#given.delete(row.key);
    }
    return { put, removed };
  }

  /** Finds leases by the table's indexes, those that can't be read too. */
  #index(): LeaseIndex<StoredLease> {
    const find = (column: string, value: string) => {
      const row = this.#statement(
        `SELECT * FROM leases WHERE ${column} = ? AND value IS NOT NULL ` +
          "AND ifnull(expires_at_ms > ?, true) LIMIT 1",
      ).get(value, this.#now()) as Row | undefined;
      return row && { key: row.key, lease: this.#read(row) };
    };
    return {
      byKey: (key) => find("key", key),
      byPublicIp: (address) =>
        find(address.family === 4 ? "public_ip" : "public_ipv6", `${address}`),
    };
  }

  /** The end of a lease that is given or renewed now. */
  #nextExpiry(): Expiry {
    return { atMs: this.#now() + LEASE_TTL_MS };
  }

  #row(key: string): Row | undefined {
    return this.#statement("SELECT * FROM leases WHERE key = ? AND value IS NOT NULL")
      .get(key) as Row | undefined;
  }

  #keys(): string[] {
    return this.#statement("SELECT key FROM leases WHERE value IS NOT NULL").all()
      .map(({ key }) => key as string);
  }

  #rows(): Row[] {
    return this.#statement(
      "SELECT * FROM leases WHERE value IS NOT NULL AND ifnull(expires_at_ms > ?, true) " +
        "ORDER BY revision",
    ).all(this.#now()) as unknown as Row[];
  }

  /** Tells what was written, read back, so that this node sees its lease as the others do. */
  #put(lease: Lease): Lease {
    const value = formatLeaseValue(lease);
    const { lastInsertRowid } = this.#statement(
      "INSERT OR REPLACE INTO leases (key, value, expires_at_ms) VALUES (?, ?, ?)",
    ).run(lease.key, value, expiryMs(lease.expiry) ?? null);
    return this.#reader.read(lease.key, value, lease.expiry, Number(lastInsertRowid))!;
  }

  /** Tells whether there was one. */
  #remove(key: string): boolean {
    const { changes } = this.#statement(`${LEAVE_TRACE} AND key = ?`)
      .run(this.#now() + TRACE_TTL_MS, key);
    return changes > 0;
  }

  /** Tells whether what has run out is gone now; complains where it is not, once in a row. */
  async #tryClear(signal: AbortSignal, complain: boolean): Promise<boolean> {
    try {
      await this.#write(signal, () => {}, false);
      return true;
    } catch (error) {
      if (signal.aborted) throw error;
      if (complain) {
        this.#log.error("expiry-failed", `leases that ran out stay for now: ${messageOf(error)}`);
      }
      return false;
    }
  }

  /** Makes traces of leases that ran out, and wipes out traces that are old. */
  #clear(): void {
    const nowMs = this.#now();
    const due = this.#statement("SELECT min(expires_at_ms) AS at FROM leases").get()!.at;
    if (due === null || due as number > nowMs) return;
    this.#statement(
      "UPDATE state SET wiped_revision = max(wiped_revision, ifnull(" +
        "(SELECT max(revision) FROM leases WHERE value IS NULL AND expires_at_ms <= ?), 0))",
    ).run(nowMs);
    this.#statement("DELETE FROM leases WHERE value IS NULL AND expires_at_ms <= ?").run(nowMs);
    this.#statement(`${LEAVE_TRACE} AND expires_at_ms <= ?`).run(nowMs + TRACE_TTL_MS, nowMs);
  }

  /** A row as a lease; `undefined` for a trace, and, with a warning, for what can't be read. */
  #read(row: Row): Lease | undefined {
    if (row.value === null) return undefined;
    const expiry = row.expires_at_ms === null ? "never" : { atMs: row.expires_at_ms };
    return this.#reader.read(row.key, row.value, expiry, row.revision);
  }

  #netConf(): string | undefined {
    const row = this.#statement("SELECT net_conf FROM state").get() as { net_conf: string | null };
    this.#knownNetConf = row.net_conf ?? this.#knownNetConf;
    return row.net_conf ?? undefined;
  }

  #writeNetConf(text: string): void {
    this.#statement("UPDATE state SET net_conf = ?").run(text);
  }

  /** The next write's revision is later than this, and all that was written before is news to every watch. */
  #raiseRevision(revision: number): void {
    this.#statement("UPDATE sqlite_sequence SET seq = ? WHERE name = 'leases'").run(revision);
    this.#statement("UPDATE state SET wiped_revision = ?").run(revision);
  }

  /** Runs `body` in a transaction that writes, and that finds no lease which has run out. */
  async #write<T>(signal: AbortSignal, body: () => T, patient = true): Promise<T> {
    const result = await this.#use(
      "write",
      signal,
      () =>
        this.#database!.transaction("BEGIN IMMEDIATE", () => {
          this.#clear();
          return body();
        }),
      // A node that has no lease yet is better told.
      patient && this.#patient && this.#given.size > 0,
    );
    this.#bell.ring();
    return result;
  }

  /**
   * Runs what uses the file, again where another process has it locked; and, for the patient, where it can't
   * be used as it is.
   */
  async #use<T>(
    use: Use,
    signal: AbortSignal,
    body: () => T,
    patient: boolean = this.#patient,
  ): Promise<T> {
    const giveUpAtMs = performance.now() + LOCK_WAIT_MS;
    for (let lookedAgain = false;;) {
      signal.throwIfAborted();
      this.#closed.signal.throwIfAborted();
      let waitMs = LOCK_RETRY_MS;
      try {
        this.#open();
        const result = body();
        this.#outage.worked(...use === "write" ? ["read", "write"] : ["read"]);
        return result;
      } catch (error) {
        if (error instanceof LeaseLostError || error instanceof ConfigError) throw error;
        if (!isBusy(error) || performance.now() > giveUpAtMs) {
          const failure = explain(this.#path, error);
          if (!(failure instanceof FileError)) throw failure;
          if (!isBusy(error) && !isFull(error) && this.#database !== undefined) {
            // To open it is to look at it from end to end, and tells best what is wrong.
            this.#drop();
            if (!lookedAgain) {
              lookedAgain = true;
              continue;
            }
          }
          if (!patient) throw failure;
          this.#outage.failed(use, failure.reason);
          waitMs = TROUBLE_RETRY_MS;
        }
      }
      await sleep(waitMs, AbortSignal.any([signal, this.#closed.signal]));
    }
  }

  #statement(text: string): StatementSync {
    return this.#database!.statement(text);
  }
}

/** Puts traces in the place of leases; takes when the trace expires, and more conditions. */
const LEAVE_TRACE = "INSERT OR REPLACE INTO leases (key, value, expires_at_ms) " +
  "SELECT key, NULL, ? FROM leases WHERE value IS NOT NULL";
