/**
 * Leases in a SQLite file. Every write is one transaction that takes the file's write lock at its start,
 * so that agents in several processes never lease a subnet twice. Each lease that it writes gets the next
 * revision, by which a watch reads only what is new.
 *
 * The file may be deleted, damaged, or replaced by a copy while agents run. Before each use the store checks that
 * the path still names the same file. It waits for an unusable file, recreates a missing one with the net-conf,
 * and, if the file was replaced, reports this node's missing leases through the watch.
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
  type Metrics,
  msToTick,
  type NetworkConfig,
  NO_METRICS,
  type NodeIdentity,
  noNetConf,
  type Note,
  NOTE_TTL_MS,
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
  type StoreMetrics,
  storeMetrics,
  throwDefect,
  throwUnlessAborted,
} from "../../mod.ts";
import { dirname } from "node:path";
import { ChangeSignal, CLAIM_MS } from "./change_signal.ts";
import {
  Database,
  explain,
  FileError,
  FileGoneError,
  isBusy,
  isFull,
  nextBase,
} from "./database.ts";

/** How long opening the store may wait for another process's lock; nothing else is under way yet then. */
const OPEN_TIMEOUT_MS = 10_000;
/** How often a watch looks at the file although no process signalled a change. */
const POLL_MS = 1000;
/** Looks that are as near as this in time, as those of one tick, are one, in milliseconds. */
const TOGETHER_MS = 20;
/** A file that was written so short a time ago may be written again without looking another. */
const FRESH_MS = 2_000;
/** How long a use is tried again while another process has the lock. */
const LOCK_WAIT_MS = 10_000;
/** The wait between such attempts. */
const LOCK_RETRY_MS = 10;
/** How often a file that can't be used is tried again. */
const TROUBLE_RETRY_MS = 500;
/** How long a deleted file may come back, for example from a copy, before an agent recreates it. */
const RECREATE_MS = 400;
/** How long the trace of a lease that is gone is kept, for watches to find. */
const TRACE_TTL_MS = 10 * 60 * 1000;

/** How a store is opened. */
export interface SqliteStoreOptions {
  /** Where the store says what it waits for, and which leases can't be read. */
  readonly log: Logger;
  /** Whether to wait for a file that can't be used, rather than to reject; true unless given. */
  readonly patient?: boolean;
  /** Counts what the store does. */
  readonly metrics?: Metrics;
  /** The time in milliseconds since 1970; the system's unless given. */
  readonly now?: () => number;
  /** How often a watch reads the file although no process signalled a change, in ms; 1000 unless given. */
  readonly pollMs?: number;
  /** See {@link ChangeSignalOptions.watchFile}. */
  readonly watchFile?: (path: string) => Deno.FsWatcher;
}

/** What is done with the file: it may be readable, but not writable. */
type Use = "read" | "write";

/** A row of `leases`. One without a value is the trace of a lease that is gone. */
interface Row {
  readonly revision: number;
  readonly key: string;
  readonly value: string | null;
  readonly expires_at_ms: number | null;
}

/** The columns of a {@link Row}: of the others SQLite works out each value from the lease's JSON. */
const COLUMNS = "revision, key, value, expires_at_ms";

/** What the file has come to. */
interface State {
  /** The revision of the last write of a lease. */
  readonly revision: number;
  /** Traces up to this revision may have been deleted. */
  readonly wiped: number;
  /** When the next lease ends, or the next trace may be deleted, in milliseconds since 1970. */
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
  readonly #pollMs: number;
  readonly #metrics: StoreMetrics;
  readonly #outage: Outage;
  readonly #changes: ChangeSignal;
  readonly #closed = new AbortController();
  #database: Database | undefined;
  /** Since when the file has been gone. */
  #goneSinceMs: number | undefined;
  /** The net-conf's text, as it was last read or written. */
  #knownNetConf: string | undefined;
  /** The leases that this store's node acquired through it, by key. */
  readonly #own = new Map<string, Lease>();
  #looked: { readonly atMs: number; readonly version: FileVersion | undefined } = {
    atMs: -Infinity,
    version: undefined,
  };
  /** The last revision that was read or written. */
  #lastRevision = 0;

  private constructor(path: string, options: SqliteStoreOptions) {
    this.description = `sqlite:${path}`;
    this.#path = path;
    this.#log = options.log;
    this.#reader = new LeaseReader(this.description, options.log);
    this.#now = options.now ?? Date.now;
    this.#patient = options.patient ?? true;
    this.#pollMs = options.pollMs ?? POLL_MS;
    this.#metrics = storeMetrics(options.metrics ?? NO_METRICS, "sqlite");
    this.#outage = new Outage(
      this.description,
      "can be used again",
      options.log,
      this.#metrics.outages,
    );
    this.#changes = new ChangeSignal(path, options);
    this.#changes.refresh();
    this.#database = Database.open(path, { make: true, lockTimeoutMs: OPEN_TIMEOUT_MS });
    this.#changes.identify(this.#database.identity, this.#database.made);
    this.#lastRevision = this.#state().revision;
  }

  /**
   * Opens the file at `path`, and makes it (mode 0600) and its directory if they are missing. Throws a
   * RuntimeError that names the file if it can't be used: no right to it, not denim's, damaged, or another
   * version's. Later on, unless `patient` is false, the store waits for a file that can't be used.
   */
  static open(path: string, options: SqliteStoreOptions): SqliteStore {
    return new SqliteStore(path, options);
  }

  /** See {@link LeaseStore.networkConfig}. */
  async networkConfig(signal: AbortSignal): Promise<NetworkConfig> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    for await (const text of this.#netConfs(ending)) return readNetConf(text, this.description);
    throw ending.reason;
  }

  /** See {@link LeaseStore.watchNetworkConfig}. */
  async *watchNetworkConfig(signal: AbortSignal): AsyncGenerator<NetworkConfig, void, void> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    try {
      yield* followNetConf(this.#netConfs(ending), this.description, this.#log);
    } catch (error) {
      throwUnlessAborted(error, ending);
    }
  }

  /** The net-confs that the file holds, from the first on, read after each change to the file. */
  #netConfs(ending: AbortSignal): AsyncGenerator<string, void, void> {
    return awaitNetConf(this.#netConfReadings(ending), this.description, this.#log);
  }

  async *#netConfReadings(ending: AbortSignal): AsyncGenerator<string | undefined, void, void> {
    this.#changes.watch();
    let seen: FileMoment;
    do {
      seen = this.#moment();
      yield await this.#use("read", ending, () => this.#netConf());
    } while (await this.#after(seen, Infinity, ending));
  }

  #moment(): FileMoment {
    return { count: this.#changes.count, version: versionOf(this.#path), atMs: Date.now() };
  }

  /** The file as it is, or as it was a moment ago: watches look at it together. */
  #lookTogether(): FileVersion | undefined {
    const nowMs = performance.now();
    if (nowMs - this.#looked.atMs > TOGETHER_MS) {
      this.#looked = { atMs: nowMs, version: versionOf(this.#path) };
    }
    return this.#looked.version;
  }

  /**
   * Waits until the file may say something else than at a moment, or some time is over. False once the signal is aborted.
   */
  async #after(
    { count, version, atMs }: FileMoment,
    timeoutMs: number,
    ending: AbortSignal,
  ): Promise<boolean> {
    const endMs = performance.now() + timeoutMs;
    for (;;) {
      const leftMs = Math.max(endMs - performance.now(), 0);
      const waitMs = Math.min(leftMs, msToTick(this.#pollMs));
      if (!await this.#changes.after(count, waitMs, ending)) return false;
      if (waitMs === leftMs || this.#changes.count !== count) return true;
      // Another write in the same tick of the file system's clock would not show.
      const isFresh = atMs - (version?.writtenAtMs ?? Infinity) < FRESH_MS;
      if (isFresh || this.#lookTogether()?.text !== version?.text) return true;
    }
  }

  /** See {@link LeaseAdmin.setNetworkConfig}. */
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

  /** See {@link LeaseStore.held}. */
  async held(node: NodeIdentity, signal: AbortSignal): Promise<Lease | undefined> {
    return await this.#use("read", signal, () => findHeld(node, this.#index())?.lease);
  }

  /** See {@link LeaseStore.acquire}. */
  async acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    await this.networkConfig(signal);
    const own = this.#own.get(leaseKey(request.previousSubnets));
    if (own === undefined) await this.#letOthersClaim(signal);
    const lease = await this.#write(signal, () => {
      if (own !== undefined) this.#clearTheWay(own);
      const config = readNetConf(this.#netConf()!, this.description);
      const found = findHeld(request, this.#index());
      const choice = chooseLease(
        config,
        request,
        found?.lease,
        () =>
          this.#rows().filter(({ key }) => key !== found?.key)
            .map((row) => ({ key: row.key, lease: this.#read(row) })),
      );
      const { subnets, keeps } = choice;
      if (found !== undefined && !keeps) {
        logLeaseReplaced(this.#log, config, request, found, choice);
        this.#remove(found.key);
      }
      const reserved = keeps && found?.lease?.expiry === "never";
      const lease = requestedLease(request, subnets, reserved ? "never" : this.#nextExpiry());
      return { ...this.#put(lease), ...(found && { wasHeld: true }) };
    });
    for (const [key, other] of this.#own) if (holdsAlike(other, lease)) this.#own.delete(key);
    this.#own.set(lease.key, lease);
    return lease;
  }

  /** See {@link LeaseStore.renew}. */
  async renew(lease: Lease, signal: AbortSignal): Promise<Lease> {
    return await this.#write(signal, () => {
      const row = requireHeld(lease, this.#row(lease.key), (row) => this.#read(row));
      const expiry = row.expires_at_ms === null ? "never" : this.#nextExpiry();
      return this.#put({ ...lease, expiry });
    });
  }

  /**
   * See {@link LeaseStore.watch}. If the file was replaced, or the watch slept so long that traces are gone, it
   * reports what is new at once; and later a snapshot, when living nodes have had time to claim their subnets.
   */
  async *watch(signal: AbortSignal): AsyncGenerator<LeaseEvent, void, void> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    this.#changes.watch();
    let seen = -1;
    let snapshotAtMs = Infinity;
    let cleared = true;
    try {
      for (;;) {
        const seenFile = this.#moment();
        const { revision, nextEndMs } = await this.#use("read", ending, () => this.#checkState());
        if (nextEndMs !== null && nextEndMs <= this.#now()) {
          // Each write removes what has ended. If none can be made, as on a full disk, the watch reports
          // everything else all the same.
          cleared = await this.#tryClear(ending, cleared);
          if (cleared) continue;
        }
        if (this.#now() >= snapshotAtMs) {
          seen = -1;
          snapshotAtMs = Infinity;
        }
        if (revision !== seen) {
          const news = await this.#use("read", ending, () => this.#newsSince(seen));
          const first = seen < 0;
          const { put, removed } = this.#readNews(news.rows);
          seen = news.revision;
          if (first) yield { kind: "snapshot", leases: put };
          else {
            if (news.incomplete) {
              this.#metrics.watchRestarts.add();
              snapshotAtMs = this.#now() + CLAIM_MS;
            }
            const lost = news.incomplete ? await this.#use("read", ending, () => this.#lost()) : [];
            yield { kind: "changes", put, removed: [...removed, ...lost.map(({ key }) => key)] };
          }
        }
        const nextMs = Math.min(nextEndMs !== null && cleared ? nextEndMs : Infinity, snapshotAtMs);
        const waitMs = Math.max(nextMs - this.#now(), 1);
        if (!await this.#after(seenFile, waitMs, ending)) return;
      }
    } catch (error) {
      throwUnlessAborted(error, ending);
    }
  }

  /** See {@link LeaseStore.writeNote}. The first note makes the table: most clusters have none for long. */
  async writeNote(key: string, note: Note | undefined, signal: AbortSignal): Promise<void> {
    if (note === undefined && !(await this.notes(signal)).has(key)) return;
    await this.#write(signal, () => {
      this.#statement(MAKE_NOTES).run();
      this.#statement("DELETE FROM notes WHERE key = ? OR expires_at_ms <= ?").run(
        key,
        this.#now(),
      );
      if (note === undefined) return;
      this.#statement("INSERT INTO notes (key, text, expires_at_ms) VALUES (?, ?, ?)")
        .run(key, note.text, this.#now() + NOTE_TTL_MS);
    });
  }

  /** See {@link LeaseStore.notes}. */
  async notes(signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    return await this.#use("read", signal, () => {
      if (this.#statement(HAS_NOTES).get() === undefined) return new Map();
      const rows = this.#statement("SELECT key, text FROM notes WHERE expires_at_ms > ?")
        .all(this.#now()) as unknown as readonly { key: string; text: string }[];
      return new Map(rows.map(({ key, text }) => [key, text]));
    });
  }

  /** See {@link LeaseAdmin.networkConfigText}. */
  async networkConfigText(signal: AbortSignal): Promise<string | undefined> {
    return await this.#use("read", signal, () => this.#netConf());
  }

  /** See {@link LeaseAdmin.leases}. */
  async leases(signal: AbortSignal): Promise<readonly Lease[]> {
    return await this.#use(
      "read",
      signal,
      () => this.#rows().flatMap((row) => this.#read(row) ?? []),
    );
  }

  /** See {@link LeaseAdmin.reserve}. */
  async reserve(request: ReservationRequest, signal: AbortSignal): Promise<Lease> {
    await this.#letOthersClaim(signal);
    return await this.#write(signal, () => {
      const text = this.#netConf();
      if (text === undefined) throw noNetConf(this.description);
      const lease = chooseReservation(
        readNetConf(text, this.description),
        request,
        this.#rows().map((row) => ({ key: row.key, lease: this.#read(row) })),
      );
      const row = this.#row(lease.key);
      return row?.expires_at_ms === null ? lease : this.#put(lease);
    });
  }

  /** See {@link LeaseStore.release}. */
  async release(key: string, signal: AbortSignal): Promise<boolean> {
    const released = await this.#write(signal, () => this.#remove(key));
    this.#own.delete(key);
    return released;
  }

  /** Closes the file, ends every watch, and rejects what still waits. */
  [Symbol.asyncDispose](): Promise<void> {
    if (!this.#closed.signal.aborted) {
      this.#closed.abort(new RuntimeError(`${this.description} is closed`));
      this.#changes[Symbol.dispose]();
      this.#drop();
    }
    return Promise.resolve();
  }

  #drop(): void {
    this.#database?.[Symbol.dispose]();
    this.#database = undefined;
  }

  /** The file, opened again if the path names another one by now. */
  #open(): Database {
    if (this.#database?.isInPlace) return this.#database;
    this.#drop();
    const goneMs = performance.now() - (this.#goneSinceMs ?? Infinity);
    try {
      const make = this.#patient && goneMs >= RECREATE_MS;
      this.#changes.refresh();
      this.#database = Database.open(this.#path, { make, lockTimeoutMs: 0 });
      this.#goneSinceMs = undefined;
      this.#adopt(this.#database, this.#database.made);
      return this.#database;
    } catch (error) {
      this.#drop();
      if (error instanceof FileGoneError) this.#goneSinceMs ??= performance.now();
      else this.#goneSinceMs = undefined;
      throw error;
    }
  }

  /**
   * Adopts a file that was recreated, or is an older copy: gives it revisions later than all before, and the
   * net-conf. The node claims its leases again when the watch reports that they are gone.
   */
  #adopt(database: Database, made: boolean): void {
    const isOlder = this.#state().revision < this.#lastRevision;
    this.#changes.identify(database.identity, made || isOlder);
    const netConf = this.#netConf() === undefined ? this.#knownNetConf : undefined;
    if (isOlder || netConf !== undefined) {
      database.transaction("BEGIN IMMEDIATE", () => {
        if (isOlder) this.#raiseRevision(Math.max(nextBase(), this.#lastRevision));
        if (netConf !== undefined) this.#writeNetConf(netConf);
      });
      this.#changes.notify();
    }
    this.#lastRevision = this.#state().revision;
    if (made) this.#log.warn("store-recreated", `${this.description} was recreated`);
    else if (isOlder || netConf !== undefined || this.#lost().length > 0) {
      this.#log.warn("store-replaced", `${this.description} is another file than before`);
    }
  }

  /** The leases of this node that the file lacks, or that are another node's there. */
  #lost(): Lease[] {
    return [...this.#own.values()].filter((lease) => {
      const row = this.#row(lease.key);
      const stored = row && this.#read(row);
      return stored === undefined || !holdsAlike(stored, lease);
    });
  }

  /**
   * Removes what conflicts with this node's own lease: an older copy still holds leases that were given up since.
   * Once living nodes have had their time, another node may rightly have the subnet.
   */
  #clearTheWay(own: Lease): void {
    if (this.#changes.claimTimeLeftMs === 0) return;
    const subnets = own.halves.map(({ subnet }) => subnet);
    for (const row of this.#rows()) {
      const lease = this.#read(row);
      const alike = lease !== undefined && holdsAlike(lease, own);
      if (alike ? row.key !== own.key : overlaps(row.key, subnets)) this.#remove(row.key);
    }
  }

  /** Waits until living nodes have claimed their subnets in a file that replaced another. */
  async #letOthersClaim(signal: AbortSignal): Promise<void> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    for (let logged = false;; logged = true) {
      const ms = await this.#use("read", signal, () => this.#changes.claimTimeLeftMs);
      if (ms === 0) return;
      if (!logged) {
        this.#log.info(
          "store-claims-awaited",
          `${this.description} is another file than before; waiting ${ms} ms for running nodes to ` +
            "claim their subnets",
        );
      }
      await sleep(ms, ending);
      ending.throwIfAborted();
    }
  }

  /** What a watch checks, in one statement of some microseconds. */
  #state(): State {
    return this.#statement(
      "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'leases'), 0) AS revision, " +
        "wiped_revision AS wiped, (SELECT min(expires_at_ms) FROM leases) AS nextEndMs FROM state",
    ).get() as unknown as State;
  }

  /** {@link SqliteStore.#state}; adopts the file first if its content was replaced. */
  #checkState(): State {
    const { revision, wiped } = this.#state();
    const last = this.#lastRevision;
    if (revision < last || wiped > last) {
      this.#changes.refresh();
      this.#adopt(this.#database!, false);
    }
    const state = this.#state();
    this.#lastRevision = state.revision;
    return state;
  }

  /**
   * What was written after a revision. Incomplete if the revision is so old that traces were deleted since, or
   * if another file had it.
   */
  #newsSince(seen: number): { revision: number; incomplete: boolean; rows: readonly Row[] } {
    return this.#database!.transaction("BEGIN", () => {
      const { revision, wiped } = this.#state();
      const rows = this.#statement(
        `SELECT ${COLUMNS} FROM leases WHERE revision > ? ORDER BY revision`,
      ).all(seen) as unknown as Row[];
      return { revision, incomplete: seen < wiped, rows };
    });
  }

  /** Reads new rows, and takes note of what they say of this node's leases. */
  #readNews(rows: readonly Row[]): { put: Lease[]; removed: string[] } {
    const put: Lease[] = [];
    const removed: string[] = [];
    for (const row of rows) {
      const lease = this.#read(row);
      if (lease === undefined) removed.push(row.key);
      else put.push(lease);
      const own = this.#own.get(row.key);
      // The node claims a deleted lease again.
      if (own === undefined || lease === undefined) continue;
      if (holdsAlike(lease, own)) this.#own.set(row.key, lease);
      else this.#own.delete(row.key);
    }
    return { put, removed };
  }

  /** Finds leases by the table's indexes, those that can't be read too. */
  #index(): LeaseIndex<StoredLease> {
    const find = (column: string, value: string) => {
      const row = this.#statement(
        `SELECT ${COLUMNS} FROM leases WHERE ${column} = ? AND value IS NOT NULL ` +
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
    return this.#statement(`SELECT ${COLUMNS} FROM leases WHERE key = ? AND value IS NOT NULL`)
      .get(key) as Row | undefined;
  }

  #rows(): Row[] {
    return this.#statement(
      `SELECT ${COLUMNS} FROM leases WHERE value IS NOT NULL AND ifnull(expires_at_ms > ?, true) ` +
        "ORDER BY revision",
    ).all(this.#now()) as unknown as Row[];
  }

  /** Writes a lease. Returns it read back, so that this node sees its lease as the others do. */
  #put(lease: Lease): Lease {
    const value = formatLeaseValue(lease);
    const { lastInsertRowid } = this.#statement(
      "INSERT OR REPLACE INTO leases (key, value, expires_at_ms) VALUES (?, ?, ?)",
    ).run(lease.key, value, expiryMs(lease.expiry) ?? null);
    return this.#reader.read(lease.key, value, lease.expiry, Number(lastInsertRowid))!;
  }

  /** Whether there was one. */
  #remove(key: string): boolean {
    const { changes } = this.#statement(`${LEAVE_TRACE} AND key = ?`)
      .run(this.#now() + TRACE_TTL_MS, key);
    return changes > 0;
  }

  /** Whether what has ended is gone now. Logs the first of several failures in a row. */
  async #tryClear(signal: AbortSignal, complain: boolean): Promise<boolean> {
    try {
      await this.#write(signal, () => {}, false);
      return true;
    } catch (error) {
      if (signal.aborted) throw error;
      throwDefect(error);
      if (complain) {
        this.#log.error(
          "lease-expiry-failed",
          `leases that have ended can't be removed yet: ${messageOf(error)}`,
        );
      }
      return false;
    }
  }

  /** Turns leases that have ended into traces, and deletes old traces. */
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

  /** A row as a lease; `undefined` for a trace, and for what can't be read, with a warning. */
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

  /** Makes the next write's revision later than this, and all that was written before news to every watch. */
  #raiseRevision(revision: number): void {
    this.#statement("UPDATE sqlite_sequence SET seq = ? WHERE name = 'leases'").run(revision);
    this.#statement("UPDATE state SET wiped_revision = ?").run(revision);
  }

  /** Runs `body` in a transaction that writes, after it removed leases that have ended. */
  async #write<T>(signal: AbortSignal, body: () => T, patient = true): Promise<T> {
    const result = await this.#use(
      "write",
      signal,
      () =>
        this.#database!.transaction("BEGIN IMMEDIATE", () => {
          this.#clear();
          return body();
        }),
      // A node that has no lease yet rather fails.
      patient && this.#patient && this.#own.size > 0,
    );
    this.#changes.notify();
    return result;
  }

  /**
   * Runs what uses the file, again while another process has it locked; and, if `patient`, until the file can be
   * used.
   */
  async #use<T>(
    use: Use,
    signal: AbortSignal,
    body: () => T,
    patient: boolean = this.#patient,
  ): Promise<T> {
    const giveUpAtMs = performance.now() + LOCK_WAIT_MS;
    for (let reopened = false;;) {
      signal.throwIfAborted();
      this.#closed.signal.throwIfAborted();
      let waitMs = LOCK_RETRY_MS;
      this.#metrics.requests.add();
      try {
        this.#open();
        const result = body();
        this.#outage.worked(...use === "write" ? ["read", "write"] : ["read"]);
        return result;
      } catch (error) {
        if (error instanceof LeaseLostError || error instanceof ConfigError) throw error;
        this.#metrics.failures.add();
        if (!isBusy(error) || performance.now() > giveUpAtMs) {
          const failure = explain(this.#path, error);
          if (!(failure instanceof FileError)) throw failure;
          if (!isBusy(error) && !isFull(error) && this.#database !== undefined) {
            // Opening the file checks it from end to end, and so tells best what is wrong.
            this.#drop();
            if (!reopened) {
              reopened = true;
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

/** A moment at which the file was read. */
interface FileMoment {
  /** How many changes had been signalled. */
  readonly count: number;
  /** The file; `undefined` if it was not there. */
  readonly version: FileVersion | undefined;
  /** The time, in milliseconds since 1970. */
  readonly atMs: number;
}

/** What tells a file, and which files lie beside it, from itself after another write. */
interface FileVersion {
  readonly text: string;
  /** When that was, in milliseconds since 1970. */
  readonly writtenAtMs: number;
}

/** `undefined` if it is not there. */
function versionOf(path: string): FileVersion | undefined {
  try {
    const infos = [path, dirname(path)].map((name) => Deno.statSync(name));
    const parts = infos.map(({ ino, size, mtime, ctime }) =>
      `${ino} ${size} ${mtime?.getTime()} ${ctime?.getTime()}`
    );
    return {
      text: parts.join(),
      writtenAtMs: Math.max(...infos.map(({ mtime }) => mtime?.getTime() ?? 0)),
    };
  } catch (error) {
    throwDefect(error);
    return undefined;
  }
}

/** Beside the tables that every file has. */
const MAKE_NOTES = "CREATE TABLE IF NOT EXISTS notes " +
  "(key TEXT PRIMARY KEY, text TEXT NOT NULL, expires_at_ms INTEGER NOT NULL) STRICT";
const HAS_NOTES = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'notes'";

/** Replaces leases by traces. Takes when the trace ends; conditions may follow. */
const LEAVE_TRACE = "INSERT OR REPLACE INTO leases (key, value, expires_at_ms) " +
  "SELECT key, NULL, ? FROM leases WHERE value IS NOT NULL";
