/**
 * The frame of a program: what ends it, and with which exit code.
 *
 * @module
 */

import { ConfigError, RuntimeError } from "@denim/core/errors";

const STOP_SIGNALS = ["SIGTERM", "SIGINT"] as const;

/**
 * Runs `body` with a signal that SIGTERM, SIGINT and `moreSignals` abort, with a RuntimeError that says `stopped`. Rejects also
 * with an error that nothing else catches: a promise's rejection, an exception in a callback or in a worker.
 * `body` may be running on then, so the caller should end the process.
 */
export async function untilStopped<T>(
  stopped: string,
  body: (signal: AbortSignal) => Promise<T>,
  moreSignals: readonly Deno.Signal[] = [],
): Promise<T> {
  const signals = [...STOP_SIGNALS, ...moreSignals];
  const stopping = new AbortController();
  const uncaught = Promise.withResolvers<never>();
  const stop = () => stopping.abort(new RuntimeError(stopped));
  const onRejection = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    uncaught.reject(event.reason);
  };
  const onError = (event: ErrorEvent) => {
    event.preventDefault();
    // An error of a worker comes as words alone.
    const { message, filename, lineno } = event;
    uncaught.reject(event.error ?? new Error(`${message} (${filename}:${lineno})`));
  };
  globalThis.addEventListener("unhandledrejection", onRejection);
  globalThis.addEventListener("error", onError);
  for (const name of signals) Deno.addSignalListener(name, stop);
  try {
    return await Promise.race([body(stopping.signal), uncaught.promise]);
  } finally {
    for (const name of signals) Deno.removeSignalListener(name, stop);
    globalThis.removeEventListener("error", onError);
    globalThis.removeEventListener("unhandledrejection", onRejection);
  }
}

/** The exit code for an error: 2 for wrong usage or configuration, 1 for all else. */
export function exitCode(error: unknown): number {
  return error instanceof ConfigError ? 2 : 1;
}
