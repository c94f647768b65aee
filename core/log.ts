/**
 * Where denim's parts say what they do. How it is written is the agent's affair.
 *
 * @module
 */

/** What goes with a message: values that a person or a program may want to filter by. No secrets. */
export type LogFields = Readonly<Record<string, unknown>>;

/**
 * Says one thing that happened.
 *
 * @param event names the kind of event, in kebab case: `lease-renewed`. It stays the same when the message is
 * worded differently, so that programs, alerts and tests can rely on it.
 * @param message one sentence for operators
 */
export type Log = (event: string, message: string, fields?: LogFields) => void;

/** Takes one event a call. */
export interface Logger {
  /** Of use while a fault is looked for. */
  readonly debug: Log;
  /** The system did what it is there for. */
  readonly info: Log;
  /** Something is not as it should be; denim goes on. */
  readonly warn: Log;
  /** Something failed that a person has to know of. */
  readonly error: Log;
}
