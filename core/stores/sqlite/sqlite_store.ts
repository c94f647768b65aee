/**
 * Leases in a SQLite file. Every write is one transaction that takes the file's write lock at its start,
 * so that agents in several processes never give a subnet twice; each lease that it writes gets the next
 * revision, by which a watch reads just what is new.
 *
 * @module
 */

import type { DatabaseSync, StatementSync } from "node:sqlite";
import {
  chooseLease,
  chooseReservation,
  ConfigError,
  FAMILIES,
  formatLeaseValue,
  heldBefore,
  type Lease,
  LEASE_TTL_MS,
  type LeaseEvent,
  leaseHalf,
  leaseKey,
  LeaseLostError,
  LeaseReader,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  messageOf,
  type NetworkConfig,
  type NodeIdentity,
  parseNetworkConfig,
  requestedLease,
  type ReservationRequest,
  RuntimeError,
  sleep,
} from "../../mod.ts";
import { explain, isBusy, openDatabase, transaction } from "./database.ts";
import { FileChanges, ringBell } from "./file_changes.ts";

/** How often the file is looked at also where nobody was heard to write to it. */
const POLL_MS = 500;
/** How long it is tried again while another process has the lock … */
const LOCK_WAIT_MS = 10_000;
/** … and how often. */
const LOCK_RETRY_MS = 10;
/** How long the trace of a lease that is gone is kept, for watches to find. */
const TRACE_TTL_MS = 10 * 60 * 1000;

/** How a store is opened. */
export interface SqliteStoreOptions {
  /** Hears what the store waits for, and of leases that can't be read. */
  readonly log: Logger;
  /** The time in milliseconds since 1970; the system's unless given. */
  readonly now?: () => number;
}

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
export class SqliteStore implements LeaseStore {
  /** `sqlite:` and the file's path. */
  readonly description: string;
  readonly #path: string;
  readonly #db: DatabaseSync;
  readonly #log: Logger;
  readonly #reader: LeaseReader;
  readonly #now: () => number;
  readonly #statements = new Map<string, StatementSync>();
  readonly #closed = new AbortController();
  #changes: FileChanges | undefined;

  private constructor(path: string, options: SqliteStoreOptions) {
    this.description = `sqlite:${path}`;
    this.#path = path;
    this.#db = openDatabase(path);
    this.#log = options.log;
    this.#reader = new LeaseReader(this.description, options.log);
    this.#now = options.now ?? Date.now;
  }

  /**
   * Opens the file at `path`, and makes it (mode 0600) and its directory where they are not there. Throws a
   * RuntimeError that names the file where it can't be used: no right to it, not denim's, damaged, or
   * another version's.
   */
  static open(path: string, options: SqliteStoreOptions): SqliteStore {
    return new SqliteStore(path, options);
  }

  /** The net-conf in the file; waits until it has one. */
  async networkConfig(signal: AbortSignal): Promise<NetworkConfig> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    for (let waited = false;; waited = true) {
      const changes = this.#fileChanges();
      const { count } = changes;
      const text = await this.#unlocked(ending, () => this.#netConf());
      if (text !== undefined) return this.#parseNetConf(text);
      if (!waited) this.#log.info(`waiting for a net-conf in ${this.description}`);
      await changes.after(count, POLL_MS, ending);
    }
  }

  /** The net-conf, then each other one that any process writes. */
  async *watchNetworkConfig(signal: AbortSignal): AsyncGenerator<NetworkConfig, void, void> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    const changes = this.#fileChanges();
    let seen: string | undefined;
    let count: number;
    try {
      // Rejects with what is wrong with the first one; later ones harm nobody who has a good one.
      await this.networkConfig(ending);
      do {
        count = changes.count;
        const text = await this.#unlocked(ending, () => this.#netConf());
        if (text === undefined || text === seen) continue;
        seen = text;
        try {
          yield this.#parseNetConf(text);
        } catch (error) {
          if (!(error instanceof ConfigError)) throw error;
          this.#log.error(`the new net-conf is not followed: ${messageOf(error)}`);
        }
      } while (await changes.after(count, POLL_MS, ending));
    } catch (error) {
      if (!ending.aborted) throw error;
    }
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
      this.#statement("UPDATE state SET net_conf = ?").run(text);
      return true;
    });
  }

  /** The lease that a node holds; see {@link LeaseStore.held}. */
  async held(node: NodeIdentity, signal: AbortSignal): Promise<Lease | undefined> {
    return await this.#unlocked(signal, () => this.#findHeld(node)?.lease);
  }

  /** Gives a node its subnet, in one transaction; see {@link LeaseStore.acquire}. */
  async acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    await this.networkConfig(signal);
    return await this.#write(signal, () => {
      const config = this.#parseNetConf(this.#netConf()!);
      const found = this.#findHeld(request);
      const { subnets, keeps } = chooseLease(
        config,
        request,
        found?.lease,
        () => this.#keys().filter((key) => key !== found?.key),
      );
      if (found !== undefined && !keeps) {
        this.#log.warn(`the lease ${found.key} does not fit net-conf any more; leasing anew`);
        this.#remove(found.key);
      }
      const reserved = keeps && found?.lease?.expiresAtMs === undefined;
      const lease = requestedLease(
        request,
        subnets,
        reserved ? undefined : this.#now() + LEASE_TTL_MS,
      );
      return this.#put(lease);
    });
  }

  /** Lengthens a lease; see {@link LeaseStore.renew}. */
  async renew(lease: Lease, signal: AbortSignal): Promise<Lease> {
    return await this.#write(signal, () => {
      const row = this.#row(lease.key);
      if (row === undefined) {
        throw new LeaseLostError(`the lease ${lease.key} ran out or was deleted`);
      }
      const holder = this.#read(row);
      const same = lease.halves.every(({ subnet, publicIp }) =>
        holder !== undefined && leaseHalf(holder, subnet.family)?.publicIp.equals(publicIp)
      );
      if (!same) throw new LeaseLostError(`the lease ${lease.key} is another node's: ${row.value}`);
      const expiresAtMs = row.expires_at_ms === null ? undefined : this.#now() + LEASE_TTL_MS;
      return this.#put({ ...lease, expiresAtMs });
    });
  }

  /** All leases, then each change, soon after it was committed, by whichever process. */
  async *watch(signal: AbortSignal): AsyncGenerator<LeaseEvent, void, void> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    const changes = this.#fileChanges();
    let seen = -1;
    let cleared = true;
    try {
      for (;;) {
        const { count } = changes;
        const { revision, nextEndMs } = await this.#unlocked(ending, () => this.#state());
        if (nextEndMs !== null && nextEndMs <= this.#now()) {
          // Each write sees to what has run out. Where none can be made, as on a full disk, what else is new
          // is told all the same.
          cleared = await this.#tryClear(ending, cleared);
          if (cleared) continue;
        }
        if (revision !== seen) {
          const news = await this.#unlocked(
            ending,
            () => transaction(this.#db, "BEGIN", () => this.#newsSince(seen)),
          );
          seen = news.revision;
          yield news.event;
        }
        const untilEndMs = nextEndMs === null || !cleared
          ? POLL_MS
          : Math.max(nextEndMs - this.#now(), 1);
        if (!await changes.after(count, Math.min(untilEndMs, POLL_MS), ending)) return;
      }
    } catch (error) {
      if (!ending.aborted) throw error;
    }
  }

  /** The net-conf's text; see {@link LeaseStore.networkConfigText}. */
  async networkConfigText(signal: AbortSignal): Promise<string | undefined> {
    return await this.#unlocked(signal, () => this.#netConf());
  }

  /** Every lease; see {@link LeaseStore.leases}. */
  async leases(signal: AbortSignal): Promise<readonly Lease[]> {
    return await this.#write(signal, () => this.#rows().flatMap((row) => this.#read(row) ?? []));
  }

  /** Keeps subnets for a node for good; see {@link LeaseStore.reserve}. */
  async reserve(request: ReservationRequest, signal: AbortSignal): Promise<Lease> {
    return await this.#write(signal, () => {
      const text = this.#netConf();
      if (text === undefined) throw new RuntimeError("there is no net-conf yet; write one first");
      const lease = chooseReservation(
        this.#parseNetConf(text),
        request,
        this.#rows().map((row) => ({ key: row.key, lease: this.#read(row) })),
      );
      const is = this.#row(lease.key);
      return is?.expires_at_ms === null ? lease : this.#put(lease);
    });
  }

  /** Gives up a lease or a reservation; see {@link LeaseStore.release}. */
  async release(key: string, signal: AbortSignal): Promise<boolean> {
    return await this.#write(signal, () => this.#remove(key));
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
      this.#changes?.[Symbol.dispose]();
      this.#db.close();
    }
    return Promise.resolve();
  }

  #fileChanges(): FileChanges {
    return this.#changes ??= new FileChanges(this.#path, this.#log);
  }

  /** What a watch looks at, in one statement of some microseconds. */
  #state(): State {
    return this.#statement(
      "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'leases'), 0) AS revision, " +
        "wiped_revision AS wiped, (SELECT min(expires_at_ms) FROM leases) AS nextEndMs FROM state",
    ).get() as unknown as State;
  }

  /**
   * What changed after a revision: all, for one before the first, or so long ago that traces have been
   * wiped out since.
   */
  #newsSince(seen: number): { revision: number; event: LeaseEvent } {
    const { revision, wiped } = this.#state();
    const all = seen < wiped;
    const rows = this.#statement("SELECT * FROM leases WHERE revision > ? ORDER BY revision")
      .all(all ? -1 : seen) as unknown as Row[];
    const put: Lease[] = [];
    const removed: string[] = [];
    for (const row of rows) {
      const lease = this.#read(row);
      if (lease === undefined) removed.push(row.key);
      else put.push(lease);
    }
    return {
      revision,
      event: all ? { kind: "snapshot", leases: put } : { kind: "changes", put, removed },
    };
  }

  /**
   * The lease of the node's last run, else the one of the first of its public IPs that has one, which may be
   * one that can't be read.
   */
  #findHeld(node: NodeIdentity): { key: string; lease: Lease | undefined } | undefined {
    const row = this.#row(leaseKey(node.previousSubnets));
    const lease = row && (row.expires_at_ms ?? Infinity) > this.#now()
      ? this.#read(row)
      : undefined;
    if (lease !== undefined && heldBefore(node, lease)) return { key: lease.key, lease };
    for (const family of FAMILIES) {
      const publicIp = node.publicIps.get(family);
      if (publicIp === undefined) continue;
      const column = family === 4 ? "public_ip" : "public_ipv6";
      const row = this.#statement(
        `SELECT * FROM leases WHERE ${column} = ? AND ifnull(expires_at_ms > ?, true) LIMIT 1`,
      ).get(`${publicIp}`, this.#now()) as Row | undefined;
      if (row !== undefined) return { key: row.key, lease: this.#read(row) };
    }
    return undefined;
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
    return this.#statement("SELECT * FROM leases WHERE value IS NOT NULL ORDER BY revision")
      .all() as unknown as Row[];
  }

  /** Tells what was written, read back, so that this node sees its lease as the others do. */
  #put(lease: Lease): Lease {
    const value = formatLeaseValue(lease);
    const { lastInsertRowid } = this.#statement(
      "INSERT OR REPLACE INTO leases (key, value, expires_at_ms) VALUES (?, ?, ?)",
    ).run(lease.key, value, lease.expiresAtMs ?? null);
    return this.#reader.read(lease.key, value, lease.expiresAtMs, Number(lastInsertRowid))!;
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
      await this.#write(signal, () => {});
      return true;
    } catch (error) {
      if (signal.aborted) throw error;
      if (complain) this.#log.error(`leases that ran out stay for now: ${messageOf(error)}`);
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
    return this.#reader.read(row.key, row.value, row.expires_at_ms ?? undefined, row.revision);
  }

  #netConf(): string | undefined {
    const row = this.#statement("SELECT net_conf FROM state").get() as { net_conf: string | null };
    return row.net_conf ?? undefined;
  }

  #parseNetConf(text: string): NetworkConfig {
    try {
      return parseNetworkConfig(text);
    } catch (error) {
      throw new ConfigError(`${this.description}: ${messageOf(error)}`);
    }
  }

  /** Runs `body` in a transaction that writes, and that finds no lease which has run out. */
  async #write<T>(signal: AbortSignal, body: () => T): Promise<T> {
    const result = await this.#unlocked(
      signal,
      () =>
        transaction(this.#db, "BEGIN IMMEDIATE", () => {
          this.#clear();
          return body();
        }),
    );
    ringBell(this.#path);
    return result;
  }

  /** Runs what uses the file, again where another process has it locked. */
  async #unlocked<T>(signal: AbortSignal, body: () => T): Promise<T> {
    const giveUpAtMs = performance.now() + LOCK_WAIT_MS;
    for (;;) {
      signal.throwIfAborted();
      this.#closed.signal.throwIfAborted();
      try {
        return body();
      } catch (error) {
        if (error instanceof LeaseLostError || error instanceof ConfigError) throw error;
        if (!isBusy(error) || performance.now() > giveUpAtMs) throw explain(this.#path, error);
      }
      await sleep(LOCK_RETRY_MS, signal);
    }
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}

/** Puts traces in the place of leases; takes when the trace expires, and more conditions. */
const LEAVE_TRACE = "INSERT OR REPLACE INTO leases (key, value, expires_at_ms) " +
  "SELECT key, NULL, ? FROM leases WHERE value IS NOT NULL";
