/**
 * The net-conf in a store: what every store does alike with it.
 *
 * @module
 */

import { ConfigError, messageOf, RuntimeError } from "./errors.ts";
import type { Logger } from "./log.ts";
import { type NetworkConfig, parseNetworkConfig, WRITE_NET_CONF } from "./net_conf.ts";

/** Reads a store's net-conf. Throws a ConfigError that names the store, `where`. */
export function readNetConf(text: string, where: string): NetworkConfig {
  try {
    return parseNetworkConfig(text);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(`${where}: ${error.message}`, { cause: error });
  }
}

/** The failure of what needs a net-conf in a store, `where`, that has none. */
export function noNetConf(where: string): RuntimeError {
  return new RuntimeError(`${where}: there is no net-conf yet; ${WRITE_NET_CONF}`);
}

/**
 * The net-confs among what a store holds over time, `undefined` meaning none. Logs that it waits, once, if
 * there is none at first.
 */
export async function* awaitNetConf<Stored>(
  stored: AsyncIterable<Stored | undefined>,
  where: string,
  log: Logger,
): AsyncGenerator<Stored, void, void> {
  let first = true;
  for await (const netConf of stored) {
    if (netConf !== undefined) yield netConf;
    else if (first) {
      log.info("net-conf-awaited", `waiting for a net-conf in ${where}; ${WRITE_NET_CONF}`);
    }
    first = false;
  }
}

/**
 * Reads the net-confs that a store holds over time, leaving out those that say the same as the one before.
 * Throws a ConfigError if the first is not valid. A later one that is not is logged and left out: nodes run on
 * with the one that they have.
 */
export async function* followNetConf(
  texts: AsyncIterable<string>,
  where: string,
  log: Logger,
): AsyncGenerator<NetworkConfig, void, void> {
  let seen: string | undefined;
  for await (const text of texts) {
    if (text === seen) continue;
    const first = seen === undefined;
    seen = text;
    let config;
    try {
      config = readNetConf(text, where);
    } catch (error) {
      if (first || !(error instanceof ConfigError)) throw error;
      log.error("net-conf-refused", `the new net-conf is not followed: ${messageOf(error)}`);
      continue;
    }
    yield config;
  }
}
