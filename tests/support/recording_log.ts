/**
 * A log that a test can read.
 *
 * @module
 */

import type { Log, LogFields, Logger } from "@denim/core";

/** One call of a {@link RecordingLog}. */
export interface LogRecord {
  /** The method that was called. */
  readonly level: "debug" | "info" | "warn" | "error";
  /** The event's name: what tests match. */
  readonly event: string;
  /** The sentence for operators. */
  readonly message: string;
  /** What went with it. */
  readonly fields: LogFields;
}

/** Keeps what is said. */
export class RecordingLog implements Logger {
  /** What was said, in order. */
  readonly records: LogRecord[] = [];
  /** @inheritdoc */
  readonly debug: Log = this.#record("debug");
  /** @inheritdoc */
  readonly info: Log = this.#record("info");
  /** @inheritdoc */
  readonly warn: Log = this.#record("warn");
  /** @inheritdoc */
  readonly error: Log = this.#record("error");

  /** What was said, in order, each as `level message`. */
  get lines(): string[] {
    return this.records.map(({ level, message }) => `${level} ${message}`);
  }

  /** What was said, in order, each as `level event`; without what is said for debugging. */
  get events(): string[] {
    return this.records.filter(({ level }) => level !== "debug")
      .map(({ level, event }) => `${level} ${event}`);
  }

  /** How often something was said whose `level event: message` fits a pattern. */
  count(pattern: RegExp): number {
    return this.records.filter(({ level, event, message }) =>
      pattern.test(`${level} ${event}: ${message}`)
    ).length;
  }

  /** What was said of one kind of event. */
  of(event: string): LogRecord[] {
    return this.records.filter((record) => record.event === event);
  }

  #record(level: LogRecord["level"]): Log {
    return (event, message, fields = {}) =>
      void this.records.push({ level, event, message, fields });
  }
}
