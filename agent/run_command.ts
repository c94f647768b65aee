/**
 * The frame of a program that does one thing and ends.
 *
 * @module
 */

import { ConfigError, messageOf, RuntimeError } from "@denim/core";

const STOP_SIGNALS = ["SIGTERM", "SIGINT"] as const;

/** Runs `body` with a signal that SIGTERM and SIGINT abort, with a RuntimeError that says `stopped`. */
export async function untilStopped<T>(
  stopped: string,
  body: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const stopping = new AbortController();
  const stop = () => stopping.abort(new RuntimeError(stopped));
  for (const name of STOP_SIGNALS) Deno.addSignalListener(name, stop);
  try {
    return await body(stopping.signal);
  } finally {
    for (const name of STOP_SIGNALS) Deno.removeSignalListener(name, stop);
  }
}

/**
 * Runs a command and resolves to its exit code: that of `body`, or, where it fails, 2 for a ConfigError and 1
 * for all else, with the message on standard error.
 */
export async function runCommand(
  name: string,
  stopped: string,
  body: (signal: AbortSignal) => Promise<number>,
): Promise<number> {
  try {
    return await untilStopped(stopped, body);
  } catch (error) {
    console.error(`${name}: ${messageOf(error)}`);
    return error instanceof ConfigError ? 2 : 1;
  }
}
