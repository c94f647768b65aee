/**
 * What happened lately, for those who ask the agent rather than read its log.
 *
 * @module
 */

import type { Log, Logger } from "@denim/core";

/** How many lines are kept. */
const KEPT = 20;

/** A line of the log that an operator may want to see. */
export interface RecentLine {
  /** When it was said last, in milliseconds since 1970. */
  readonly atMs: number;
  /** How bad it is. */
  readonly level: "warn" | "error";
  /** The event's name. */
  readonly event: string;
  /** The sentence. */
  readonly message: string;
  /** How often it was said in a row. */
  readonly times: number;
}

/** Hands everything on to another log, and keeps the latest warnings and errors: repairs, outages, contests. */
export class RecentLog implements Logger {
  /** @inheritdoc */
  readonly debug: Log;
  /** @inheritdoc */
  readonly info: Log;
  /** @inheritdoc */
  readonly warn: Log;
  /** @inheritdoc */
  readonly error: Log;
  #lines: readonly RecentLine[] = [];

  /** Hands everything on to `log`. */
  constructor(log: Logger) {
    this.debug = log.debug;
    this.info = log.info;
    this.warn = this.#keeping("warn", log.warn);
    this.error = this.#keeping("error", log.error);
  }

  /** The latest lines, the oldest first. */
  get lines(): readonly RecentLine[] {
    return this.#lines;
  }

  #keeping(level: RecentLine["level"], log: Log): Log {
    return (event, message, fields) => {
      log(event, message, fields);
      const last = this.#lines.at(-1);
      const isSame = last?.event === event && last.message === message;
      const times = isSame ? last.times + 1 : 1;
      const before = this.#lines.slice(isSame ? 0 : 1 - KEPT, isSame ? -1 : undefined);
      this.#lines = [...before, { atMs: Date.now(), level, event, message, times }];
    };
  }
}
