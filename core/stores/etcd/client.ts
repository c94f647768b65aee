/**
 * An etcd cluster as one thing that is there or is waited for: tries each server, waits while none
 * answers, and says so once.
 *
 * @module
 */

import { type Etcd3, isRecoverableError, type IWatchResponse } from "etcd3";
import type { Buffer } from "node:buffer";
import {
  ConfigError,
  type Logger,
  MAX_SLEEP_MS,
  messageOf,
  RuntimeError,
  sleep,
} from "../../mod.ts";
import { Outage } from "../../outage.ts";
import {
  type CallOptions,
  DroppedError,
  Endpoint,
  type EndpointOptions,
  NOT_ETCD,
} from "./endpoint.ts";
import { explainTls, heardAlert } from "./tls.ts";

/** Waits between rounds of attempts: from this, doubling … */
const MIN_RETRY_MS = 100;
/** … to this, so that etcd's return is noticed soon. Each wait is cut short by up to a half, by chance. */
const MAX_RETRY_MS = 1_000;
/** How long an endpoint has the field to itself before the next one is tried as well. */
const HEAD_START_MS = 250;
/** How often a watch's server has to show that it is there: from this … */
const MIN_HEARTBEAT_MS = 2_000;
/** … to this, so that all nodes together ask some 500 times a second … */
const MAX_HEARTBEAT_MS = 10_000;
const HEARTBEAT_MS_PER_NODE = 2;
/** … and within what time. */
const HEARTBEAT_TIMEOUT_MS = 2_000;

/** How to reach a cluster. */
export interface ClientOptions extends EndpointOptions {
  /** The servers' URLs, `http:` or `https:`; one that answers is enough. */
  readonly endpoints: readonly string[];
  /** Whether to wait while no server answers. Where not, calls reject once each has been tried. */
  readonly patient: boolean;
  /** How messages name the cluster. */
  readonly description: string;
  /** Hears what is waited for. */
  readonly log: Logger;
}

/** One request, made through etcd3. */
export type Request<T> = (etcd: Etcd3, options: CallOptions) => Promise<T>;

/** What a watch can't go on from: the revisions it needs are compacted, or were another cluster's. */
export class HistoryGoneError extends Error {
  /** The class's name, for logs. */
  override readonly name = "HistoryGoneError";
}

/** etcd answers, and refuses. */
export class RefusedError extends RuntimeError {
  /** What it says, and what to do; the message has the cluster's description before it. */
  readonly reason: string;

  /** A refusal by the cluster of this description. */
  constructor(description: string, reason: string, options: ErrorOptions) {
    super(`${description}: ${reason}`, options);
    this.reason = reason;
  }
}

/** What to do about a refusal, by what etcd says. */
const ADVICE: readonly (readonly [says: RegExp, advice: string])[] = [
  [/user name is empty/, "give --etcd-username and --etcd-password"],
  [/permission denied/, "a role of the user's has to allow to read and write all of the prefix"],
];

/** Keys to watch. */
export interface KeyRange {
  /** The first key. */
  readonly key: Buffer;
  /** The first key behind the last one; only the first key where it is left out. */
  readonly range_end?: Buffer;
}

/** A connection to a cluster. */
export class EtcdClient implements AsyncDisposable {
  readonly #options: ClientOptions;
  /** The one that answered last comes first. */
  readonly #endpoints: Endpoint[];
  readonly #closed = new AbortController();
  /** How many nodes, about, have watches on the cluster as this one has: the more, the less each asks. */
  nodes = 0;
  /** Whether any server ever answered. */
  #answered = false;
  readonly #outage: Outage;

  /** Nothing is connected yet. */
  constructor(options: ClientOptions) {
    this.#options = options;
    this.#outage = new Outage(options.description, "answers", options.log);
    // In an order of its own for each client, so that a cluster's servers share the load.
    this.#endpoints = options.endpoints
      .map((url) => ({ endpoint: new Endpoint(url, options), order: Math.random() }))
      .sort((a, b) => a.order - b.order)
      .map(({ endpoint }) => endpoint);
  }

  /** Aborted when the client is closed, with what to tell whoever waits. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /**
   * Makes a request of the first server that answers, and waits while none does. What a server refuses is
   * thrown at once, as a RuntimeError; so is, before any server has ever answered, what makes all of
   * them unusable, such as a certificate.
   */
  async run<T>(request: Request<T>, signal: AbortSignal): Promise<T> {
    return await this.#attempt(request, signal, this.#options.patient);
  }

  /** {@link EtcdClient.run} for what is good to have, but not worth a wait: tells whether it was done. */
  async tryOnce(request: Request<unknown>, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#attempt(request, signal, false);
      return true;
    } catch {
      return false;
    }
  }

  /** Gives up every connection: what is under way is tried again on a new one. */
  reconnect(): void {
    for (const endpoint of this.#endpoints) endpoint.drop();
  }

  async #attempt<T>(request: Request<T>, signal: AbortSignal, patient: boolean): Promise<T> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    for (let waitMs = MIN_RETRY_MS;; waitMs = Math.min(waitMs * 2, MAX_RETRY_MS)) {
      const failures: Failure[] = [];
      const untried = new Set(this.#endpoints);
      for (;;) {
        const endpoint = await this.#reach(untried, failures, ending);
        if (endpoint === undefined) break;
        untried.delete(endpoint);
        try {
          const result = await endpoint.call(request, ending);
          this.#heardFrom(endpoint);
          return result;
        } catch (error) {
          ending.throwIfAborted();
          const failure = await this.#explain(endpoint, error);
          if (failure.kind === "answer") {
            this.#heardFrom(endpoint);
            throw failure.error;
          }
          if (failure.kind !== "ailing") endpoint.drop();
          failures.push(failure);
        }
      }
      const unusable = failures.every(({ kind }) => kind === "unusable");
      const why = failures.map(({ error }) => error.message).join("; ");
      if (unusable && !this.#answered || !patient) {
        throw new RuntimeError(`${this.#options.description}: ${why}`);
      }
      // Once more where what is amiss is of the other kind.
      this.#outage.failed("call", why, unusable ? "unusable" : "outage");
      await sleep(waitMs * (0.5 + Math.random() / 2), ending);
    }
  }

  /**
   * The first of some endpoints that is connected, or else that answers: each is given a short time before
   * the next is asked too, so that one which is silent costs no more than that. Those that fail are taken
   * out, with what is wrong with them. `undefined` where none is left.
   */
  async #reach(
    untried: Set<Endpoint>,
    failures: Failure[],
    ending: AbortSignal,
  ): Promise<Endpoint | undefined> {
    ending.throwIfAborted();
    const waiting = [...untried];
    const connected = waiting.find(({ isConnected }) => isConnected);
    if (connected !== undefined) return connected;
    const connecting = new Map<Endpoint, Promise<[Endpoint, Failure?]>>();
    using over = new DisposableStack();
    const done = new AbortController();
    over.defer(() => done.abort());
    const either = AbortSignal.any([ending, done.signal]);
    while (waiting.length + connecting.size > 0) {
      const next = waiting.shift();
      if (next !== undefined) {
        connecting.set(
          next,
          next.connect().then(
            () => [next],
            async (error) => [next, await this.#explain(next, error)],
          ),
        );
      }
      const time = sleep(waiting.length > 0 ? HEAD_START_MS : MAX_SLEEP_MS, either);
      const outcome = await Promise.race([...connecting.values(), time]);
      ending.throwIfAborted();
      if (typeof outcome === "boolean") continue;
      const [endpoint, failure] = outcome;
      connecting.delete(endpoint);
      if (failure === undefined) {
        for (const other of connecting.keys()) other.drop();
        return endpoint;
      }
      endpoint.drop();
      untried.delete(endpoint);
      failures.push(failure);
    }
    return undefined;
  }

  /**
   * What happens to some keys from a revision on, each time as one list of what has come in; the first is
   * empty and says that the watch stands. Ends by throwing: a HistoryGoneError, or an Error that says
   * how the stream broke; or, once the signal is aborted, the signal's reason.
   *
   * @param from the first revision of interest, of the cluster with the id `clusterId`
   */
  async *watch(
    range: KeyRange,
    from: { readonly revision: number; readonly clusterId: string },
    signal: AbortSignal,
  ): AsyncGenerator<readonly IWatchResponse[], never, void> {
    const probe = await this.run(
      (etcd, options) => etcd.kv.range({ ...range, count_only: true }, options),
      signal,
    );
    const { cluster_id, revision } = probe.header;
    // A cluster that was made anew, or from an old copy, has yet to come to this revision.
    if (cluster_id !== from.clusterId || Number(revision) + 1 < from.revision) {
      throw new HistoryGoneError(`${this.#options.description} was replaced by another`);
    }
    const [endpoint] = this.#endpoints;
    using stream = await WatchStream.open(
      endpoint!,
      { ...range, start_revision: from.revision },
      Math.min(Math.max(this.nodes * HEARTBEAT_MS_PER_NODE, MIN_HEARTBEAT_MS), MAX_HEARTBEAT_MS),
      AbortSignal.any([signal, this.#closed.signal]),
    );
    for (;;) {
      try {
        yield await stream.next();
      } catch (error) {
        signal.throwIfAborted();
        this.#closed.signal.throwIfAborted();
        throw error;
      }
    }
  }

  /** Ends all calls and watches. */
  [Symbol.asyncDispose](): Promise<void> {
    if (!this.#closed.signal.aborted) {
      this.#closed.abort(new RuntimeError(`${this.#options.description} is closed`));
      for (const endpoint of this.#endpoints) endpoint[Symbol.dispose]();
    }
    return Promise.resolve();
  }

  #heardFrom(endpoint: Endpoint): void {
    this.#answered = true;
    if (this.#endpoints[0] !== endpoint) {
      this.#endpoints.splice(this.#endpoints.indexOf(endpoint), 1);
      this.#endpoints.unshift(endpoint);
    }
    this.#outage.worked("call");
  }

  async #explain(endpoint: Endpoint, error: unknown): Promise<Failure> {
    const message = messageOf(error)
      .replace(/^\d+ [A-Z_]+: /, "")
      .replace(/^No connection established\. Last error: (?:\w*Error: )?(?:\[\w+\]: )?/, "")
      .replace(/^\w*Error \[\w+\]: /, "")
      .replace(/( \(\d{4}-[^)]*\))?\.? ?Resolution note: ?$/, "")
      .replace(/^Deadline exceeded after .*$/, "it does not answer")
      .replace(
        // Which of them it is depends on who is faster.
        endpoint.url.startsWith("https:")
          ? /^Failed to connect$/
          : /^Failed to connect$|^.*(EPIPE|ECONNRESET)$/,
        "it hangs up; where it wants TLS, its URL begins with https:",
      );
    const hungUp = /EPIPE|ECONNRESET/.test(message);
    const tls = explainTls(message, this.#options) ??
      (hungUp ? await heardAlert(endpoint.url, this.#options) : undefined);
    const say = (text: string) => new RuntimeError(`${endpoint.url}: ${text}`);
    if (error instanceof ConfigError) return { kind: "unusable", error };
    if (tls !== undefined) return { kind: "unusable", error: say(tls) };
    const status = NOT_ETCD.exec(message)?.[1];
    if (status !== undefined) {
      return {
        kind: "unusable",
        error: say(`it is no etcd: it answers with HTTP status ${status}`),
      };
    }
    if (error instanceof DroppedError || error instanceof Error && isRecoverableError(error)) {
      const kind = message.startsWith("etcdserver: ") ? "ailing" : "outage";
      return { kind, error: say(message) };
    }
    const { description } = this.#options;
    const advice = ADVICE.find(([says]) => says.test(message))?.[1];
    const reason = advice === undefined ? message : `${message}: ${advice}`;
    return { kind: "answer", error: new RefusedError(description, reason, { cause: error }) };
  }
}

/**
 * How a call failed: no answer; a server that answers, but whose cluster is without a leader or the like; an
 * endpoint that can't be used as things are; or a refusal.
 */
interface Failure {
  readonly kind: "outage" | "ailing" | "unusable" | "answer";
  readonly error: Error;
}

type DuplexStream = Awaited<ReturnType<Endpoint["openWatch"]>>;

/** A watch's stream, from which what came in is taken when the taker is ready. */
class WatchStream implements Disposable {
  readonly #endpoint: Endpoint;
  readonly #stream: DuplexStream;
  readonly #heartbeatMs: number;
  #arrived: IWatchResponse[] = [];
  #failure: Error | undefined;
  #wake = Promise.withResolvers<void>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #ending: AbortController;

  static async open(
    endpoint: Endpoint,
    request: KeyRange & { readonly start_revision: number },
    heartbeatMs: number,
    signal: AbortSignal,
  ): Promise<WatchStream> {
    const ending = new AbortController();
    const either = AbortSignal.any([signal, endpoint.connection, ending.signal]);
    const duplex = await endpoint.openWatch(either);
    const stream = new WatchStream(endpoint, duplex, heartbeatMs, ending);
    const end = () => stream.#fail(new Error("the connection was given up"));
    if (either.aborted) end();
    else either.addEventListener("abort", end, { once: true });
    duplex.write({ create_request: request });
    stream.#expectLife();
    return stream;
  }

  private constructor(
    endpoint: Endpoint,
    stream: DuplexStream,
    heartbeatMs: number,
    ending: AbortController,
  ) {
    this.#endpoint = endpoint;
    this.#stream = stream;
    this.#heartbeatMs = heartbeatMs;
    this.#ending = ending;
    stream.on("data", (response) => this.#receive(response));
    stream.on("error", (error) => this.#fail(error));
    stream.on("end", () => this.#fail(new Error("the server ended the watch")));
  }

  /** What has come in, as soon as there is something. */
  async next(): Promise<readonly IWatchResponse[]> {
    while (this.#arrived.length === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      await this.#wake.promise;
      this.#wake = Promise.withResolvers();
    }
    const arrived = this.#arrived;
    this.#arrived = [];
    return arrived;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#ending.abort();
  }

  /** Asks for a sign of life, unless another stream to this server has just had one. */
  #ask(): void {
    const quietMs = performance.now() - this.#endpoint.heardAtMs;
    if (quietMs < this.#heartbeatMs) return this.#restAndAsk(this.#heartbeatMs - quietMs);
    this.#stream.write({ progress_request: {} });
    this.#expectLife();
  }

  #restAndAsk(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), ms);
  }

  #expectLife(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      // Whoever else waits for it on this connection waits in vain, and so would the next call.
      this.#fail(new Error("the server has fallen silent"));
      this.#endpoint.drop();
    }, HEARTBEAT_TIMEOUT_MS);
  }

  #receive(response: IWatchResponse): void {
    if (this.#ending.signal.aborted) return;
    this.#endpoint.hear();
    this.#restAndAsk(this.#heartbeatMs);
    if (response.canceled) {
      const { compact_revision } = response;
      this.#fail(
        Number(compact_revision) > 0
          ? new HistoryGoneError(`revisions up to ${compact_revision} are compacted`)
          : new Error(
            (response as { cancel_reason?: string }).cancel_reason || "the server cancelled it",
          ),
      );
      return;
    }
    if (!response.created && response.events.length === 0) return;
    this.#arrived.push(response);
    this.#wake.resolve();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    clearTimeout(this.#timer);
    this.#wake.resolve();
  }
}
