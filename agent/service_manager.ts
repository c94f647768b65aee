/**
 * What the agent tells systemd of itself (sd_notify(3)): that it is ready, how it is, and that it is alive.
 *
 * @module
 */

import { type Clock, type Logger, messageOf, throwDefect } from "@denim/core";
import { sendToServiceManager } from "@denim/core/linux";

/** Tells the manager that started this process; nobody if none did. */
export class ServiceManager {
  readonly #socket: string | undefined;
  readonly #beatMs: number | undefined;
  readonly #log: Logger;
  #isReady = false;

  /**
   * Reads the manager's variables, of which programs that this process starts are to know nothing.
   *
   * @param environment `NOTIFY_SOCKET`, and `WATCHDOG_USEC` if the manager wants to hear that the process is alive
   */
  constructor(environment: Pick<typeof Deno.env, "get" | "delete">, log: Logger) {
    this.#socket = environment.get("NOTIFY_SOCKET") || undefined;
    const pid = environment.get("WATCHDOG_PID");
    const isOurs = pid === undefined || Number(pid) === Deno.pid;
    const watchdogUs = Number(environment.get("WATCHDOG_USEC") ?? 0);
    // Twice as often as need be, as sd_watchdog_enabled(3) recommends.
    this.#beatMs = isOurs && watchdogUs > 0 ? watchdogUs / 2000 : undefined;
    for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) environment.delete(name);
    this.#log = log;
  }

  /** Says in words how the agent is, and the first time that it is ready also that. */
  tell(status: string, ready: boolean): void {
    const first = ready && !this.#isReady;
    this.#isReady ||= ready;
    this.#send(`${first ? "READY=1\n" : ""}STATUS=${status.replaceAll("\n", " ")}`);
  }

  /** Says that the agent ends, and why. */
  stop(status: string): void {
    this.#send(`STOPPING=1\nSTATUS=${status.replaceAll("\n", " ")}`);
  }

  /**
   * Says again and again that the process is alive, until the signal is aborted. It runs on the thread
   * that does all the agent's work but carrying packets: if that hangs, so does this.
   *
   * @param status how the agent is
   */
  async beat(status: () => string, clock: Clock, signal: AbortSignal): Promise<void> {
    if (this.#beatMs === undefined) return;
    do {
      this.#send(`WATCHDOG=1\nSTATUS=${status()}`);
    } while (await clock.sleep(this.#beatMs, signal));
  }

  #send(message: string): void {
    if (this.#socket === undefined) return;
    try {
      sendToServiceManager(this.#socket, message);
    } catch (error) {
      throwDefect(error);
      this.#log.warn(
        "service-manager-lost",
        `cannot tell the service manager: ${messageOf(error)}`,
      );
    }
  }
}
