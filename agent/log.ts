/**
 * How the agent writes its log: to standard error, as text or as JSON.
 *
 * @module
 */

import type { Log, LogFields, Logger } from "@denim/core";

/** `text` for people, `json` for programs. */
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
  /** Takes the lines of one event, each with its end; standard error unless given. */
  readonly write?: (lines: string) => void;
}

/**
 * Makes a logger. An event is one line; in text, the lines of a longer message, such as a defect's stack, follow
 * below it, indented. An event is written in one system call, so that processes may share a file.
 */
export function createLogger(options: LoggerOptions): Logger {
  const write = options.write ?? ((lines) => Deno.stderr.writeSync(encoder.encode(lines)));
  const say = (level: Level, event: string, message: string, fields: LogFields = {}) => {
    if (level === "debug" && !options.debug) return;
    const time = new Date().toISOString();
    if (options.format === "json") {
      return write(`${JSON.stringify({ time, level, event, message, ...fields })}\n`);
    }
    const [first, ...rest] = message.split("\n");
    const line = `${time} ${level.toUpperCase().padEnd(5)} ${first}${
      fieldsText({ ...fields, event })
    }`;
    write([line, ...rest.map((more) => `  ${more}`), ""].join("\n"));
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
