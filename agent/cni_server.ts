/**
 * The agent as the CNI plugin's helper: it has the plugin's modules loaded, and so attaches a pod in a tenth of the time
 * that a program takes to start.
 *
 * @module
 */

import { Complaints, type Counter, type Histogram, type Logger, type Metrics } from "@denim/core";
import { FifoWriter } from "@denim/core/linux/fifo";
import { CallFiles, SERVED_COMMANDS, STOP } from "@denim/plugin/calls";
import type { CniWorkerMessage, CniWorkerOrder } from "./cni_worker.ts";
import { BUILD } from "./program.ts";

/** How long the server waits before it tries again to serve. The plugin does without it. */
const RESTART_MS = 5_000;
/** How long the call that is under way may take when the agent stops; then the plugin does its work. */
const STOP_PATIENCE_MS = 2_000;
/** Upper bounds for how long calls take, in seconds. */
const SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10];

/** What the server is given. */
export interface CniServerOptions {
  /** The folder of calls. */
  readonly path: string;
  /** Takes what goes wrong. */
  readonly log: Logger;
  /** Counts calls. */
  readonly metrics: Metrics;
}

/** What is counted of one command. */
interface CommandMetrics {
  readonly done: Counter;
  readonly failed: Counter;
  readonly seconds: Histogram;
}

/** Serves the plugin on a thread of its own, until it is disposed of. */
export class CniServer implements AsyncDisposable {
  readonly #options: CniServerOptions;
  readonly #complaints = new Complaints();
  readonly #metrics: ReadonlyMap<string, CommandMetrics>;
  readonly #stopped = Promise.withResolvers<void>();
  #worker: Worker | undefined;
  #serving = false;
  #restart: ReturnType<typeof setTimeout> | undefined;

  /** Starts to serve. If the folder can't be had the log says so, and the server tries again. */
  constructor(options: CniServerOptions) {
    this.#options = options;
    this.#metrics = new Map(
      SERVED_COMMANDS.map((command) => [command, countersOf(command, options.metrics)]),
    );
    this.#start();
  }

  #start(): void {
    const { path } = this.#options;
    const worker = new Worker(new URL("./cni_worker.ts", import.meta.url), {
      type: "module",
      name: "cni",
    });
    this.#worker = worker;
    worker.onmessage = ({ data }) => this.#heard(data);
    worker.onerror = (event) => {
      // A pod's call met a defect: the plugin does the work itself, and pods talk on. So the agent goes on, too.
      event.preventDefault();
      this.#options.log.error(
        "cni-thread-failed",
        `the thread that attaches pods ended: ${event.message}`,
      );
      this.#again();
    };
    const order: CniWorkerOrder = { path, build: BUILD };
    worker.postMessage(order);
  }

  #heard(message: CniWorkerMessage): void {
    const { path, log } = this.#options;
    if (message.kind === "serving") {
      this.#serving = true;
      this.#complaints.resolve();
      log.debug("cni-served", `attaching pods for the CNI plugin, which asks in ${path}`);
    } else if (message.kind === "refused") {
      if (this.#complaints.isNew(message.reason)) {
        log.warn(
          "cni-not-served",
          `cannot serve the CNI plugin in ${path} (--cni-calls), so each pod's start takes longer: ${message.reason}`,
        );
      }
      this.#again();
    } else if (message.kind === "stopped") {
      this.#stopped.resolve();
    } else {
      const { command, failed, seconds } = message.call;
      const metrics = this.#metrics.get(command)!;
      metrics[failed ? "failed" : "done"].add();
      metrics.seconds.observe(seconds);
    }
  }

  #again(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#serving = false;
    this.#restart = setTimeout(() => this.#start(), RESTART_MS);
  }

  /** Stops serving, once the call that is under way is done. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#restart);
    if (this.#serving) {
      {
        using ask = FifoWriter.open(new CallFiles(this.#options.path).ask);
        ask?.write(`${STOP}\n`, STOP_PATIENCE_MS);
      }
      const impatience = setTimeout(() => this.#stopped.resolve(), STOP_PATIENCE_MS);
      await this.#stopped.promise;
      clearTimeout(impatience);
    }
    this.#worker?.terminate();
  }
}

function countersOf(command: string, metrics: Metrics): CommandMetrics {
  const calls = (result: string) =>
    metrics.counter(
      "denim_cni_calls_total",
      "Calls of the CNI plugin that the agent carried out.",
      { command, result },
    );
  return {
    done: calls("done"),
    failed: calls("failed"),
    seconds: metrics.histogram(
      "denim_cni_call_seconds",
      "How long the agent took for calls of the CNI plugin, in seconds.",
      SECONDS,
      { command },
    ),
  };
}
