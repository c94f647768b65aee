/**
 * The checks of a net-conf that take the backends, which core does not know.
 *
 * @module
 */

import {
  type Backend,
  ConfigError,
  IpAddress,
  type Logger,
  MAX_PACKET_BYTES,
  type NetworkConfig,
  NO_METRICS,
  type NodeContext,
  NodeScope,
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

/** What {@link requireUsable} is given. */
export interface UsableOptions {
  /** The backends that net-conf may name. */
  readonly backends: readonly AnyBackend[];
  /** Takes what a person should know of; nothing unless given. */
  readonly log?: Logger;
}

/**
 * Makes every check of a net-conf that needs no node: an agent does when it starts, and `denim config check`
 * beforehand. Throws a ConfigError.
 */
export function requireUsable(
  config: NetworkConfig,
  { backends, log = NO_LOG }: UsableOptions,
): void {
  const backend = findBackend(config, backends);
  backend.needs?.(bestNode(config), readBackendOptions(backend, config));
  if (!config.backend.defaulted) return;
  log.warn(
    "backend-defaulted",
    'net-conf names no Backend, which means "udp" as in flannel; set Backend.Type to choose one',
  );
}

/** Reads a net-conf with every check that needs no node. Throws a ConfigError. */
export function checkNetConf(text: string, options: UsableOptions): NetworkConfig {
  const config = parseNetworkConfig(text);
  requireUsable(config, options);
  return config;
}

const ignore = () => {};
const NO_LOG: Logger = { debug: ignore, info: ignore, warn: ignore, error: ignore };

/** A node that lacks nothing: what a backend refuses there, it refuses everywhere. */
function bestNode(config: NetworkConfig): NodeContext {
  const addresses = new Map(
    config.families.map(({ family }) => [family, new IpAddress(family, 1n)] as const),
  );
  return {
    config,
    outer: { name: "", mtuBytes: MAX_PACKET_BYTES, addresses, publicIps: addresses },
    overlapsHosts: false,
    held: undefined,
    kernel: { macOf: () => undefined, hasDevice: () => false, routeTo: () => undefined },
    log: NO_LOG,
    metrics: NO_METRICS,
    scope: new NodeScope(),
    signal: new AbortController().signal,
    fail: ignore,
  };
}
