/**
 * One etcd server.
 *
 * @module
 */

import { Etcd3, isRecoverableError, type KVClient } from "etcd3";
import { ConfigError, messageOf } from "../../mod.ts";
import { allowIpEndpoints, readCredentials, type TlsFiles } from "./tls.ts";

/** What etcd3's calls take beside their request. */
export type CallOptions = NonNullable<Parameters<KVClient["range"]>[1]>;

type InterceptingCall = ReturnType<NonNullable<CallOptions["interceptors"]>[number]>;

/** How to speak to etcd's servers. */
export interface EndpointOptions extends TlsFiles {
  /** The user to act as; none unless given. */
  readonly username?: string | undefined;
  /** The user's password. */
  readonly password?: string | undefined;
}

/**
 * How long it may take until a server has answered for the first time: TCP asks a second time after 1 s, which
 * may be enough; whether a third time, 2 s later, it had better be asked anew.
 */
const CONNECT_TIMEOUT_MS = 1_800;
/** How long a server that has answered before may take. */
const CALL_TIMEOUT_MS = 5_000;
/** gRPC's own waits between attempts to connect: short, since this store waits by itself. */
const MIN_RECONNECT_MS = 100;
const MAX_RECONNECT_MS = 1_000;

/** The token where etcd asks for none. */
const NO_TOKEN = "";
/**
 * A token ends with the server's restart, with a change of users or rights, by itself after some minutes;
 * and there may be none because etcd asked for none until now.
 */
const TOKEN_REFUSED = /invalid auth token|revision of auth store is old|user name is empty/;

/** What gRPC says of a server that does not speak it. */
export const NOT_ETCD = /^(?:\d+ [A-Z_]+: )?Received HTTP status code (\d+)/;

const CANCELLED = 1;
const UNAVAILABLE = 14;

let generation = 0;

/** The connection was given up in the middle of a call. */
export class DroppedError extends Error {
  /** The class's name, for logs. */
  override readonly name = "DroppedError";
}

/** A policy of etcd3's that leaves trying again to us. */
const ONCE = {
  execute: async (run: (context: unknown) => unknown) => await run({}),
  onSuccess: () => ({ dispose() {} }),
  onFailure: () => ({ dispose() {} }),
} as never;

/** A connection to one server, made when it is first used, and anew after {@link Endpoint.drop}. */
export class Endpoint implements Disposable {
  /** Its URL. */
  readonly url: string;
  readonly #options: EndpointOptions;
  #etcd: Etcd3 | undefined;
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

  /** When the server was last heard, as `performance.now()` tells the time. */
  get heardAtMs(): number {
    return this.#heardAtMs;
  }

  /** The server was heard. */
  hear(): void {
    this.#heardAtMs = performance.now();
  }

  /** Connects, where that was not done. Rejects as {@link Endpoint.call} does where no answer comes soon. */
  connect(): Promise<void> {
    return this.#connecting ??= this.#connect();
  }

  async #connect(): Promise<void> {
    const { signal } = this.#connection;
    try {
      await this.#client().maintenance.status(this.#callOptions(signal, CONNECT_TIMEOUT_MS));
    } catch (error) {
      if (signal.aborted) throw new DroppedError("the connection was given up");
      // Any other answer is an etcd's.
      const isAnswer = !(error instanceof ConfigError) && !isRecoverableError(error as Error);
      if (!isAnswer || NOT_ETCD.test(messageOf(error))) throw error;
    }
    this.#connected = !signal.aborted;
  }

  /** Calls the server once. Rejects with etcd3's errors, and with a ConfigError for unusable TLS files. */
  async call<T>(
    request: (etcd: Etcd3, options: CallOptions) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    for (let again = false;; again = true) {
      const connection = this.#connection.signal;
      const token = this.#token;
      try {
        await this.#authenticate(signal);
        return await request(this.#client(), this.#callOptions(signal));
      } catch (error) {
        // Another call has given it up, and this one's failure says nothing of the server.
        if (connection.aborted) throw new DroppedError("the connection was given up");
        const refused = token !== undefined && this.#token !== token;
        if (again || !refused || signal.aborted) throw error;
      }
    }
  }

  /** Opens a watch's stream, which ends with the signal. */
  async openWatch(signal: AbortSignal): ReturnType<Etcd3["watchClient"]["watch"]> {
    const { deadline: _, ...options } = this.#callOptions(signal);
    return await this.#client().watchClient.watch(options);
  }

  /** Gives up the connection, where it may be broken: the next call makes a new one. */
  drop(): void {
    this.#connection.abort();
    this.#connection = new AbortController();
    this.#connecting = undefined;
    this.#connected = false;
    this.#etcd?.close();
    this.#etcd = undefined;
    this.#token = undefined;
  }

  /** Closes it for good. */
  [Symbol.dispose](): void {
    this.drop();
  }

  #client(): Etcd3 {
    if (this.#etcd !== undefined) return this.#etcd;
    const secure = this.url.startsWith("https:");
    if (secure) allowIpEndpoints();
    // Read anew for each connection: certificates are renewed while agents run.
    const credentials = secure ? { credentials: readCredentials(this.#options) } : {};
    this.#etcd = new Etcd3({
      hosts: this.url,
      ...credentials,
      faultHandling: { host: () => ONCE, global: ONCE },
      grpcOptions: {
        "grpc.initial_reconnect_backoff_ms": MIN_RECONNECT_MS,
        "grpc.max_reconnect_backoff_ms": MAX_RECONNECT_MS,
        "grpc.max_receive_message_length": -1,
        // A proxy in the environment is for the way to the world, not to the cluster's own servers.
        "grpc.enable_http_proxy": 0,
        // gRPC shares connections between channels with the same options; a new one must be new.
        "denim.generation": generation++,
      },
    });
    return this.#etcd;
  }

  async #authenticate(signal: AbortSignal): Promise<void> {
    const { username: name, password = "" } = this.#options;
    if (name === undefined || this.#token !== undefined) return;
    const options = this.#callOptions(signal);
    try {
      this.#token = (await this.#client().auth.authenticate({ name, password }, options)).token;
    } catch (error) {
      if (!/authentication is not enabled/.test(messageOf(error))) throw error;
      // As etcd's own client has it: who knows a password may use an etcd that asks for none.
      this.#token = NO_TOKEN;
    }
  }

  /**
   * A time limit, the token, and an end with the signal. The token is not left to etcd3: it opens a
   * connection a token that it never closes, and calls on and on with one that the server refuses.
   */
  #callOptions(signal: AbortSignal, timeoutMs = CALL_TIMEOUT_MS): CallOptions {
    return {
      deadline: Date.now() + timeoutMs,
      interceptors: [(options, nextCall) => {
        const call = nextCall(options);
        const start = call.start.bind(call);
        const cancel = () => call.cancelWithStatus(CANCELLED, "not wanted any more");
        call.start = (metadata, listener) => {
          const token = this.#token;
          if (token !== undefined && token !== NO_TOKEN) metadata.set("token", token);
          // A server that is cut off from its cluster is to end a watch, not to fall silent.
          metadata.set("hasleader", "true");
          start(metadata, {
            onReceiveMetadata: (received) => listener?.onReceiveMetadata?.(received),
            // deno-lint-ignore no-explicit-any -- gRPC's own type for messages
            onReceiveMessage: (message: any) => listener?.onReceiveMessage?.(message),
            onReceiveStatus: (status) => {
              signal.removeEventListener("abort", cancel);
              if (token !== undefined && TOKEN_REFUSED.test(status.details)) {
                if (this.#token === token) this.#token = undefined;
                listener?.onReceiveStatus?.({
                  ...status,
                  code: UNAVAILABLE,
                  details: "it does not know the token of this session any more",
                });
              } else listener?.onReceiveStatus?.(status);
            },
          });
          if (signal.aborted) cancel();
          else signal.addEventListener("abort", cancel, { once: true });
        };
        // gRPC asks for its own class, and uses no more of it than its interface, which this is.
        return call as InterceptingCall;
      }],
    };
  }
}
