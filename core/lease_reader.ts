/**
 * Reading stored leases, some of which may be damaged.
 *
 * @module
 */

import { Complaints } from "./complaints.ts";
import { messageOf, throwDefect } from "./errors.ts";
import { type Expiry, type Lease, parseLease } from "./lease.ts";
import type { Logger } from "./log.ts";

/** Reads stored leases. Logs why one can't be read, once for each value that it has. */
export class LeaseReader {
  readonly #where: string;
  readonly #log: Logger;
  readonly #complaints = new Complaints();

  /** A reader for one store, which `where` names in warnings. */
  constructor(where: string, log: Logger) {
    this.#where = where;
    this.#log = log;
  }

  /** The lease in flannel's key and value, which a store's revision wrote; `undefined` if it can't be read. */
  read(key: string, value: string, expiry: Expiry, revision: number): Lease | undefined {
    try {
      const lease = parseLease(key, value, expiry);
      this.#complaints.resolve(key);
      return { ...lease, revision };
    } catch (error) {
      throwDefect(error);
      if (this.#complaints.isNew(value, key)) {
        this.#log.warn("lease-unreadable", `${this.#where}: ${messageOf(error)}; ignoring it`, {
          key,
        });
      }
      return undefined;
    }
  }

  /** The lease is gone: what is under its key later is reported again. */
  remove(key: string): void {
    this.#complaints.resolve(key);
  }
}
