/**
 * An etcd cluster as one thing that answers or is waited for: tries each server, waits while none answers, and logs
 * that once.
 *
 * @module
 */

import type { Etcd3, IRangeRequest, IWatchResponse } from "etcd3";
import type { Buffer } from "node:buffer";
import {
  Backoff,
  clockAheadMs,
  type Logger,
  MAX_SLEEP_MS,
  messageOf,
  Outage,
  RuntimeError,
  sleep,
  type StoreMetrics,
  throwDefect,
} from "../../mod.ts";
import { DroppedError, Endpoint, type EndpointOptions, httpStatus } from "./endpoint.ts";
import { answeredBy, CallError, type CallOptions, GRPC } from "./etcd3.ts";
import { type RangeAnswer, readRangeAnswer } from "./range_answer.ts";
import { denoTls, explainTls, readAlert, readCredentials } from "./tls.ts";

/** Waits between rounds of attempts: short enough that etcd's return is noticed soon. */
const RETRY = { minMs: 100, maxMs: 1_000, jitter: 0.5 };
/** How long an endpoint is tried alone before the next one is tried as well. */
const HEAD_START_MS = 250;
/** The shortest interval in which a watch's server has to show that it is there. */
const MIN_HEARTBEAT_MS = 2_000;
/** The longest. */
const MAX_HEARTBEAT_MS = 10_000;
/** The interval between these for a number of nodes: all together ask some 500 times a second. */
const HEARTBEAT_MS_PER_NODE = 2;
/** How long the server may take to answer such a question. */
const HEARTBEAT_TIMEOUT_MS = 2_000;

/** How to reach a cluster. */
export interface ClientOptions extends EndpointOptions {
  /** The servers' URLs, `http:` or `https:`; one that answers is enough. */
  readonly endpoints: readonly string[];
  /** Whether to wait while no server answers. If not, calls reject once each has been tried. */
  readonly patient: boolean;
  /** How messages name the cluster. */
  readonly description: string;
  /** Where the client says what it waits for. */
  readonly log: Logger;
  /** Counts requests, failures and outages. */
  readonly metrics: StoreMetrics;
}

/** One request, made through etcd3. */
export type Request<T> = (etcd: Etcd3, options: CallOptions) => Promise<T>;

/** A watch broke; another one may go on from where it was. */
export class WatchBrokenError extends RuntimeError {
  /** The class's name, for logs. */
  override readonly name: string = "WatchBrokenError";
}

/** A watch can't go on from where it was: the revisions it needs are compacted, or were another cluster's. */
export class HistoryGoneError extends WatchBrokenError {
  /** The class's name, for logs. */
  override readonly name = "HistoryGoneError";
}

/** etcd answers, and refuses. */
export class RefusedError extends RuntimeError {
  /** What it says, and what to do; the message has the cluster's description before it. */
  readonly reason: string;
  /** gRPC's status code; see {@link GRPC}. */
  readonly code: number;

  /** A refusal by the cluster of this description. */
  constructor(description: string, reason: string, cause: CallError) {
    super(`${description}: ${reason}`, { cause });
    this.reason = reason;
    this.code = cause.code;
  }
}

/** Keys to watch. */
export interface KeyRange {
  /** The first key. */
  readonly key: Buffer;
  /** The first key behind the last one; only the first key unless given. */
  readonly range_end?: Buffer;
}

/** A connection to a cluster. */
export class EtcdClient implements AsyncDisposable {
  readonly #options: ClientOptions;
  /** The one that answered last comes first. */
  readonly #endpoints: Endpoint[];
  readonly #closed = new AbortController();
  /** About how many nodes have watches on the cluster: the more, the less often each asks for a sign of life. */
  nodes = 0;
  /** Whether any server ever answered. */
  #answered = false;
  readonly #outage: Outage;

  /** Nothing is connected yet. */
  constructor(options: ClientOptions) {
    this.#options = options;
    const { description, log, metrics } = options;
    this.#outage = new Outage(description, "answers", log, metrics.outages);
    // In a random order, so that a cluster's servers share the load.
    this.#endpoints = options.endpoints
      .map((url) => ({ endpoint: new Endpoint(url, options), order: Math.random() }))
      .sort((a, b) => a.order - b.order)
      .map(({ endpoint }) => endpoint);
  }

  /** Aborted when the client is closed, with the error for what still waits. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /**
   * Makes a request of the first server that answers, and waits while none does. Rejects at once with a
   * RefusedError if a server refuses; and with a RuntimeError if all servers are unusable, for example because of a
   * certificate, and none has ever answered.
   */
  async run<T>(request: Request<T>, signal: AbortSignal): Promise<T> {
    return await this.#attempt(request, signal, this.#options.patient);
  }

  /**
   * What keys hold; see {@link EtcdClient.run}.
   *
   * @param prefixBytes how many bytes of each key to leave out
   */
  async range(
    request: IRangeRequest,
    prefixBytes: number,
    signal: AbortSignal,
  ): Promise<RangeAnswer> {
    const read = (message: Uint8Array) => readRangeAnswer(message, prefixBytes);
    return await this.run(
      async ({ kv }, options) =>
        await kv.range(request, answeredBy(options, read)) as unknown as RangeAnswer,
      signal,
    );
  }

  /** {@link EtcdClient.run} for what is good to have, but not worth a wait. Resolves to whether it was done. */
  async tryOnce(request: Request<unknown>, signal: AbortSignal): Promise<boolean> {
    try {
      await this.#attempt(request, signal, false);
      return true;
    } catch (error) {
      if (error !== signal.reason) throwDefect(error);
      return false;
    }
  }

  /** Gives up every connection: what is under way is tried again on a new one. */
  reconnect(): void {
    for (const endpoint of this.#endpoints) endpoint.drop();
  }

  async #attempt<T>(request: Request<T>, signal: AbortSignal, patient: boolean): Promise<T> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    const { metrics, description } = this.#options;
    const backoff = new Backoff(RETRY);
    for (;;) {
      const failures: Failure[] = [];
      const untried = new Set(this.#endpoints);
      for (;;) {
        const endpoint = await this.#reach(untried, failures, ending);
        if (endpoint === undefined) break;
        untried.delete(endpoint);
        metrics.requests.add();
        try {
          const result = await endpoint.call(request, ending);
          this.#recordAnswer(endpoint);
          return result;
        } catch (error) {
          ending.throwIfAborted();
          metrics.failures.add();
          const failure = await this.#explain(endpoint, error);
          if (failure.kind === "answer") {
            this.#recordAnswer(endpoint);
            throw failure.error;
          }
          if (failure.kind !== "ailing") endpoint.drop();
          failures.push(failure);
        }
      }
      const unusable = failures.every(({ kind }) => kind === "unusable");
      const why = failures.map(({ error }) => error.message).join("; ");
      if (unusable && !this.#answered || !patient) {
        throw new RuntimeError(`${description}: ${why}`, { cause: failures[0]?.error });
      }
      // Logged once more if what is wrong becomes of the other kind.
      this.#outage.failed("call", why, unusable ? "unusable" : "outage");
      await sleep(backoff.next(), ending);
    }
  }

  /**
   * The first of some endpoints that is connected, or else that answers. Each is tried alone for a short time before
   * the next is tried too, so that a silent one costs no more than that. Moves those that fail to the failures.
   * `undefined` if none is left.
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
      this.#options.metrics.requests.add();
      this.#options.metrics.failures.add();
    }
    return undefined;
  }

  /**
   * What happens to some keys from a revision on, each time as one list of what has come in. The first list is
   * empty: the watch stands. Ends by throwing: a HistoryGoneError, a WatchBrokenError, a RefusedError, or, once the
   * signal is aborted, the signal's reason.
   *
   * @param from the first revision of interest, of the cluster with the id `clusterId`
   */
  async *watch(
    range: KeyRange,
    from: { readonly revision: number; readonly clusterId: string },
    signal: AbortSignal,
  ): AsyncGenerator<readonly IWatchResponse[], never, void> {
    const { clusterId, revision } = await this.range({ ...range, count_only: true }, 0, signal);
    // A cluster that was set up again, or from an old copy, has not come to this revision yet.
    if (clusterId !== from.clusterId || revision + 1 < from.revision) {
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

  /**
   * How far this host's clock is ahead of the server's that answered last, in milliseconds; `undefined` if it does not
   * tell. gRPC tells no time, but the port speaks HTTP as well, unless `--listen-client-http-urls` names another.
   */
  async clockAheadMs(signal: AbortSignal): Promise<number | undefined> {
    const { url } = this.#endpoints[0]!;
    using client = Deno.createHttpClient(
      denoTls(readCredentials(this.#options, this.#options.names)),
    );
    try {
      const response = await fetch(new URL("/version", url), { client, signal });
      await response.body?.cancel();
      return response.ok ? clockAheadMs(response.headers) : undefined;
    } catch (error) {
      // Whatever keeps fetch from an answer is a TypeError.
      if (!(error instanceof TypeError)) throwDefect(error);
      return undefined;
    }
  }

  /** Ends all calls and watches. */
  [Symbol.asyncDispose](): Promise<void> {
    if (!this.#closed.signal.aborted) {
      this.#closed.abort(new RuntimeError(`${this.#options.description} is closed`));
      for (const endpoint of this.#endpoints) endpoint.drop();
    }
    return Promise.resolve();
  }

  #recordAnswer(endpoint: Endpoint): void {
    this.#answered = true;
    if (this.#endpoints[0] !== endpoint) {
      this.#endpoints.splice(this.#endpoints.indexOf(endpoint), 1);
      this.#endpoints.unshift(endpoint);
    }
    this.#outage.worked("call");
  }

  async #explain(endpoint: Endpoint, error: unknown): Promise<Failure> {
    const fail = (kind: Failure["kind"], text: string): Failure => (
      { kind, error: new RuntimeError(`${endpoint.url}: ${text}`, { cause: error }) }
    );
    if (error instanceof DroppedError) return fail("outage", error.message);
    if (!(error instanceof CallError)) {
      throwDefect(error);
      return { kind: "unusable", error: error as Error };
    }
    const { names, description } = this.#options;
    const status = httpStatus(error);
    if (status !== undefined) {
      return fail("unusable", `it is not an etcd: it answers with HTTP status ${status}`);
    }
    const { handshakeFailure } = endpoint;
    const hangsUp = endpoint.isUnanswered && error.code === GRPC.UNAVAILABLE;
    const secure = endpoint.url.startsWith("https:");
    // The host's name may have several addresses: what is wrong with one that was reached says most.
    const tls = handshakeFailure !== undefined
      ? explainTls(messageOf(handshakeFailure), this.#options, names)
      : hangsUp && secure
      ? await readAlert(endpoint.url, this.#options, names)
      : undefined;
    if (tls !== undefined) return fail("unusable", tls);
    if (hangsUp) {
      const advice = secure ? "" : "; if it requires TLS, its URL begins with https:";
      return fail("outage", `it hangs up${advice}`);
    }
    const { message } = error;
    if (error.mayPass) {
      const kind = message.startsWith("etcdserver: ") ? "ailing" : "outage";
      return fail(kind, handshakeFailure === undefined ? message : messageOf(handshakeFailure));
    }
    const advice = message.includes("user name is empty")
      ? `: give ${names.username} and ${names.password}`
      : error.code === GRPC.PERMISSION_DENIED
      ? ": a role of the user must allow to read and write all of the prefix"
      : "";
    return { kind: "answer", error: new RefusedError(description, `${message}${advice}`, error) };
  }
}

/**
 * How a call failed: no answer; a server that answers, but whose cluster has no leader or the like; an endpoint that
 * can't be used until somebody changes something; or a refusal.
 */
interface Failure {
  readonly kind: "outage" | "ailing" | "unusable" | "answer";
  readonly error: Error;
}

type DuplexStream = Awaited<ReturnType<Endpoint["openWatch"]>>;

/** A watch's stream, which keeps what comes in until it is taken. */
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
    let duplex: DuplexStream;
    try {
      duplex = await endpoint.openWatch(either);
    } catch (error) {
      if (!either.aborted) throw error;
      throw new WatchBrokenError("the connection was given up", { cause: error });
    }
    const stream = new WatchStream(endpoint, duplex, heartbeatMs, ending);
    const end = () => stream.#fail(new WatchBrokenError("the connection was given up"));
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
    stream.on(
      "error",
      (error) => this.#fail(new WatchBrokenError(messageOf(error), { cause: error })),
    );
    stream.on("end", () => this.#fail(new WatchBrokenError("the server ended the watch")));
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
      // Other calls on this connection wait in vain, and so would the next.
      this.#fail(new WatchBrokenError("the server has fallen silent"));
      this.#endpoint.drop();
    }, HEARTBEAT_TIMEOUT_MS);
  }

  #receive(response: IWatchResponse): void {
    if (this.#ending.signal.aborted) return;
    this.#endpoint.recordMessage();
    this.#restAndAsk(this.#heartbeatMs);
    if (response.canceled) {
      const { compact_revision } = response;
      this.#fail(
        Number(compact_revision) > 0
          ? new HistoryGoneError(`revisions up to ${compact_revision} are compacted`)
          : new WatchBrokenError(
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
