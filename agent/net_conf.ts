/**
 * The checks of a net-conf that take the backends, which core does not know.
 *
 * @module
 */

import {
  type Backend,
  ConfigError,
  type NetworkConfig,
  parseNetworkConfig,
  readConfig,
} from "@denim/core";

/** A backend, whatever its options and peer data are. */
// deno-lint-ignore no-explicit-any -- each backend has types of its own, checked by its own schemas
export type AnyBackend = Backend<any, any>;

/** The backend that net-conf names, in any case, as in flannel. Throws a ConfigError if denim has none of that name. */
export function findBackend(
  config: NetworkConfig,
  backends: readonly AnyBackend[],
): AnyBackend {
  const wanted = config.backend.type.toLowerCase();
  const backend = backends.find(({ type }) => type.toLowerCase() === wanted);
  if (backend !== undefined) return backend;
  const known = backends.map(({ type }) => `"${type}"`).join(", ");
  throw new ConfigError(
    `net-conf: denim has no Backend.Type "${config.backend.type}"; it has ${known}`,
  );
}

/** What net-conf's `Backend` object says to its backend. Throws a ConfigError that names the key. */
export function readBackendOptions(backend: AnyBackend, config: NetworkConfig): unknown {
  return readConfig(backend.options, config.backend.options, "net-conf", ["Backend"]);
}

/** Reads a net-conf with every check that a node makes before it uses one. Throws a ConfigError. */
export function checkNetConf(text: string, backends: readonly AnyBackend[]): NetworkConfig {
  const config = parseNetworkConfig(text);
  readBackendOptions(findBackend(config, backends), config);
  return config;
}
