/**
 * A log that a test can read.
 *
 * @module
 */

import type { Logger } from "@denim/core";

/** Keeps each message as `level message`. */
export class RecordingLog implements Logger {
  /** What was said, in order. */
  readonly lines: string[] = [];

  /** @inheritdoc */
  debug(message: string): void {
    this.lines.push(`debug ${message}`);
  }

  /** @inheritdoc */
  info(message: string): void {
    this.lines.push(`info ${message}`);
  }

  /** @inheritdoc */
  warn(message: string): void {
    this.lines.push(`warn ${message}`);
  }

  /** @inheritdoc */
  error(message: string): void {
    this.lines.push(`error ${message}`);
  }
}
