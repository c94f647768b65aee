/**
 * How denim's failures are told apart: those that a person can mend, and denim's own defects.
 *
 * @module
 */

/**
 * A failure that denim foresees. Its message alone says what was wrong, where, and what to do; no stack helps
 * whoever reads it. Every other error is a defect of denim: see {@link isDefect}.
 */
export abstract class ExpectedError extends Error {}

/**
 * What was asked for is wrong: a flag, the net-conf, the CNI input. Nothing was changed. The command
 * line exits with 2.
 */
export class ConfigError extends ExpectedError {
  /** The class's name, for logs. */
  override readonly name = "ConfigError";
}

/**
 * What was asked for is right and could not be done: a store out of reach, a full network, a kernel
 * without VXLAN. The command line exits with 1.
 */
export class RuntimeError extends ExpectedError {
  /** The class's name, for logs. */
  override readonly name: string = "RuntimeError";
}

/**
 * Whether an error is a defect of denim, such as a `TypeError`, rather than something that happens to denim. A
 * defect is never retried or swallowed: it ends the process, which leaves the data path as it is. Errors of the
 * operating system (`Deno.errors`) and aborted waits are not defects.
 */
export function isDefect(error: unknown): boolean {
  if (error instanceof ExpectedError) return false;
  if (error instanceof DOMException) return !["AbortError", "TimeoutError"].includes(error.name);
  return !OPERATING_SYSTEM.some((kind) => error instanceof kind) && !hasErrno(error);
}

const OPERATING_SYSTEM = Object.values(Deno.errors);

/** Whether an error has errno's name: Deno has a class for some alone, and a plain `Error` for ENOSPC or EROFS. */
function hasErrno(error: unknown): boolean {
  const code = error instanceof Error ? (error as { readonly code?: unknown }).code : undefined;
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code);
}

/** Throws an error again if it is a defect: the first line of each `catch` that goes on after failures. */
export function throwDefect(error: unknown): void {
  if (isDefect(error)) throw error;
}

/**
 * Throws an error again unless it is no more than the end of something whose signal was aborted. A defect is
 * thrown in any case.
 */
export function throwUnlessAborted(error: unknown, signal: AbortSignal): void {
  if (!signal.aborted) throw error;
  if (error !== signal.reason) throwDefect(error);
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * What a log or a terminal shows of an error: its message; of a defect, also its stack; with `causes`, also what
 * it was caused by, each cause on a line of its own.
 */
export function errorReport(
  error: unknown,
  { causes = false }: { readonly causes?: boolean } = {},
): string {
  const defect = isDefect(error);
  const own = defect
    ? `denim has a defect; please report it: ${
      error instanceof Error ? error.stack : String(error)
    }`
    : messageOf(error);
  const cause = error instanceof Error ? error.cause : undefined;
  if (cause === undefined || !causes && !defect) return own;
  return `${own}\n  caused by: ${errorReport(cause, { causes: true })}`;
}
