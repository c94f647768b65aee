/**
 * What denim leaves on a node by running, and what of it says that pods still run there.
 *
 * @module
 */

import { throwDefect } from "@denim/core";
import { DEFAULT_DATA_DIR, DEFAULT_NETWORKS_DIR, isCniName } from "@denim/plugin";
import { DEFAULT_API_SOCKET } from "../status_report.ts";
import { CACHE_PATH } from "./service.ts";

/** Files in folders that denim makes when it runs. */
export const MADE_BY_RUNNING = [
  `${DEFAULT_DATA_DIR}/record`,
  `${DEFAULT_NETWORKS_DIR}/name/address`,
  "/var/lib/denim/denim.db",
  "/run/flannel/subnet.env",
  DEFAULT_API_SOCKET,
  `${CACHE_PATH}/cache`,
].map((path) => ({ path }));

/** Where a configuration has denim's plugin keep what it has to remember. */
export interface PluginFolders {
  /** The records of pods. */
  readonly records: string;
  /** The network's addresses. */
  readonly addresses: string;
}

/** The folders that a configuration names; those of a node without one if it is not valid. */
export function pluginFolders(conf: string): readonly PluginFolders[] {
  let list: Conflist;
  try {
    list = JSON.parse(conf);
    return (list.plugins ?? []).filter(({ type }) => type === "denim").map((plugin) => {
      const name = String(list.name);
      const addresses = plugin.ipam?.dataDir ?? DEFAULT_NETWORKS_DIR;
      return { records: plugin.dataDir ?? DEFAULT_DATA_DIR, addresses: `${addresses}/${name}` };
    });
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError) return [];
    throw error;
  }
}

interface Conflist {
  readonly name?: unknown;
  readonly plugins?: readonly {
    readonly type?: unknown;
    readonly dataDir?: string;
    readonly ipam?: { readonly dataDir?: string };
  }[];
}

/** The containers that have a record. */
export function recordedContainers(records: string): readonly string[] {
  try {
    return [...Deno.readDirSync(records)].map(({ name }) => name)
      .filter(isCniName);
  } catch (error) {
    throwDefect(error);
    return [];
  }
}
