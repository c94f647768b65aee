/**
 * Leases in a SQLite file. Every write is one transaction that takes the file's write lock at its start,
 * so that agents in several processes never give a subnet twice; each raises one revision number, by
 * which a watch reads just what is new.
 *
 * @module
 */

import { DatabaseSync, type StatementSync } from "node:sqlite";
import {
  type Cidr,
  ConfigError,
  type FamilyConfig,
  formatLeaseValue,
  isLeasable,
  type Lease,
  LEASE_TTL_MS,
  type LeaseEvent,
  type LeaseHalf,
  leaseKey,
  LeaseLostError,
  type LeaseRequest,
  type LeaseStore,
  type Logger,
  messageOf,
  type NetworkConfig,
  type NodeIdentity,
  parseLease,
  parseLeaseKey,
  parseNetworkConfig,
  RuntimeError,
  sleep,
  SubnetAllocator,
} from "../../mod.ts";

/** "deni" in ASCII: tells denim's files from other programs' (`PRAGMA application_id`). */
const APPLICATION_ID = 0x64656e69;
/** Raised with every change to the tables (`PRAGMA user_version`). */
const SCHEMA_VERSION = 1;
/** How often another process's writes are looked for. One look costs some microseconds. */
const POLL_MS = 20;
/** How long a write waits for another process's. */
const BUSY_TIMEOUT_MS = 10_000;
/** How long the file remembers that a lease is gone, for watchers that were asleep. */
const TOMBSTONE_MS = 60 * 60 * 1000;

const SCHEMA = `
  CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    net_conf TEXT
  ) STRICT;
  INSERT INTO state VALUES (1, 0, NULL);
  -- A lease that is gone stays for a while with neither value nor public IP.
  CREATE TABLE leases (
    key TEXT PRIMARY KEY,
    value TEXT,
    public_ip TEXT,
    expires_at_ms INTEGER,
    removed_at_ms INTEGER,
    revision INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX leases_by_revision ON leases (revision);
  CREATE INDEX leases_by_public_ip ON leases (public_ip) WHERE public_ip IS NOT NULL;
  CREATE INDEX leases_by_expiry ON leases (expires_at_ms) WHERE expires_at_ms IS NOT NULL;
  CREATE INDEX leases_by_removal ON leases (removed_at_ms) WHERE removed_at_ms IS NOT NULL;
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

/** How a store is opened. */
export interface SqliteStoreOptions {
  /** Hears of leases that can't be read. */
  readonly log: Logger;
  /** The time in milliseconds since 1970; the system's unless given. */
  readonly now?: () => number;
}

interface LeaseRow {
  readonly key: string;
  readonly value: string | null;
  readonly expires_at_ms: number | null;
}

/** Leases in one file. Synchronous inside: a transaction never waits for anything but the file. */
export class SqliteStore implements LeaseStore {
  readonly description: string;
  readonly #db: DatabaseSync;
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #statements = new Map<string, StatementSync>();
  readonly #closed = new AbortController();

  private constructor(path: string, db: DatabaseSync, options: SqliteStoreOptions) {
    this.description = `sqlite:${path}`;
    this.#db = db;
    this.#log = options.log;
    this.#now = options.now ?? Date.now;
  }

  /**
   * Opens the file at `path`, and makes it (mode 0600) and its directory where they are not there. Throws a
   * RuntimeError that names the file where it can't be used: no right to it, not denim's, damaged, or a
   * later version's.
   */
  static open(path: string, options: SqliteStoreOptions): SqliteStore {
    let db: DatabaseSync | undefined;
    try {
      const directory = path.replace(/\/?[^/]*$/, "");
      if (directory !== "") Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
      Deno.openSync(path, { create: true, write: true, mode: 0o600 }).close();
      db = new DatabaseSync(path);
      db.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
      prepare(db);
      return new SqliteStore(path, db, options);
    } catch (error) {
      db?.close();
      throw explain(`sqlite:${path}`, error);
    }
  }

  /** @inheritdoc */
  async networkConfig(signal: AbortSignal): Promise<NetworkConfig> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    let waited = false;
    for (;;) {
      ending.throwIfAborted();
      const text = this.#try(() => this.#readNetConf());
      if (text !== undefined) return parseNetworkConfig(text);
      if (!waited) this.#log.info(`waiting for a net-conf in ${this.description}`);
      waited = true;
      await sleep(POLL_MS, ending);
    }
  }

  /** @inheritdoc */
  setNetworkConfig(
    text: string,
    options: { readonly ifAbsent: boolean },
    signal: AbortSignal,
  ): Promise<boolean> {
    return this.#write(signal, (revision) => {
      if (options.ifAbsent && this.#readNetConf() !== undefined) return false;
      parseNetworkConfig(text);
      this.#statement("UPDATE state SET net_conf = ?, revision = ?").run(text, revision);
      return true;
    });
  }

  /** @inheritdoc */
  held(node: NodeIdentity, signal: AbortSignal): Promise<Lease | undefined> {
    return this.#write(signal, () => {
      const row = this.#findByPublicIp(node);
      return row && this.#read(row);
    });
  }

  /** @inheritdoc */
  acquire(request: LeaseRequest, signal: AbortSignal): Promise<Lease> {
    return this.#write(signal, (revision) => {
      const text = this.#readNetConf();
      if (text === undefined) throw new RuntimeError("there is no net-conf");
      const config = parseNetworkConfig(text);
      const row = this.#findByPublicIp(request);
      const reservation = row !== undefined && row.expires_at_ms === null;
      let subnets = row && parseLeaseKey(row.key);
      if (row !== undefined && !fits(config, subnets)) {
        this.#log.warn(
          `lease ${row.key} of this node does not fit net-conf; leasing another subnet`,
        );
        this.#remove(row.key, revision);
        subnets = undefined;
      }
      subnets ??= this.#choose(config, request.previousSubnets);
      const lease: Lease = {
        key: leaseKey(subnets),
        backendType: request.backendType,
        halves: subnets.map((subnet): LeaseHalf => ({
          subnet,
          publicIp: request.publicIps.get(subnet.family)!,
          backendData: request.backendData.get(subnet.family),
        })),
        expiresAtMs: reservation ? undefined : this.#now() + LEASE_TTL_MS,
      };
      this.#put(lease, revision);
      return lease;
    });
  }

  /** The last run's subnets where they are all free, else free ones at random. */
  #choose(config: NetworkConfig, previous: readonly Cidr[]): readonly Cidr[] {
    const held = (this.#statement("SELECT key FROM leases WHERE value IS NOT NULL").all() as {
      key: string;
    }[]).flatMap(({ key }) => parseLeaseKey(key) ?? []);
    const wanted = config.families.flatMap(({ family }) =>
      previous.find((subnet) => subnet.family === family) ?? []
    );
    if (fits(config, wanted) && !wanted.some((want) => held.some((have) => have.overlaps(want)))) {
      return wanted;
    }
    return config.families.map((family) => {
      const subnet = new SubnetAllocator(family, held).pick();
      if (subnet !== undefined) return subnet;
      throw new RuntimeError(
        `the network ${family.network} is full: every /${family.subnetLength} from ` +
          `${family.subnetMin} to ${family.subnetMax} is leased; give up leases that nobody uses, or ` +
          "enlarge the network in net-conf",
      );
    });
  }

  /** @inheritdoc */
  renew(lease: Lease, signal: AbortSignal): Promise<Lease> {
    return this.#write(signal, (revision) => {
      const row = this.#statement(
        "SELECT key, value, expires_at_ms FROM leases WHERE key = ? AND public_ip = ?",
      ).get(lease.key, publicIpOf(lease)) as LeaseRow | undefined;
      if (row === undefined) {
        throw new LeaseLostError(`the lease ${lease.key} is no longer this node's`);
      }
      const expiresAtMs = row.expires_at_ms === null ? undefined : this.#now() + LEASE_TTL_MS;
      const renewed = { ...lease, expiresAtMs };
      this.#put(renewed, revision);
      return renewed;
    });
  }

  /** Writes leases as they are, in one transaction: reservations, and others' of a test or a bench. */
  putLeases(leases: Iterable<Lease>, signal: AbortSignal): Promise<void> {
    return this.#write(signal, (revision) => {
      for (const lease of leases) this.#put(lease, revision);
    });
  }

  /** Gives up the leases with these keys, in one transaction. */
  removeLeases(keys: Iterable<string>, signal: AbortSignal): Promise<void> {
    return this.#write(signal, (revision) => {
      for (const key of keys) this.#remove(key, revision);
    });
  }

  /** @inheritdoc */
  async *watch(signal: AbortSignal): AsyncGenerator<LeaseEvent, void, void> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    const unreadable = new Set<string>();
    let seen = -1;
    let lookedAtMs = this.#now();
    while (!ending.aborted) {
      // Asleep for longer than removals are remembered: only a new snapshot is the truth.
      if (Math.abs(this.#now() - lookedAtMs) > TOMBSTONE_MS / 2) seen = -1;
      lookedAtMs = this.#now();
      const news = this.#try(() => this.#newsSince(seen));
      if (news !== undefined) {
        const first = seen < 0;
        seen = news.revision;
        const put = news.rows.flatMap((row) =>
          row.value === null ? [] : this.#read(row, unreadable) ?? []
        );
        const removed = news.rows.filter(({ value }) => value === null).map(({ key }) => key);
        if (first) yield { kind: "snapshot", leases: put };
        else if (put.length > 0 || removed.length > 0) yield { kind: "changes", put, removed };
      }
      await sleep(POLL_MS, ending);
    }
  }

  /** What changed after a revision; all leases after −1; `undefined` where nothing did. */
  #newsSince(seen: number): { revision: number; rows: LeaseRow[] } | undefined {
    const overdue = this.#statement(
      "SELECT 1 FROM leases WHERE expires_at_ms <= ? LIMIT 1",
    ).get(this.#now());
    if (overdue !== undefined) this.#transaction(() => {});
    if (this.#revision() === seen) return undefined;
    // In one reading transaction, so that the revision is that of the rows.
    this.#db.exec("BEGIN");
    try {
      const rows = this.#statement(
        "SELECT key, value, expires_at_ms FROM leases WHERE revision > ?" +
          (seen < 0 ? " AND value IS NOT NULL" : ""),
      ).all(seen) as unknown as LeaseRow[];
      return { revision: this.#revision(), rows };
    } finally {
      this.#db.exec("COMMIT");
    }
  }

  #revision(): number {
    const row = this.#statement("SELECT revision FROM state").get() as { revision: number };
    return row.revision;
  }

  #readNetConf(): string | undefined {
    const row = this.#statement("SELECT net_conf FROM state").get() as { net_conf: string | null };
    return row.net_conf ?? undefined;
  }

  #findByPublicIp(node: NodeIdentity): LeaseRow | undefined {
    const publicIp = node.publicIps.get(4) ?? node.publicIps.get(6);
    return this.#statement(
      "SELECT key, value, expires_at_ms FROM leases WHERE public_ip = ?",
    ).get(`${publicIp}`) as LeaseRow | undefined;
  }

  #put(lease: Lease, revision: number): void {
    this.#statement("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, NULL, ?)").run(
      lease.key,
      formatLeaseValue(lease),
      publicIpOf(lease),
      lease.expiresAtMs ?? null,
      revision,
    );
  }

  #remove(key: string, revision: number): void {
    this.#statement(`${REMOVE} WHERE key = ? AND value IS NOT NULL`).run(
      this.#now(),
      revision,
      key,
    );
  }

  /** A row as a lease; one that can't be read is left out, with one warning. */
  #read(row: LeaseRow, unreadable?: Set<string>): Lease | undefined {
    try {
      return parseLease(row.key, row.value!, row.expires_at_ms ?? undefined);
    } catch (error) {
      const message = messageOf(error);
      if (unreadable?.has(message) !== true) this.#log.warn(message);
      unreadable?.add(message);
      return undefined;
    }
  }

  // deno-lint-ignore require-await -- throws become rejections
  async #write<T>(signal: AbortSignal, body: (revision: number) => T): Promise<T> {
    signal.throwIfAborted();
    return this.#try(() => this.#transaction(body));
  }

  /** Runs `body` with the file's write lock held, after what is over has been cleared away. */
  #transaction<T>(body: (revision: number) => T): T {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      const before = this.#totalChanges();
      const revision = this.#revision() + 1;
      const nowMs = this.#now();
      this.#statement(`${REMOVE} WHERE expires_at_ms <= ?`).run(nowMs, revision, nowMs);
      this.#statement("DELETE FROM leases WHERE removed_at_ms <= ?").run(nowMs - TOMBSTONE_MS);
      const result = body(revision);
      if (this.#totalChanges() !== before) {
        this.#statement("UPDATE state SET revision = ?").run(revision);
      }
      this.#db.exec("COMMIT");
      return result;
    } catch (error) {
      this.#db.exec("ROLLBACK");
      throw error;
    }
  }

  #totalChanges(): number {
    const row = this.#statement("SELECT total_changes() AS changes").get() as { changes: number };
    return row.changes;
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #try<T>(body: () => T): T {
    try {
      return body();
    } catch (error) {
      throw explain(this.description, error);
    }
  }

  /** Closes the file and ends every watch. */
  [Symbol.asyncDispose](): Promise<void> {
    if (!this.#closed.signal.aborted) {
      this.#closed.abort(new RuntimeError(`${this.description} is closed`));
      this.#db.close();
    }
    return Promise.resolve();
  }
}

/** Makes a lease one that is gone. */
const REMOVE = "UPDATE leases SET value = NULL, public_ip = NULL, expires_at_ms = NULL, " +
  "removed_at_ms = ?, revision = ?";

/** The public IP by which a node is known again: as flannel's, the IPv4 one where there is one. */
function publicIpOf(lease: Lease): string {
  return `${lease.halves[0]!.publicIp}`;
}

/** Whether subnets are what net-conf gives a node: one of each enabled family, each one leasable. */
function fits(config: NetworkConfig, subnets: readonly Cidr[] | undefined): boolean {
  return subnets?.length === config.families.length &&
    config.families.every((family: FamilyConfig) =>
      subnets.some((subnet) => isLeasable(family, subnet))
    );
}

/** Makes a new file denim's, and refuses a file that is not. */
function prepare(db: DatabaseSync): void {
  const pragma = (name: string) =>
    (db.prepare(`PRAGMA ${name}`).get() as Record<string, number>)[name];
  db.exec("PRAGMA journal_mode = WAL");
  // In WAL mode only this makes each commit last through a loss of power.
  db.exec("PRAGMA synchronous = FULL");
  db.exec("BEGIN IMMEDIATE");
  try {
    const tables = db.prepare("SELECT count(*) AS count FROM sqlite_schema").get() as {
      count: number;
    };
    if (tables.count === 0) db.exec(SCHEMA);
    else if (pragma("application_id") !== APPLICATION_ID) {
      throw new RuntimeError("is another program's database; choose another path");
    } else if (pragma("user_version") !== SCHEMA_VERSION) {
      throw new RuntimeError(
        `has version ${
          pragma("user_version")
        } of the tables, this denim knows ${SCHEMA_VERSION}; ` +
          "use the denim that wrote it",
      );
    }
    db.exec("COMMIT");
  } catch (error) {
    db.exec("ROLLBACK");
    throw error;
  }
}

/** Names the store in a failure, and where SQLite says that the file is broken, what to do. */
function explain(store: string, error: unknown): unknown {
  if (error instanceof LeaseLostError || error instanceof ConfigError) return error;
  const message = messageOf(error);
  const broken = /malformed|not a database|disk image/.test(message);
  return new RuntimeError(
    `${store}: ${message}` +
      (broken ? "; move the file away, and the nodes will lease their subnets anew" : ""),
  );
}
