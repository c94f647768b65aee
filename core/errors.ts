/**
 * The two kinds of failure that denim tells apart, since a person mends them in different places.
 *
 * @module
 */

/**
 * What was asked for is wrong: a flag, the net-conf, the CNI input. Nothing was changed. The command
 * line exits with 2. The message says what was wrong, where, and what to do.
 */
export class ConfigError extends Error {
  /** The class's name, for logs. */
  override readonly name = "ConfigError";
}

/**
 * What was asked for is right and could not be done: a store out of reach, a full network, a kernel
 * without VXLAN. The command line exits with 1.
 */
export class RuntimeError extends Error {
  /** The class's name, for logs. */
  override readonly name = "RuntimeError";
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
