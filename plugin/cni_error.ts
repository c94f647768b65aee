/**
 * What goes wrong in a CNI plugin, as the runtime is told of it (CNI spec 1.1.0, section 5, "Error").
 *
 * @module
 */

import { ConfigError, ExpectedError, messageOf } from "@denim/core/errors";
import { LinuxError } from "@denim/core/linux/attach";

/** Codes of errors: below 100 the spec's and libcni's, from 100 on denim's own. */
export const CNI_CODE = {
  /** The configuration's `cniVersion` is none that the plugin speaks. */
  incompatibleVersion: 1,
  /** The configuration asks for what the plugin can't do; the message has the key and the value. */
  unsupportedField: 2,
  /** The container is not there: nothing was made, and nothing needs a DEL. */
  unknownContainer: 3,
  /** A variable of the environment is missing or wrong; the message has its name. */
  invalidEnvironment: 4,
  /** Something could not be read or written. */
  ioFailure: 5,
  /** What was read is not what it should be: no JSON, a file that is cut short. */
  decodingFailure: 6,
  /** The configuration is JSON, and wrong. */
  invalidConfig: 7,
  /** The namespace can't be a pod's: no network namespace, or the node's own (libcni). */
  invalidNamespace: 8,
  /** Something that comes by itself is not there yet. */
  tryAgainLater: 11,
  /** The plugin can't serve an ADD now (STATUS). */
  notReady: 50,
  /** No address is free, or not the one that was asked for. */
  noAddress: 100,
  /** Something is there already that must not be. */
  conflict: 101,
  /** The kernel refused. */
  kernel: 102,
  /** What an ADD made is gone, or no longer as it was. */
  missing: 103,
  /** Another plugin failed without the error that the spec asks for. */
  delegate: 104,
  /** A defect of denim's (libcni). */
  internal: 999,
} as const;

/** One of {@link CNI_CODE}. */
export type CniCode = typeof CNI_CODE[keyof typeof CNI_CODE];

/** A failure with the code that the runtime is given. */
export class CniError extends ExpectedError {
  /** The class's name, for logs. */
  override readonly name = "CniError";
  /** Which kind of failure it is. */
  readonly code: CniCode;
  /** More of it, for people; "" where there is no more. */
  readonly details: string;

  /**
   * @param code which kind of failure it is
   * @param message what was wrong, the value, where, and what to do
   * @param details more of it, for people
   */
  constructor(code: CniCode, message: string, details = "") {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/** A failure of the plugin that does the work, in its own words. */
export class DelegateError extends Error {
  /** The class's name, for logs. */
  override readonly name = "DelegateError";
  /** The JSON that it printed. */
  readonly output: string;

  /** Its code in there. */
  readonly code: number | undefined;

  /**
   * @param output the JSON that it printed
   * @param code its code in there
   */
  constructor(output: string, code?: number) {
    super(output.trim());
    this.output = output;
    this.code = code;
  }
}

/** What fails on the way of a command that goes on all the same. */
export class Failures {
  readonly #errors: unknown[] = [];

  /** Whether anything has failed. */
  get some(): boolean {
    return this.#errors.length > 0;
  }

  /** Keeps what was thrown. */
  add(error: unknown): void {
    this.#errors.push(error);
  }

  /** Runs a function, and keeps what it throws. */
  attempt<T>(run: () => T): T | undefined {
    try {
      return run();
    } catch (error) {
      this.add(error);
      return undefined;
    }
  }

  /** Throws the failure; of several a CniError that names all; nothing where there is none. */
  rethrow(): void {
    if (this.#errors.length === 1) throw this.#errors[0];
    if (!this.some) return;
    const errors = this.#errors.map((error) =>
      error instanceof DelegateError
        ? new CniError(CNI_CODE.delegate, error.message)
        : toCniError(error)
    );
    throw new CniError(errors[0]!.code, errors.map(({ message }) => message).join("; "));
  }
}

/** Anything that was thrown, with the code that says the most about it. */
export function toCniError(error: unknown): CniError {
  if (error instanceof CniError) return error;
  if (error instanceof SuppressedError) {
    // The first failure is why the command failed; the second happened while it was undone.
    const { code, message } = toCniError(error.suppressed);
    return new CniError(code, message, `and while it was undone: ${messageOf(error.error)}`);
  }
  const message = messageOf(error);
  if (error instanceof ConfigError) return new CniError(CNI_CODE.invalidConfig, message);
  if (error instanceof LinuxError) return new CniError(CNI_CODE.kernel, message);
  // Deno.errors.*: what the file system says, and of which file.
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  if (typeof code !== "string") return new CniError(CNI_CODE.internal, message);
  const remedy = REMEDIES[code];
  return new CniError(CNI_CODE.ioFailure, remedy ? `${message}: ${remedy}` : message);
}

/** What to do about what a file system says (errno(3)). */
const REMEDIES: Readonly<Record<string, string>> = {
  EACCES: "the plugin needs root's rights there",
  EDQUOT: "make room on that file system",
  ENOSPC: "make room on that file system",
  EPERM: "the plugin needs root's rights there, and files that may be changed",
  EROFS: "mount that file system read-write",
};
