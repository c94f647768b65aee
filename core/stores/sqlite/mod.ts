/**
 * The embedded store: leases in one SQLite file that the agents of one machine share.
 *
 * @module
 */

export { SqliteStore, type SqliteStoreOptions } from "./sqlite_store.ts";
