/**
 * A place for one test's SQLite store.
 *
 * @module
 */

import { SqliteStore, type SqliteStoreOptions } from "@denim/core/stores/sqlite";
import { RecordingLog } from "./recording_log.ts";
import { SqliteLeases } from "./sqlite_leases.ts";
import { TempFolder } from "./temp_folder.ts";

/** A folder for the store, which is gone with what is in it when its scope ends. */
export class Scratch implements Disposable {
  readonly #folder = new TempFolder();
  /** The folder. */
  readonly directory: string = this.#folder.path;
  /** Where in it the store is: in a folder that is not there yet. */
  readonly path: string = `${this.directory}/state/denim.db`;
  /** What the stores say that were opened without a log of their own. */
  readonly log: RecordingLog = new RecordingLog();

  /** The leases in it, to write by hand. */
  readonly leases: SqliteLeases = new SqliteLeases(this.path);

  /** Opens one more store. */
  open(options: Partial<SqliteStoreOptions> = {}): SqliteStore {
    return SqliteStore.open(this.path, { log: this.log, ...options });
  }

  /** Removes it. */
  [Symbol.dispose](): void {
    this.#folder[Symbol.dispose]();
  }
}
