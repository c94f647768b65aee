/**
 * Leases in a SQLite store, written by hand: as a person with SQLite's shell would, past all that the store checks.
 *
 * @module
 */

import { expiryMs, formatLeaseValue, type Lease } from "@denim/core";
import { DatabaseSync } from "node:sqlite";

/** How long the trace of a deleted lease stays, in milliseconds: as long as the store's own. */
const TRACE_TTL_MS = 10 * 60 * 1000;

/** Writes to a store that exists. */
export class SqliteLeases {
  readonly #path: string;
  readonly #now: () => number;

  /** The store at `path`. */
  constructor(path: string, now: () => number = Date.now) {
    this.#path = path;
    this.#now = now;
  }

  /** Writes leases as they are, in one transaction. */
  put(leases: Iterable<Lease>): void {
    this.#write((db) => {
      const insert = db.prepare(
        "INSERT OR REPLACE INTO leases (key, value, expires_at_ms) VALUES (?, ?, ?)",
      );
      for (const lease of leases) {
        insert.run(lease.key, formatLeaseValue(lease), expiryMs(lease.expiry) ?? null);
      }
    });
  }

  /** Deletes leases, in one transaction. */
  remove(keys: Iterable<string>): void {
    this.#write((db) => {
      const leaveTrace = db.prepare(
        "INSERT OR REPLACE INTO leases (key, value, expires_at_ms) " +
          "SELECT key, NULL, ? FROM leases WHERE key = ?",
      );
      for (const key of keys) leaveTrace.run(this.#now() + TRACE_TTL_MS, key);
    });
  }

  #write(body: (db: DatabaseSync) => void): void {
    {
      // Opened each time: another file may have taken its place.
      using db = new DatabaseSync(this.#path);
      db.exec("PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; BEGIN IMMEDIATE");
      body(db);
      db.exec("COMMIT");
    }
    this.#signal();
  }

  /** Wakes all watches of the store, as each of its writers does. */
  #signal(): void {
    const path = `${this.#path}-signal`;
    Deno.writeFileSync(path, Deno.readFileSync(path));
  }
}
