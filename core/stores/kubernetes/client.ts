/**
 * The API server as one thing that is there or is waited for: requests wait while it is away, does not let this
 * node in yet, or asks for patience, and say so once.
 *
 * @module
 */

import {
  clockAheadMs,
  ConfigError,
  type Logger,
  Outage,
  RuntimeError,
  sleep,
  type StoreMetrics,
  throwDefect,
} from "../../mod.ts";
import type { Access, AccessSource } from "./access.ts";
import { type Answer, Connection } from "./connection.ts";
import { openTransport, type Resolve } from "./open_transport.ts";
import { explainRefusal, RefusedError, retryAfterMs, type Right } from "./refusal.ts";
import { TransportError } from "./transport.ts";

/** Waits between attempts: from this, doubling … */
const MIN_RETRY_MS = 100;
/** … to this, so that the server's return is noticed soon. Each wait is cut short by up to a half, by chance. */
const MAX_RETRY_MS = 1_000;
/** The longest wait for a right or for credentials: what a person has to mend. */
const MAX_REFUSED_MS = 5_000;
/** The longest wait that a server is granted. */
const MAX_RETRY_AFTER_MS = 60_000;

/** The shortest time in which nothing is heard before a server has to show that it is there … */
const MIN_QUIET_MS = 4_000;
/** … the longest … */
const MAX_QUIET_MS = 10_000;
/** … and the time between these for a number of nodes, which all ask. Where there are many, news come more often. */
const QUIET_MS_PER_NODE = 2;

/** How to reach a cluster. */
export interface ClientOptions {
  /** What the way to it is read from, again for each connection. */
  readonly access: AccessSource;
  /** Hears what is waited for. */
  readonly log: Logger;
  /** Counts requests, failures and outages. */
  readonly metrics: StoreMetrics;
  /** Finds a name's addresses; the system's way unless given. */
  readonly resolve?: Resolve | undefined;
}

/** One request. */
export interface Call extends Right {
  /** The path on the server and the query. */
  readonly path: string;
  /** The forms that the answer may have. */
  readonly accept: string;
  /** Whether the cluster may withhold the right: then the request is refused rather than waited for. */
  readonly optional?: boolean;
  /** What is sent along, and its form. */
  readonly patch?: { readonly type: string; readonly body: string };
}

/** A connection, and what it was opened with. */
interface Opened {
  readonly access: Access;
  readonly connection: Connection;
}

/** Connections to a cluster, one at a time. */
export class KubernetesClient implements AsyncDisposable {
  readonly #options: ClientOptions;
  readonly #outage: Outage;
  readonly #closed = new AbortController();
  #current: Promise<Opened> | undefined;
  /** Whether credentials that were asked for once have to be asked for again. */
  #renew = false;
  /** Not from the first one on: all nodes do as this one does. */
  #turn = Math.floor(Math.random() * 1_000_000);
  /** Its URL as it was read last, for messages. */
  #server = "";
  /** Whether the server ever answered. */
  #answered = false;
  #clockAheadMs: number | undefined;
  /** About how many nodes have watches on the cluster. */
  nodes = 0;

  /** Nothing is read or connected yet. */
  constructor(options: ClientOptions) {
    this.#options = options;
    this.#outage = new Outage(
      "the Kubernetes API server",
      "answers",
      options.log,
      options.metrics.outages,
    );
  }

  /** The API server's URL as it was read last; `undefined` before that. */
  get server(): string | undefined {
    return this.#server || undefined;
  }

  /** How far this host's clock is ahead of the server's, in milliseconds, as its last answer told. */
  get clockAheadMs(): number | undefined {
    return this.#clockAheadMs;
  }

  /** Aborted when the client is closed, with the reason that waits reject with. */
  get closed(): AbortSignal {
    return this.#closed.signal;
  }

  /**
   * Makes a request and reads its answer with `read`; again, if the answer breaks off meanwhile. Waits while the
   * server is away or busy, does not know this node or does not let it. Rejects with a RefusedError if it refuses
   * for any other reason, and with a ConfigError if what it is to be reached by can't be used and never
   * could.
   */
  async request<T>(
    call: Call,
    read: (answer: Answer) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const ending = AbortSignal.any([signal, this.#closed.signal]);
    let renewed = false;
    for (let attempt = 0;; attempt++) {
      const doubled = MIN_RETRY_MS * 2 ** Math.min(attempt, 10);
      let waitMs = Math.min(doubled, MAX_RETRY_MS);
      this.#options.metrics.requests.add();
      try {
        using answer = await this.#send(call, ending);
        this.#clockAheadMs = clockAheadMs(answer.headers);
        if (answer.status < 300) {
          const result = await read(answer);
          this.#worked(call);
          return result;
        }
        const why = explainRefusal(answer.status, await answer.bytes(), call);
        this.#answered = true;
        if (answer.status === 401) {
          // What was read of the credentials may be old.
          this.#renew = true;
          this.#drop("its credentials are read again");
          waitMs = renewed ? Math.min(doubled, MAX_REFUSED_MS) : 0;
          if (renewed) this.#outage.failed("credentials", why);
          renewed = true;
        } else if (answer.status === 403 && !call.optional) {
          this.#outage.failed(`${call.verb} ${call.resource}`, why);
          waitMs = Math.min(doubled, MAX_REFUSED_MS);
        } else if (isBusy(answer.status, why)) {
          this.#outage.failed("load", why, `${answer.status}`);
          waitMs = Math.max(
            waitMs,
            Math.min(retryAfterMs(answer.headers) ?? 0, MAX_RETRY_AFTER_MS) * 2,
          );
        } else throw new RefusedError(answer.status, why);
      } catch (error) {
        if (error !== ending.reason) throwDefect(error);
        ending.throwIfAborted();
        if (error instanceof RefusedError || !this.#waitsOut(error)) throw error;
        const at = error instanceof TransportError && this.#server !== ""
          ? `${this.#server}: `
          : "";
        this.#outage.failed("connection", at + error.message);
      }
      this.#options.metrics.failures.add();
      // Less by up to a half, by chance, so that not all nodes come at once.
      await sleep(waitMs * (0.5 + Math.random() / 2), ending);
      ending.throwIfAborted();
    }
  }

  /** Gives up the connection: what is under way fails, and is tried again on a new one. */
  reconnect(): void {
    this.#drop("this node's addresses are others now");
  }

  #drop(why: string): void {
    const current = this.#current;
    this.#current = undefined;
    current?.then(({ connection }) => connection.end(new TransportError(why)), () => {});
  }

  /** Ends all requests and watches. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort(new RuntimeError("the Kubernetes store is closed"));
    this.#drop("the store is closed");
    return Promise.resolve();
  }

  async #send({ path, accept, patch }: Call, signal: AbortSignal): Promise<Answer> {
    const current = this.#open();
    try {
      const { access, connection } = await current;
      return await connection.send({
        method: patch === undefined ? "GET" : "PATCH",
        path,
        headers: {
          "accept": accept,
          "user-agent": "denim",
          // The server would spend more on packing than a cluster's network on carrying.
          "accept-encoding": "identity",
          ...patch && { "content-type": patch.type },
          ...await authorization(access, signal),
        },
        body: patch?.body,
        signal,
      });
    } catch (error) {
      // Another attempt begins with the files, and with another of the server's addresses.
      if (!signal.aborted && this.#current === current) this.#drop("another request failed on it");
      throw error;
    }
  }

  /** The connection; opens one if there is none. */
  #open(): Promise<Opened> {
    if (this.#current !== undefined) return this.#current;
    const opening = this.#connect();
    this.#current = opening;
    const drop = () => {
      if (this.#current === opening) this.#current = undefined;
    };
    opening.then(({ connection: { ended } }) => {
      ended.addEventListener("abort", drop, { once: true });
    }, drop);
    return opening;
  }

  async #connect(): Promise<Opened> {
    const { access: source, resolve } = this.#options;
    const access = await source.read(this.#renew, this.closed);
    this.#renew = false;
    this.#server = access.server;
    const transport = await openTransport(access, this.#turn++, resolve);
    const connection = new Connection(
      transport,
      () => Math.min(Math.max(this.nodes * QUIET_MS_PER_NODE, MIN_QUIET_MS), MAX_QUIET_MS),
      (signal) => authorization(access, signal),
    );
    return { access, connection };
  }

  /** Whether it may go by: what could be used once may only be on its way to being renewed. */
  #waitsOut(error: unknown): error is Error {
    return error instanceof RuntimeError || this.#answered && error instanceof ConfigError;
  }

  #worked({ verb, resource }: Call): void {
    this.#answered = true;
    this.#outage.worked("connection", "credentials", "load", `${verb} ${resource}`);
  }
}

/** Whether to ask again later helps. It does not if what is asked for is newer than the server's store. */
function isBusy(status: number, why: string): boolean {
  return status === 429 || status >= 500 && !why.includes("Too large resource version");
}

async function authorization(
  access: Access,
  signal: AbortSignal,
): Promise<Readonly<Record<string, string>>> {
  const token = await access.token(signal);
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
}
