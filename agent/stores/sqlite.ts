/**
 * `--store sqlite:PATH`: the embedded store, a file that the agents of one machine share.
 *
 * @module
 */

import { ConfigError, type LeaseAdmin, messageOf, RuntimeError, throwDefect } from "@denim/core";
import type { NetConfFile, OpenOptions, StoreKind } from "./store_kind.ts";

/** The embedded store. `--net-config-path` gives a file that has no net-conf its first one. */
export const sqlite = {
  name: "sqlite",
  usage: "sqlite:PATH",
  flags: [],
  chosenBy: [],
  parse(place) {
    if (place === undefined) throw new ConfigError("--store sqlite: the path is missing");
    return { path: place };
  },
  async open({ path }, options) {
    const { SqliteStore } = await import("@denim/core/stores/sqlite");
    const store = SqliteStore.open(path, options);
    try {
      await seed(store, options);
      return store;
    } catch (error) {
      await store[Symbol.asyncDispose]();
      throw error;
    }
  },
  async openAdmin({ path }, { log }) {
    const { SqliteStore } = await import("@denim/core/stores/sqlite");
    return SqliteStore.open(path, { log, patient: false });
  },
  files({ path }) {
    return ["", "-wal", "-shm", "-journal", "-signal"].map((ending) => `${path}${ending}`);
  },
  async missing({ path }) {
    try {
      await Deno.stat(path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return `sqlite:${path}`;
      // What else may be wrong with it, the store says better.
      throwDefect(error);
    }
    return undefined;
  },
} satisfies StoreKind<never, { readonly path: string }>;

async function seed(
  store: LeaseAdmin,
  { netConfFile, log, signal }: OpenOptions,
): Promise<void> {
  const text = await read(netConfFile);
  if (text === undefined) return;
  try {
    if (await store.setNetworkConfig(text, { ifAbsent: true }, signal)) {
      log.info("net-conf-seeded", `took the net-conf from ${netConfFile.path}`);
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(`${netConfFile.path}: ${error.message}`, { cause: error });
  }
}

async function read({ path, isNamed }: NetConfFile): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (!isNamed && error instanceof Deno.errors.NotFound) return undefined;
    throw new RuntimeError(`--net-config-path ${path}: ${messageOf(error)}`, { cause: error });
  }
}
