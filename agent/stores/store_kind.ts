/**
 * What a kind of store is to the agent and to the commands: its flags, and how it is opened.
 *
 * @module
 */

import type { LeaseAdmin, LeaseStore, Logger, Metrics } from "@denim/core";
import type { Flag, ParsedFlags } from "../flag_table.ts";

/** A net-conf file that the agent was told of. */
export interface NetConfFile {
  /** The file's path. */
  readonly path: string;
  /** Whether the operator named it; if not, it need not be there. */
  readonly isNamed: boolean;
}

/** What an agent's store is opened with. */
export interface OpenOptions {
  /** What `--net-config-path` says. */
  readonly netConfFile: NetConfFile;
  /** Where the store says what it does. */
  readonly log: Logger;
  /** Where the store counts what it does. */
  readonly metrics: Metrics;
  /** Ends the opening. */
  readonly signal: AbortSignal;
}

/**
 * A kind of store. A new one is a folder in `core/stores`, a file here, and a line in `mod.ts`.
 *
 * @typeParam F the store's own flags
 * @typeParam Spec what `parse` makes of them
 */
export interface StoreKind<F extends Flag = Flag, Spec = unknown> {
  /** What `--store` calls it. */
  readonly name: string;
  /** How `--store` names one, for messages and help: `sqlite:PATH`. */
  readonly usage: string;
  /** The store's own flags, for each command that reads or writes leases. */
  readonly flags: readonly F[];
  /** The flags that choose this store without `--store`, if they are given; a switch, if it is on. */
  readonly chosenBy: readonly F["name"][];
  /**
   * Reads what the store needs to know, and changes nothing. Throws a ConfigError that names the flag.
   *
   * @param place what `--store` says behind the name and a colon; `undefined` if it says nothing
   */
  parse(place: string | undefined, flags: ParsedFlags<F>): Spec;
  /**
   * Opens the store for an agent, which waits for a store that does not answer. Rejects with a ConfigError or a
   * RuntimeError.
   */
  open(spec: Spec, options: OpenOptions): Promise<LeaseStore>;
  /**
   * Opens the store for an administrator, who is told of a store that does not answer. Missing if denim can't
   * administer such stores; {@link StoreKind.administeredBy} says then what can. Rejects as `open` does.
   */
  openAdmin?(spec: Spec, options: { readonly log: Logger }): Promise<LeaseAdmin>;
  /** What an administrator uses if there is no `openAdmin`, as a sentence. */
  readonly administeredBy?: string;
  /** The store's files on this machine; missing if it lives elsewhere. */
  files?(spec: Spec): readonly string[];
  /** Where the store would be made, if it does not exist yet; missing if denim never makes such a store. */
  missing?(spec: Spec): Promise<string | undefined>;
}
