/**
 * denim's SQLite file: how it is created, recognised and checked, and what its failures mean.
 *
 * @module
 */

import { DatabaseSync, type StatementSync } from "node:sqlite";
import { dirname } from "node:path";
import { messageOf, RuntimeError, throwDefect } from "../../mod.ts";

/** `PRAGMA application_id` of denim's files: "deni" in ASCII. */
const APPLICATION_ID = 0x64656e69;
/** `PRAGMA user_version`: raised with each change to the tables. */
const SCHEMA_VERSION = 1;
/** SQLite's smallest page, in bytes: no database is shorter. */
const MIN_LENGTH = 512;
/** How long SQLite itself waits for a lock, during which the program can't react to signals. */
const BUSY_TIMEOUT_MS = 100;
/** The wait between attempts to open a locked file. */
const OPEN_RETRY_MS = 5;

/** The tables of a file whose revisions count from `base`. */
const schema = (base: number) => `
  CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    net_conf TEXT,
    -- Traces of leases up to this revision may have been deleted.
    wiped_revision INTEGER NOT NULL
  ) STRICT;
  INSERT INTO state VALUES (1, NULL, ${base});
  -- Each write of a lease replaces the key's row by one with the next revision, so that what is new since a
  -- revision is the end of the table. A lease that is gone leaves a trace: a row without a value, which is
  -- deleted when it expires.
  CREATE TABLE leases (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    value TEXT,
    expires_at_ms INTEGER,
    public_ip TEXT GENERATED ALWAYS AS (value ->> 'PublicIP') VIRTUAL,
    public_ipv6 TEXT GENERATED ALWAYS AS (value ->> 'PublicIPv6') VIRTUAL
  ) STRICT;
  INSERT INTO sqlite_sequence VALUES ('leases', ${base});
  CREATE INDEX leases_by_expiry ON leases (expires_at_ms);
  CREATE INDEX leases_by_public_ip ON leases (public_ip);
  CREATE INDEX leases_by_public_ipv6 ON leases (public_ipv6);
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

/**
 * The revision from which a file counts that is created now, or restored from a copy: later than those of any
 * file before, because no cluster writes a thousand times a millisecond.
 */
export function nextBase(): number {
  return Date.now() * 1000;
}

/** The file can't be used as it is. */
export class FileError extends RuntimeError {
  /** What is wrong, and what to do; the message has the file's name before it. */
  readonly reason: string;

  /** For the file at `path`. */
  constructor(path: string, reason: string, options?: ErrorOptions) {
    super(`sqlite:${path}: ${reason}`, options);
    this.reason = reason;
  }
}

/** What the check from end to end found. */
class MalformedError extends Error {}

/** There is no file, or it is empty. */
export class FileGoneError extends FileError {
  /** For the file at `path`. */
  constructor(path: string) {
    super(path, "the file is gone; running agents recreate it");
  }
}

/** How a file is opened. */
export interface OpenOptions {
  /** Whether to create it if it is missing. */
  readonly make: boolean;
  /** How long to wait for another process's lock, during which the program can't react to signals. */
  readonly lockTimeoutMs: number;
}

/** An open file. */
export class Database implements Disposable {
  /** The connection. */
  readonly sql: DatabaseSync;
  /** Which file it is, whatever its name: its device, its inode, and when that was created. */
  readonly identity: string;
  /** Whether it was created just now. */
  readonly made: boolean;
  readonly #path: string;
  readonly #statements = new Map<string, StatementSync>();

  private constructor(path: string, sql: DatabaseSync, identity: string, made: boolean) {
    this.#path = path;
    this.sql = sql;
    this.identity = identity;
    this.made = made;
  }

  /**
   * Opens the file at `path` and checks it from end to end; with `make`, creates it (mode 0600) and its directory
   * if they are missing. Throws a FileError, which says what to do, if it can't be used: no right to it, not
   * denim's, damaged, or another version's.
   */
  static open(path: string, { make, lockTimeoutMs }: OpenOptions): Database {
    let sql: DatabaseSync | undefined;
    try {
      if (make) makeFile(path);
      const file = statOf(path);
      if (file?.isDirectory) throw new FileError(path, "is a directory; choose another path");
      if (file === undefined || file.size === 0 && !make) throw new FileGoneError(path);
      // SQLite may take such a file for an empty one.
      if (file.size > 0 && file.size < MIN_LENGTH) throw new MalformedError("malformed: cut short");
      refuseStrangersLog(path);
      sql = new DatabaseSync(path);
      const connection = sql;
      sql.exec(`PRAGMA busy_timeout = ${Math.min(BUSY_TIMEOUT_MS, lockTimeoutMs)}`);
      const made = untilUnlocked(lockTimeoutMs, () => prepare(path, connection));
      // It is denim's, as `prepare` has checked. SQLite gives the files beside it the same mode.
      if (file.mode! & 0o077) Deno.chmodSync(path, 0o600);
      untilUnlocked(lockTimeoutMs, () => setUp(connection));
      return new Database(path, sql, identityOf(file), made);
    } catch (error) {
      sql?.close();
      throw explain(path, error);
    }
  }

  /** Whether its path still names this file, with no other's log beside it. */
  get isInPlace(): boolean {
    const file = statOf(this.#path);
    return file !== undefined && file.size > 0 && identityOf(file) === this.identity &&
      statOf(`${this.#path}-wal`) === undefined;
  }

  /** A prepared statement. */
  statement(text: string): StatementSync {
    let statement = this.#statements.get(text);
    if (statement === undefined) {
      statement = this.sql.prepare(text);
      this.#statements.set(text, statement);
    }
    return statement;
  }

  /** Runs `body` in a transaction, all of which happens or none. */
  transaction<T>(begin: "BEGIN" | "BEGIN IMMEDIATE", body: () => T): T {
    return transaction(this.sql, begin, body);
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.sql.close();
  }
}

function statOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Not the inode alone: the file system may give its number to the next file. */
function identityOf({ dev, ino, birthtime }: Deno.FileInfo): string {
  return `${dev}:${ino}:${birthtime?.getTime() ?? ""}`;
}

/** Repeats what another process's lock prevents: agents that start together all create the file. */
function untilUnlocked<T>(timeoutMs: number, body: () => T): T {
  const deadlineMs = performance.now() + timeoutMs;
  const unchanged = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    try {
      return body();
    } catch (error) {
      if (!isBusy(error) || performance.now() > deadlineMs) throw error;
      Atomics.wait(unchanged, 0, 0, OPEN_RETRY_MS);
    }
  }
}

function makeFile(path: string): void {
  Deno.mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  try {
    Deno.openSync(path, { createNew: true, write: true, mode: 0o600 }).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
}

/**
 * Refuses a write-ahead log beside a file that uses none, as there may be after a copy replaced the file: SQLite
 * would write another file's log into this one, and find nothing wrong.
 */
function refuseStrangersLog(path: string): void {
  if (statOf(`${path}-wal`) === undefined) return;
  using file = Deno.openSync(path);
  const header = new Uint8Array(20);
  file.readSync(header);
  // The "file format write version" (https://www.sqlite.org/fileformat.html): 1 without such a log.
  if (header[18] === 1) {
    throw new FileError(path, `${path}-wal is not this file's; move it away`);
  }
}

/** Creates the tables in an empty file; checks any other. Returns whether it was empty. */
function prepare(path: string, sql: DatabaseSync): boolean {
  const pragma = (name: string) =>
    Object.values(sql.prepare(`PRAGMA ${name}`).get() as Record<string, unknown>)[0];
  const isEmpty = () =>
    sql.prepare("SELECT 1 FROM sqlite_schema LIMIT 1").get() === undefined &&
    pragma("application_id") === 0 && pragma("user_version") === 0;
  const made = isEmpty() && transaction(sql, "BEGIN IMMEDIATE", () => {
    if (!isEmpty()) return false;
    sql.exec(schema(nextBase()));
    return true;
  });
  const version = pragma("user_version");
  if (pragma("application_id") !== APPLICATION_ID) {
    throw new FileError(path, "is another program's database; choose another path");
  }
  if (version !== SCHEMA_VERSION) {
    throw new FileError(
      path,
      `was written by another version of denim (tables of version ${version}, this one has ` +
        `${SCHEMA_VERSION}); run that one, or move the file away: nodes then lease again`,
    );
  }
  const verdict = pragma("integrity_check(1)");
  if (verdict !== "ok") throw new MalformedError(`malformed: ${verdict}`.replaceAll("\n", " "));
  const state = sql.prepare("SELECT net_conf, wiped_revision FROM state").get();
  if (state === undefined) throw new MalformedError("malformed: a row is missing");
  sql.prepare("SELECT revision, key, value, expires_at_ms, public_ip, public_ipv6 FROM leases");
  return made;
}

/**
 * Uses a rollback journal rather than a write-ahead log: between two writes the one file holds everything, so that
 * it can be copied, restored, moved and deleted, and nothing of it is mapped into memory.
 */
function setUp(sql: DatabaseSync): void {
  sql.exec("PRAGMA journal_mode = TRUNCATE");
  // A commit survives a loss of power.
  sql.exec("PRAGMA synchronous = FULL");
  sql.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
}

function transaction<T>(
  sql: DatabaseSync,
  begin: "BEGIN" | "BEGIN IMMEDIATE",
  body: () => T,
): T {
  sql.exec(begin);
  try {
    const result = body();
    sql.exec("COMMIT");
    return result;
  } catch (error) {
    try {
      sql.exec("ROLLBACK");
    } catch {
      // SQLite has rolled back by itself, as it does when the disk is full.
    }
    throw error;
  }
}

// node:sqlite gives its errors no number in Deno, so that SQLite's messages are all there is to go by.

/** Whether another process held a lock (`SQLITE_BUSY`, `SQLITE_PROTOCOL`). */
export function isBusy(error: unknown): boolean {
  return /database is locked|locking protocol/.test(messageOf(error));
}

/** Whether the disk is full (`SQLITE_FULL`): the file can still be read. */
export function isFull(error: unknown): boolean {
  return /disk is full/.test(messageOf(error));
}

/** Whether a failure is SQLite's or the file system's, rather than denim's. */
function isFilesFault(error: unknown): boolean {
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return error instanceof MalformedError ||
    typeof code === "string" && /^(ERR_SQLITE_ERROR|E[A-Z0-9]+)$/.test(code);
}

/** What to do about a failure, by what SQLite or the system say of it. */
const ADVICE: readonly (readonly [says: RegExp, advice: string])[] = [
  [
    /malformed|not a database|no such (table|column)/,
    "it is damaged, or not an SQLite file; move it away and nodes lease again, or restore a copy",
  ],
  [
    /database is locked|locking protocol/,
    "another process keeps it locked; `fuser PATH` shows which",
  ],
  [/disk is full|os error 28/, "make room on its file system"],
  [/readonly database|os error 30/, "it or its file system is read-only; make it writable"],
  [/unable to open|os error 13/, "it may not be read and written by this user; run as root"],
  [/disk I\/O error/, "its disk has a fault, of which the kernel's log (dmesg) tells more"],
];

/**
 * A failure as a RuntimeError that names the file and, if the file is at fault, says what to do. Throws a defect of
 * denim's own as it is.
 */
export function explain(path: string, error: unknown): RuntimeError {
  if (error instanceof FileError) return error;
  if (!isFilesFault(error)) throwDefect(error);
  const message = messageOf(error);
  const advice = ADVICE.find(([says]) => says.test(message))?.[1].replace("PATH", path);
  const text = advice === undefined ? message : `${message}: ${advice}`;
  return isFilesFault(error)
    ? new FileError(path, text, { cause: error })
    : new RuntimeError(`sqlite:${path}: ${text}`, { cause: error });
}
