/**
 * A connection to the API server that notices when the server falls silent. `fetch` does not: it waits for
 * the next byte of a watch for ever, and sends later requests the same way.
 *
 * @module
 */

import { sleep, throwUnlessAborted } from "../../mod.ts";
import { type Transport, TransportError, type TransportRequest } from "./transport.ts";

/** How long a server that was asked whether it is there has to say so. */
const PROBE_MS = 4_000;

/** How much is read at once. */
const BUFFER_BYTES = 65_536;

/** An answer, whose body is read as it comes. It has to be disposed of, read or not. */
export class Answer implements Disposable {
  /** HTTP's status. */
  readonly status: number;
  /** The headers. */
  readonly headers: Headers;
  /** The body as it comes, once; each piece until the next is asked for. Throws a TransportError if it breaks off. */
  readonly chunks: AsyncIterable<Uint8Array>;
  readonly #held: DisposableStack;

  /** An answer that ends what `held` holds when it is disposed of. */
  constructor(
    from: Pick<Answer, "status" | "headers" | "chunks">,
    held: DisposableStack,
  ) {
    this.status = from.status;
    this.headers = from.headers;
    this.chunks = from.chunks;
    this.#held = held;
  }

  /** The whole body. Rejects as {@link Answer.chunks} throws. */
  async bytes(): Promise<Uint8Array> {
    let whole = new Uint8Array(BUFFER_BYTES);
    let length = 0;
    for await (const chunk of this.chunks) {
      if (length + chunk.length > whole.length) {
        const larger = new Uint8Array(2 * (length + chunk.length));
        larger.set(whole.subarray(0, length));
        whole = larger;
      }
      whole.set(chunk, length);
      length += chunk.length;
    }
    return whole.subarray(0, length);
  }

  /** The same answer for another owner: this one's disposal does nothing any more. */
  move(): Answer {
    return new Answer(this, this.#held.move());
  }

  /** Ends the request if the body was not read to its end. */
  [Symbol.dispose](): void {
    this.#held.dispose();
  }
}

/** A transport under watch. It ends when it is disposed of, or the server falls silent. */
export class Connection implements Disposable {
  readonly #transport: Transport;
  readonly #quietMs: () => number;
  readonly #identity: (signal: AbortSignal) => Promise<Readonly<Record<string, string>>>;
  readonly #ending = new AbortController();
  /** How many answers are due, or being read. */
  #due = 0;
  #heardAtMs = 0;
  #watch: AbortController | undefined;

  /**
   * Watches over a transport, which it owns.
   *
   * @param quietMs how long nothing may be heard, with an answer due, before the server is asked whether it is there
   * @param identity the headers that say who asks. After a request of nobody's a server has its client open another
   * connection (Kubernetes' UnauthenticatedHTTP2DOSMitigation): then it would be that one that was asked
   */
  constructor(
    transport: Transport,
    quietMs: () => number,
    identity: (signal: AbortSignal) => Promise<Readonly<Record<string, string>>>,
  ) {
    this.#transport = transport;
    this.#quietMs = quietMs;
    this.#identity = identity;
  }

  /** Aborted when the connection has ended, with why. */
  get ended(): AbortSignal {
    return this.#ending.signal;
  }

  /** Makes a request. Rejects with a TransportError if there is no answer, or with the signal's reason. */
  async send(request: TransportRequest): Promise<Answer> {
    const own = new AbortController();
    const ending = AbortSignal.any([request.signal, this.ended, own.signal]);
    using undo = new DisposableStack();
    this.#await();
    undo.defer(() => this.#done());
    undo.defer(() => own.abort());
    const response = await this.#transport.send({ ...request, signal: ending });
    this.#heardAtMs = performance.now();
    const { status, headers } = response;
    const chunks = this.#read(response, ending);
    return new Answer({ status, headers, chunks }, undo.move());
  }

  /** Ends it: what is under way rejects with the reason. */
  end(reason: Error): void {
    if (this.ended.aborted) return;
    this.#ending.abort(reason);
    this.#watch?.abort();
    this.#transport[Symbol.dispose]();
  }

  /** Ends it. */
  [Symbol.dispose](): void {
    this.end(new TransportError("the connection was closed"));
  }

  async *#read(response: Response, ending: AbortSignal): AsyncGenerator<Uint8Array, void, void> {
    if (response.body === null) return;
    // One buffer for all that comes: fetch would make one of 64 KB for each 16 KB.
    const reader = response.body.getReader({ mode: "byob" });
    let buffer = new Uint8Array(BUFFER_BYTES);
    try {
      for (;;) {
        const { done, value } = await reader.read(buffer);
        if (done) return;
        this.#heardAtMs = performance.now();
        yield value;
        buffer = new Uint8Array(value.buffer);
      }
    } catch (error) {
      ending.throwIfAborted();
      if (error instanceof TransportError) throw error;
      throw new TransportError("it broke off in the middle of an answer", { cause: error });
    }
  }

  #await(): void {
    if (this.#due++ > 0) return;
    this.#heardAtMs = performance.now();
    this.#watch = new AbortController();
    void this.#watchOver(this.#watch.signal);
  }

  #done(): void {
    if (--this.#due === 0) this.#watch?.abort();
  }

  async #watchOver(over: AbortSignal): Promise<void> {
    for (;;) {
      const quietMs = performance.now() - this.#heardAtMs;
      if (!await sleep(this.#quietMs() - quietMs, over)) return;
      if (performance.now() - this.#heardAtMs < this.#quietMs()) continue;
      const late = new AbortController();
      const timer = setTimeout(() => late.abort(), PROBE_MS);
      try {
        const signal = AbortSignal.any([over, late.signal]);
        const headers = await this.#identity(signal);
        const response = await this.#transport.send({
          method: "GET",
          path: "/livez",
          headers,
          signal,
        });
        // Whatever it says: it is there.
        await response.body?.cancel();
        this.#heardAtMs = performance.now();
      } catch (error) {
        if (over.aborted) return throwUnlessAborted(error, over);
        if (!late.signal.aborted && !(error instanceof TransportError)) throw error;
        // What was due came meanwhile: it is only slow, or this machine is.
        if (performance.now() - this.#heardAtMs < PROBE_MS) continue;
        this.end(new TransportError("it has fallen silent", { cause: error }));
        return;
      } finally {
        clearTimeout(timer);
      }
    }
  }
}
