/**
 * How the agent writes its log: to standard error, one line an event.
 *
 * @module
 */

import type { Log, LogFields, Logger } from "@denim/core";

/** `text` is for people, `json` for programs. */
export type LogFormat = "text" | "json";

const LEVELS = ["debug", "info", "warn", "error"] as const;
type Level = typeof LEVELS[number];

const encoder = new TextEncoder();

/** How a logger is set up. */
export interface LoggerOptions {
  /** The form of a line. */
  readonly format: LogFormat;
  /** Whether debug messages are written. */
  readonly debug?: boolean;
  /** Where lines go; standard error unless given. */
  readonly write?: (line: string) => void;
}

/** Makes a logger. A line is written whole, in one system call, so that processes may share a file. */
export function createLogger(options: LoggerOptions): Logger {
  const write = options.write ?? ((line) => Deno.stderr.writeSync(encoder.encode(line)));
  const say = (level: Level, event: string, message: string, fields: LogFields = {}) => {
    if (level === "debug" && !options.debug) return;
    const time = new Date().toISOString();
    write(
      options.format === "json"
        ? `${JSON.stringify({ time, level, event, message, ...fields })}\n`
        : `${time} ${level.toUpperCase().padEnd(5)} ${message}${
          fieldsText({ ...fields, event })
        }\n`,
    );
  };
  const method = (level: Level): Log => (event, message, fields) =>
    say(level, event, message, fields);
  return {
    debug: method("debug"),
    info: method("info"),
    warn: method("warn"),
    error: method("error"),
  };
}

function fieldsText(fields: LogFields): string {
  return Object.entries(fields).filter(([, value]) => value !== undefined).map(([name, value]) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    return ` ${name}=${/[\s"=]/.test(text) ? JSON.stringify(text) : text}`;
  }).join("");
}
