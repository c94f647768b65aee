/**
 * The failures of a CNI plugin, as it reports them to the runtime (CNI spec 1.1.0, section 5, "Error").
 *
 * @module
 */

import {
  ConfigError,
  errorReport,
  ExpectedError,
  isDefect,
  messageOf,
  throwDefect,
} from "@denim/core/errors";
import { LinuxError } from "@denim/core/linux/attach";

/** Codes of errors: below 100 the spec's and libcni's, from 100 on denim's own. */
export const CNI_CODE = {
  /** The plugin does not speak the configuration's `cniVersion`. */
  incompatibleVersion: 1,
  /** The configuration asks for what the plugin can't do; the message has the key and the value. */
  unsupportedField: 2,
  /** The container is not there: nothing was made, and nothing needs a DEL. */
  unknownContainer: 3,
  /** A variable of the environment is missing or wrong; the message has its name. */
  invalidEnvironment: 4,
  /** Something could not be read or written. */
  ioFailure: 5,
  /** What was read can't be decoded: it is not JSON, or a file that is cut short. */
  decodingFailure: 6,
  /** The configuration is JSON, and a value in it is wrong. */
  invalidConfig: 7,
  /** The path is not a pod's namespace: not a network namespace at all, or the node's own (libcni). */
  invalidNamespace: 8,
  /** Something is not there yet, such as subnet.env: the runtime should try again. */
  tryAgainLater: 11,
  /** The plugin can't serve an ADD now (STATUS). */
  notReady: 50,
  /** No address is free, or the one that was asked for is taken. */
  noAddress: 100,
  /** Something is in the way: a device, an interface, an address on another host. */
  conflict: 101,
  /** The kernel refused a step. */
  kernel: 102,
  /** What an ADD made is gone, or no longer as it was. */
  missing: 103,
  /** Another plugin failed without the error that the spec asks for. */
  delegate: 104,
  /** A defect of denim (libcni's code for what it did not foresee). */
  internal: 999,
} as const;

/** One of {@link CNI_CODE}. */
export type CniCode = typeof CNI_CODE[keyof typeof CNI_CODE];

/** What a {@link CniError} says beside its message. */
export interface CniErrorOptions {
  /** More of it, for people: the error's `details`. */
  readonly details?: string;
  /** What was thrown before, and caused it. */
  readonly cause?: unknown;
}

/** A failure with the code that the runtime is given. */
export class CniError extends ExpectedError {
  /** The class's name, for logs. */
  override readonly name = "CniError";
  /** Which kind of failure it is. */
  readonly code: CniCode;
  /** More of it, for people; "" if there is no more. */
  readonly details: string;

  /**
   * @param code which kind of failure it is
   * @param message what was wrong, the value, where, and what to do
   * @param options more of it, and what it was caused by
   */
  constructor(code: CniCode, message: string, { details = "", ...rest }: CniErrorOptions = {}) {
    super(message, rest);
    this.code = code;
    this.details = details;
  }
}

/** A failure of the plugin that does the work, in that plugin's own words. */
export class DelegateError extends ExpectedError {
  /** The class's name, for logs. */
  override readonly name = "DelegateError";
  /** The JSON that the plugin printed. */
  readonly output: string;

  /** The code in that JSON; `undefined` if it has none. */
  readonly code: number | undefined;

  /**
   * @param output the JSON that the plugin printed
   * @param code the code in that JSON
   */
  constructor(output: string, code?: number) {
    super(output.trim());
    this.output = output;
    this.code = code;
  }
}

/** The failures of a command that goes on after each of them, such as DEL. Defects it throws at once. */
export class Failures {
  readonly #errors: unknown[] = [];

  /** Whether anything has failed. */
  get some(): boolean {
    return this.#errors.length > 0;
  }

  /** Keeps what was thrown; throws it again if it is a defect of denim. */
  add(error: unknown): void {
    throwDefect(error);
    this.#errors.push(error);
  }

  /** Runs a function, and keeps what it throws; `undefined` then. */
  attempt<T>(run: () => T): T | undefined {
    try {
      return run();
    } catch (error) {
      this.add(error);
      return undefined;
    }
  }

  /** Throws the failure, or a CniError that names all if there are several; does nothing if there is none. */
  rethrow(): void {
    if (this.#errors.length === 1) throw this.#errors[0];
    if (!this.some) return;
    const errors = this.#errors.map((error) =>
      error instanceof DelegateError
        ? new CniError(CNI_CODE.delegate, error.message, { cause: error })
        : toCniError(error)
    );
    const message = errors.map(({ message }) => message).join("; ");
    throw new CniError(errors[0]!.code, message, { cause: new AggregateError(this.#errors) });
  }
}

/**
 * Makes a CniError of anything that was thrown, with the code that says the most about it. A defect of denim has
 * the code 999, and its stack in `details`.
 */
export function toCniError(error: unknown): CniError {
  if (error instanceof CniError) return error;
  if (error instanceof SuppressedError) {
    // The first failure is why the command failed; the second happened while it was undone.
    const { code, message, details } = toCniError(error.suppressed);
    const second = `and while it was undone: ${errorReport(error.error)}`;
    return new CniError(code, message, {
      details: details === "" ? second : `${details}\n${second}`,
      cause: error,
    });
  }
  const message = messageOf(error);
  if (isDefect(error)) {
    return new CniError(CNI_CODE.internal, message, { details: errorReport(error), cause: error });
  }
  if (error instanceof ConfigError) {
    return new CniError(CNI_CODE.invalidConfig, message, { cause: error });
  }
  if (error instanceof LinuxError) return new CniError(CNI_CODE.kernel, message, { cause: error });
  // Deno.errors.*: what the file system says, and of which file.
  const { code } = error as { readonly code?: unknown };
  const remedy = typeof code === "string" ? REMEDIES[code] : undefined;
  return new CniError(CNI_CODE.ioFailure, remedy ? `${message}: ${remedy}` : message, {
    cause: error,
  });
}

/** Whether a defect of denim is what failed, or what failed while a failure was undone. */
export function hasDefect(error: unknown): boolean {
  return error instanceof SuppressedError
    ? hasDefect(error.suppressed) || hasDefect(error.error)
    : isDefect(error);
}

/** What to do about an error of the file system, by its code (errno(3)). */
const REMEDIES: Readonly<Record<string, string>> = {
  EEXIST: "a file has a folder's place; remove it",
  ENOTDIR: "a file has a folder's place; remove it",
  EISDIR: "a folder has a file's place; remove it",
  EACCES: "the plugin needs root's rights there",
  EDQUOT: "make room on that file system",
  ENOSPC: "make room on that file system",
  EPERM: "the plugin needs root's rights there, and files that may be changed",
  EROFS: "mount that file system read-write",
};
