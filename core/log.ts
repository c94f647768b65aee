/**
 * Where denim's parts say what they do. How it is written is the agent's affair.
 *
 * @module
 */

/** What goes with a message: values that a person or a program may want to filter by. No secrets. */
export type LogFields = Readonly<Record<string, unknown>>;

/** Takes one event a call. */
export interface Logger {
  /** Of use while a fault is looked for. */
  debug(message: string, fields?: LogFields): void;
  /** The system did what it is there for. */
  info(message: string, fields?: LogFields): void;
  /** Something is not as it should be; denim goes on. */
  warn(message: string, fields?: LogFields): void;
  /** Something failed that a person has to know of. */
  error(message: string, fields?: LogFields): void;
}
