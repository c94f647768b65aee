/**
 * denim's SQLite file: how it is made, told from other files, and what its failures mean.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import { messageOf, RuntimeError } from "../../mod.ts";

/** "deni" in ASCII: tells denim's files from other programs' (`PRAGMA application_id`). */
const APPLICATION_ID = 0x64656e69;
/** Raised with every change to the tables (`PRAGMA user_version`). */
const SCHEMA_VERSION = 1;
/** How long SQLite itself waits for a lock: no longer than a program may be deaf to its signals. */
const BUSY_TIMEOUT_MS = 100;
/** As long when the file is opened, where nothing else is under way yet. */
const OPEN_TIMEOUT_MS = 10_000;
const OPEN_RETRY_MS = 5;

const SCHEMA = `
  CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    net_conf TEXT,
    -- Traces of leases up to this revision may have been wiped out.
    wiped_revision INTEGER NOT NULL
  ) STRICT;
  INSERT INTO state VALUES (1, NULL, 0);
  -- Each write of a lease makes a new row with the next revision in place of the key's old one, so that
  -- what is new since a revision is the end of the table. A lease that is gone leaves a trace: a row
  -- without a value, which goes in its turn when it expires.
  CREATE TABLE leases (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    value TEXT,
    expires_at_ms INTEGER,
    public_ip TEXT GENERATED ALWAYS AS (value ->> 'PublicIP') VIRTUAL,
    public_ipv6 TEXT GENERATED ALWAYS AS (value ->> 'PublicIPv6') VIRTUAL
  ) STRICT;
  CREATE INDEX leases_by_expiry ON leases (expires_at_ms);
  CREATE INDEX leases_by_public_ip ON leases (public_ip);
  CREATE INDEX leases_by_public_ipv6 ON leases (public_ipv6);
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

/**
 * Opens the file at `path`, and makes it (mode 0600) and its directory where they are not there. Throws a
 * RuntimeError that names the file where it can't be used: no right to it, not denim's, damaged, or
 * another version's.
 */
export function openDatabase(path: string): DatabaseSync {
  let db: DatabaseSync | undefined;
  try {
    const directory = path.replace(/[^/]*$/, "");
    if (directory !== "") Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
    makeFile(path);
    db = new DatabaseSync(path);
    db.exec(`PRAGMA busy_timeout = ${OPEN_TIMEOUT_MS}`);
    untilUnlocked(() => prepare(db!));
    // Known as ours by now. SQLite gives the files that it puts beside it the same mode.
    if (Deno.statSync(path).mode! & 0o077) makePrivate(path);
    // Readers and the writer don't wait for each other, and a look at the file takes some microseconds.
    untilUnlocked(() => db!.exec("PRAGMA journal_mode = WAL"));
    // In WAL mode only this makes each commit last through a loss of power.
    db.exec("PRAGMA synchronous = FULL");
    db.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    return db;
  } catch (error) {
    db?.close();
    throw explain(path, error);
  }
}

/**
 * Tries again what another process's lock keeps from being done. SQLite itself does not wait for the locks
 * that a change of the journal's mode takes, and agents that start together all make that change.
 */
function untilUnlocked(body: () => void): void {
  const deadlineMs = performance.now() + OPEN_TIMEOUT_MS;
  const nobody = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    try {
      return body();
    } catch (error) {
      if (!isBusy(error) || performance.now() > deadlineMs) throw error;
      Atomics.wait(nobody, 0, 0, OPEN_RETRY_MS);
    }
  }
}

/**
 * Makes the file where it is not there. One that is there is not opened: closing it again would end the locks
 * that another connection of this process has on it (fcntl(2)).
 */
function makeFile(path: string): void {
  try {
    Deno.openSync(path, { createNew: true, write: true, mode: 0o600 }).close();
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    if (Deno.statSync(path).isDirectory) throw new RuntimeError("Is a directory");
  }
}

/** Takes away others' rights to a file, and to those beside it, which may go at any time. */
function makePrivate(path: string): void {
  for (const file of [path, `${path}-wal`, `${path}-shm`]) {
    try {
      Deno.chmodSync(file, 0o600);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/** Makes a new file denim's, and refuses a file that is not. */
function prepare(db: DatabaseSync): void {
  const pragma = (name: string) =>
    Object.values(db.prepare(`PRAGMA ${name}`).get() as Record<string, unknown>)[0];
  transaction(db, "BEGIN IMMEDIATE", () => {
    const tables = db.prepare("SELECT 1 FROM sqlite_schema LIMIT 1").get();
    const [application, version] = [pragma("application_id"), pragma("user_version")];
    if (tables === undefined && application === 0 && version === 0) db.exec(SCHEMA);
    else if (application !== APPLICATION_ID) {
      throw new RuntimeError("is another program's database; choose another path");
    } else if (version !== SCHEMA_VERSION) {
      throw new RuntimeError(
        `was written by another version of denim (tables of version ${version}, this one has ` +
          `${SCHEMA_VERSION}); run that one, or move the file away: nodes then lease anew`,
      );
    }
  });
}

/** Runs `body` in a transaction, all of which happens or none. */
export function transaction<T>(
  db: DatabaseSync,
  begin: "BEGIN" | "BEGIN IMMEDIATE",
  body: () => T,
): T {
  db.exec(begin);
  try {
    const result = body();
    db.exec("COMMIT");
    return result;
  } catch (error) {
    try {
      db.exec("ROLLBACK");
    } catch {
      // After a full disk, among others, SQLite has rolled back by itself.
    }
    throw error;
  }
}

/** Whether a failure is only that another process held a lock (`SQLITE_BUSY`, `SQLITE_PROTOCOL`). */
export function isBusy(error: unknown): boolean {
  return ["database is locked", "locking protocol"].includes(messageOf(error));
}

/** A failure as a RuntimeError that names the file and, where the file is the fault, says what to do. */
export function explain(path: string, error: unknown): RuntimeError {
  const message = messageOf(error);
  const advice = /malformed|not a database/.test(message)
    ? ": it is damaged, or no SQLite file; move it away and nodes lease anew, or choose another path"
    : isBusy(error)
    ? `: another process keeps it locked; \`fuser ${path}\` shows which`
    : "";
  return new RuntimeError(`sqlite:${path}: ${message}${advice}`);
}
