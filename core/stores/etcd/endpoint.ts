/**
 * One etcd server.
 *
 * @module
 */

import type { Etcd3 } from "etcd3";
import { RuntimeError } from "../../mod.ts";
import {
  answeredBy,
  CallError,
  type CallOptions,
  callOptions,
  type CreateEtcd3,
  Etcd3Connection,
  GRPC,
} from "./etcd3.ts";
import { readCredentials, type SettingNames, type TlsFiles } from "./tls.ts";

/** How to speak to etcd's servers. */
export interface EndpointOptions extends TlsFiles {
  /** The user to act as; none unless given. */
  readonly username?: string | undefined;
  /** The user's password. */
  readonly password?: string | undefined;
  /** How messages name what was given. */
  readonly names: SettingNames;
  /** Makes etcd3's clients; with etcd3's constructor unless given. */
  readonly createEtcd3?: CreateEtcd3;
}

/**
 * How long it may take until a server has answered for the first time. TCP retransmits its SYN after 1 s and 3 s: the
 * first may be enough, and for the second a new connection is better.
 */
const CONNECT_TIMEOUT_MS = 1_800;
/** How long a server that has answered before may take. */
const CALL_TIMEOUT_MS = 5_000;

/** The token if etcd asks for none. */
const NO_TOKEN = "";
/**
 * A token ends with the server's restart, with a change of users or rights, and by itself after some minutes; and
 * there may be none because etcd asked for none until now. Of these only the first has a code of its own.
 */
const TOKEN_REFUSED = /invalid auth token|revision of auth store is old|user name is empty/;

/** The connection was given up in the middle of a call. */
export class DroppedError extends RuntimeError {
  /** The class's name, for logs. */
  override readonly name = "DroppedError";

  /** For any call. */
  constructor(options?: ErrorOptions) {
    super("the connection was given up", options);
  }
}

/** A connection to one server, made when it is first used, and again after {@link Endpoint.drop}. */
export class Endpoint {
  /** Its URL. */
  readonly url: string;
  readonly #options: EndpointOptions;
  #client: Etcd3Connection | undefined;
  #token: string | undefined;
  #connection = new AbortController();
  #connecting: Promise<void> | undefined;
  #connected = false;
  #heardAtMs = 0;

  /** Nothing is connected yet. */
  constructor(url: string, options: EndpointOptions) {
    this.url = url;
    this.#options = options;
  }

  /** Aborted when the present connection is given up. */
  get connection(): AbortSignal {
    return this.#connection.signal;
  }

  /** Whether the server has answered on the present connection. */
  get isConnected(): boolean {
    return this.#connected;
  }

  /** Why a TLS handshake failed, unless the server has answered all the same. */
  get handshakeFailure(): Error | undefined {
    return this.#connected ? undefined : this.#client?.handshakeFailure;
  }

  /** Whether a connection was made on which the server has not answered. */
  get isUnanswered(): boolean {
    return !this.#connected && (this.#client?.isEstablished ?? false);
  }

  /** When the last message came from the server, as `performance.now()` has it. */
  get heardAtMs(): number {
    return this.#heardAtMs;
  }

  /** A message came from the server. */
  recordMessage(): void {
    this.#heardAtMs = performance.now();
  }

  /** Connects, unless it is connected. Rejects as {@link Endpoint.call} does if no answer comes soon. */
  connect(): Promise<void> {
    return this.#connecting ??= this.#connect();
  }

  async #connect(): Promise<void> {
    const { signal } = this.#connection;
    try {
      await this.#run(
        ({ maintenance }, options) => maintenance.status(answeredBy(options, () => ({}))),
        signal,
        CONNECT_TIMEOUT_MS,
      );
    } catch (error) {
      if (signal.aborted) throw new DroppedError({ cause: error });
      // Any other answer is an etcd's.
      if (!(error instanceof CallError) || error.mayPass || httpStatus(error) !== undefined) {
        throw error;
      }
    }
    this.#connected = !signal.aborted;
  }

  /** Calls the server once. Rejects with a CallError, and with a ConfigError for unusable TLS files. */
  async call<T>(
    request: (etcd: Etcd3, options: CallOptions) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    for (let again = false;; again = true) {
      const connection = this.#connection.signal;
      const token = this.#token;
      try {
        await this.#authenticate(signal);
        return await this.#run(request, signal);
      } catch (error) {
        // Another call has given up the connection, and this one's failure says nothing of the server.
        if (connection.aborted) throw new DroppedError({ cause: error });
        const refused = token !== undefined && this.#token !== token;
        if (again || !refused || signal.aborted) throw error;
      }
    }
  }

  /** Opens a watch's stream, which ends with the signal. */
  async openWatch(signal: AbortSignal): ReturnType<Etcd3["watchClient"]["watch"]> {
    const { watchClient } = this.#etcd();
    return await watchClient.watch(this.#callOptions(signal, (status) => status));
  }

  /** Gives up the connection, which may be broken: the next call makes a new one. */
  drop(): void {
    this.#connection.abort();
    this.#connection = new AbortController();
    this.#connecting = undefined;
    this.#connected = false;
    this.#client?.[Symbol.dispose]();
    this.#client = undefined;
    this.#token = undefined;
  }

  #etcd(): Etcd3 {
    // Read for each connection: certificates are renewed while agents run.
    this.#client ??= new Etcd3Connection(
      this.url,
      this.url.startsWith("https:")
        ? readCredentials(this.#options, this.#options.names)
        : undefined,
      this.#options.createEtcd3,
    );
    return this.#client.etcd;
  }

  async #authenticate(signal: AbortSignal): Promise<void> {
    const { username: name, password = "" } = this.#options;
    if (name === undefined || this.#token !== undefined) return;
    try {
      const { token } = await this.#run(
        ({ auth }, options) => auth.authenticate({ name, password }, options),
        signal,
      );
      this.#token = token;
    } catch (error) {
      // "authentication is not enabled". etcd's own client, too, lets a user in with a password that etcd does
      // not ask for.
      if (!(error instanceof CallError && error.code === GRPC.FAILED_PRECONDITION)) throw error;
      this.#token = NO_TOKEN;
    }
  }

  /** Makes one or several calls; the failure of one becomes a CallError. */
  async #run<T>(
    request: (etcd: Etcd3, options: CallOptions) => Promise<T>,
    signal: AbortSignal,
    timeoutMs: number = CALL_TIMEOUT_MS,
  ): Promise<T> {
    let failure: { readonly code: number; readonly details: string } | undefined;
    const options = this.#callOptions(signal, (status) => {
      if (status.code !== 0) failure = status;
      return status;
    }, timeoutMs);
    try {
      return await request(this.#etcd(), options);
    } catch (error) {
      throw failure === undefined ? error : new CallError(failure, { cause: error });
    }
  }

  #callOptions(
    signal: AbortSignal,
    onStatus: (status: { code: number; details: string }) => { code: number; details: string },
    timeoutMs?: number,
  ): CallOptions {
    return callOptions({
      ...timeoutMs === undefined ? {} : { timeoutMs },
      signal,
      token: () => this.#token,
      onStatus: ({ code, details }, token) => {
        if (token === undefined || !TOKEN_REFUSED.test(details)) return onStatus({ code, details });
        if (this.#token === token) this.#token = undefined;
        return onStatus({
          code: GRPC.UNAVAILABLE,
          details: "it does not know the token of this session any more",
        });
      },
    });
  }
}

/** The HTTP status of an answer by a server that is not an etcd. */
export function httpStatus({ message }: CallError): string | undefined {
  return /^Received HTTP status code (\d+)/.exec(message)?.[1];
}
