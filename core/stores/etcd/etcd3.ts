/**
 * etcd3 as denim uses it: its typed calls, and nothing of how it connects, retries, authenticates and reports
 * failures. All that works around etcd3 and the gRPC library beneath it is here, with the reasons:
 *
 * - **TLS by IP.** gRPC names the endpoint's host in the handshake even if it is an IP, which may not stand there
 *   (RFC 6066, section 3) and which `node:tls` refuses. denim makes the handshake itself.
 * - **Names with several addresses.** gRPC tries them all and reports the last failure, whichever that is. denim
 *   takes note of a failed handshake, which says more than another address's refused connection.
 * - **Closing.** gRPC closes a connection in good order: it waits for the server to close it too. A server that
 *   can't be reached any more, as after the node's address has changed, never does, and the socket stays for a
 *   quarter of an hour; one that never answered stays for ever. denim destroys its sockets.
 * - **Sharing.** gRPC gives channels with the same options one connection. A new one must be new.
 * - **Retries.** etcd3 tries again, and closes connections, by rules of its own. denim's client decides on both.
 * - **Tokens.** etcd3 opens a connection for each token that it never closes, and goes on using one that the
 *   server refuses.
 * - **Errors.** etcd3 drops gRPC's status code. denim reads it before etcd3 does.
 * - **Numbers.** etcd3 has 64-bit numbers as text, which protobufjs divides out digit by digit: two fifths of what reading a
 *   listing costs. denim gives it a function that does not.
 *
 * @module
 */

import { Etcd3, type IOptions, type KVClient } from "etcd3";
import { isIP, type Socket } from "node:net";
import tls from "node:tls";
import protobuf from "protobufjs";
import type { Credentials } from "./tls.ts";

/** A 64-bit number of protobufjs's. */
interface Long {
  readonly high: number;
  readonly low: number;
  readonly unsigned: boolean;
}

const longs: { toString(this: Long, radix?: number): string } = protobuf.util.Long.prototype;
const inAnyRadix = longs.toString;
longs.toString = function (radix = 10) {
  const { high, low, unsigned } = this;
  if (radix !== 10 || unsigned && high < 0) return inAnyRadix.call(this, radix);
  return high >= 0 && high < 2 ** 21
    ? `${high * 2 ** 32 + (low >>> 0)}`
    : `${BigInt(high) << 32n | BigInt(low >>> 0)}`;
};

/** gRPC's status codes (https://grpc.io/docs/guides/status-codes/) that denim tells apart. */
export const GRPC = {
  CANCELLED: 1,
  UNKNOWN: 2,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  INTERNAL: 13,
  UNAVAILABLE: 14,
} as const;

/** Codes of failures that may pass: the server, or its cluster, can't serve the call now. */
const PASSING: ReadonlySet<number> = new Set([
  GRPC.CANCELLED,
  GRPC.UNKNOWN,
  GRPC.DEADLINE_EXCEEDED,
  GRPC.RESOURCE_EXHAUSTED,
  GRPC.ABORTED,
  GRPC.INTERNAL,
  GRPC.UNAVAILABLE,
]);

/** A call that failed, as gRPC reports it. */
export class CallError extends Error {
  /** The class's name, for logs. */
  override readonly name = "CallError";
  /** gRPC's status code; see {@link GRPC}. */
  readonly code: number;

  /** The message is gRPC's, without what it puts around it. */
  constructor({ code, details }: Status, options?: ErrorOptions) {
    super(code === GRPC.DEADLINE_EXCEEDED ? "it does not answer" : unwrap(details), options);
    this.code = code;
  }

  /** Whether the same call may succeed later. */
  get mayPass(): boolean {
    return PASSING.has(this.code);
  }
}

/** How gRPC reports the end of a call. */
interface Status {
  readonly code: number;
  readonly details: string;
}

/** The failure in gRPC's `No connection established. Last error: Error: … (2026-01-01T…). Resolution note: `. */
function unwrap(details: string): string {
  return details
    .replace(/^No connection established\. Last error: (.*?)\.? ?Resolution note: ?$/s, "$1")
    .replace(/ \(\d{4}-[^)]*\)\.?$/, "")
    .replace(/^\w*Error(?: \[\w+\])?: (?:\[\w+\]: )?/, "");
}

/** What etcd3's calls take beside their request. */
export type CallOptions = NonNullable<Parameters<KVClient["range"]>[1]>;

type InterceptingCall = ReturnType<NonNullable<CallOptions["interceptors"]>[number]>;

/** How one or several calls are made. */
export interface CallSettings {
  /** How long a call may take, in milliseconds; for ever unless given. */
  readonly timeoutMs?: number;
  /** Gives the token to send; none if it is `undefined` or empty. */
  readonly token: () => string | undefined;
  /** Ends the calls. */
  readonly signal: AbortSignal;
  /** Takes the status with which a call ends; may return another in its place. */
  readonly onStatus: (status: Status, token: string | undefined) => Status;
}

/** Options for calls with a time limit, a token, and an end with a signal. */
export function callOptions(
  { timeoutMs, token: currentToken, signal, onStatus }: CallSettings,
): CallOptions {
  return {
    ...timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs },
    interceptors: [(options, nextCall) => {
      const call = nextCall(options);
      const start = call.start.bind(call);
      const cancel = () => call.cancelWithStatus(GRPC.CANCELLED, "not wanted any more");
      call.start = (metadata, listener) => {
        const token = currentToken();
        if (token) metadata.set("token", token);
        // So that a server which is cut off from its cluster ends a watch rather than falls silent.
        metadata.set("hasleader", "true");
        start(metadata, {
          onReceiveMetadata: (received) => listener?.onReceiveMetadata?.(received),
          // deno-lint-ignore no-explicit-any -- gRPC's own type for messages
          onReceiveMessage: (message: any) => listener?.onReceiveMessage?.(message),
          onReceiveStatus: (status) => {
            signal.removeEventListener("abort", cancel);
            listener?.onReceiveStatus?.({ ...status, ...onStatus(status, token) });
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

/**
 * The same options for a call whose answer `read` makes of its bytes. protobufjs, which does so otherwise, writes and compiles
 * functions for each type of message, and makes two objects of each message before denim makes one of its own.
 */
export function answeredBy(
  options: CallOptions,
  read: (message: Uint8Array) => unknown,
): CallOptions {
  const before = options.interceptors ?? [];
  return {
    ...options,
    interceptors: [...before, (options, nextCall) => {
      options.method_definition.responseDeserialize = read;
      return nextCall(options) as InterceptingCall;
    }],
  };
}

/** etcd3's retry policy, and its circuit breaker, that do nothing. */
const ONCE = {
  execute: async (run: (context: unknown) => unknown) => await run({}),
  onSuccess: () => ({ dispose() {} }),
  onFailure: () => ({ dispose() {} }),
} as never;

/** gRPC's first wait between attempts to connect: short, since denim waits by itself. */
const MIN_RECONNECT_MS = 100;
/** gRPC's longest. */
const MAX_RECONNECT_MS = 1_000;

/** Makes an etcd3 client. */
export type CreateEtcd3 = (options: IOptions) => Etcd3;

let generation = 0;

/** etcd3's record of a server, as far as denim uses it. */
interface Host {
  readonly channelCredentials: ChannelCredentials;
  /** gRPC's clients, by the name of the service. */
  readonly cachedServices: Readonly<Record<string, { close(): void }>>;
  /** Closes them after a call has failed, and lets those that are connecting go on for a second. */
  resetAllServices(): void;
}

/** The part of gRPC's channel credentials through which each connection goes that it makes. */
interface ChannelCredentials {
  _createSecureConnector(...args: unknown[]): SecureConnector;
}

/** Makes a TCP connection one that gRPC can use. */
interface SecureConnector {
  connect(socket: Socket): Promise<{ readonly socket: Socket; readonly secure: boolean }>;
  waitForReady(): Promise<void>;
  getCallCredentials(): unknown;
  destroy(): void;
}

/** An etcd3 client for one server, with the connections that gRPC makes for it. */
export class Etcd3Connection implements Disposable {
  /** The client. */
  readonly etcd: Etcd3;
  readonly #host: string;
  readonly #server: Host;
  readonly #credentials: Credentials | undefined;
  readonly #sockets = new Set<Socket>();
  #closed = false;
  #isEstablished = false;
  #handshakeFailure: Error | undefined;

  /**
   * Nothing is connected yet.
   *
   * @param credentials for TLS, which the URL decides on
   */
  constructor(
    url: string,
    credentials: Credentials | undefined,
    create: CreateEtcd3 = (options) => new Etcd3(options),
  ) {
    this.#host = new URL(url).hostname.replace(/^\[(.*)\]$/, "$1");
    this.#credentials = credentials;
    this.etcd = create({
      hosts: url,
      faultHandling: { host: () => ONCE, global: ONCE },
      grpcOptions: {
        "grpc.initial_reconnect_backoff_ms": MIN_RECONNECT_MS,
        "grpc.max_reconnect_backoff_ms": MAX_RECONNECT_MS,
        "grpc.max_receive_message_length": -1,
        // A proxy in the environment is for the way to the world, not to the cluster's own servers.
        "grpc.enable_http_proxy": 0,
        "denim.generation": generation++,
      },
    });
    const { pool } = this.etcd as unknown as { readonly pool: { readonly hosts: readonly [Host] } };
    [this.#server] = pool.hosts;
    this.#server.resetAllServices = () => {};
    const { channelCredentials } = this.#server;
    const createConnector = channelCredentials._createSecureConnector.bind(channelCredentials);
    channelCredentials._createSecureConnector = (...args) => {
      const connector = createConnector(...args);
      return {
        connect: (socket) => this.#secure(socket),
        waitForReady: () => connector.waitForReady(),
        getCallCredentials: () => connector.getCallCredentials(),
        destroy: () => connector.destroy(),
      };
    };
  }

  /** Whether a connection was made, and its handshake with it, to any of the host's addresses. */
  get isEstablished(): boolean {
    return this.#isEstablished;
  }

  /** Why the last TLS handshake that failed did so, with any of the host's addresses. */
  get handshakeFailure(): Error | undefined {
    return this.#handshakeFailure;
  }

  /** Gives up the client and all its connections. */
  [Symbol.dispose](): void {
    this.#closed = true;
    for (const service of Object.values(this.#server.cachedServices)) service.close();
    this.etcd.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #secure(socket: Socket): Promise<{ socket: Socket; secure: boolean }> {
    this.#keep(socket);
    const credentials = this.#credentials;
    if (credentials === undefined) {
      this.#isEstablished = true;
      return { socket, secure: false };
    }
    try {
      const secured = await handshake(socket, this.#host, credentials);
      this.#keep(secured);
      this.#isEstablished = true;
      return { socket: secured, secure: true };
    } catch (error) {
      this.#handshakeFailure = error as Error;
      throw error;
    }
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    if (this.#closed) socket.destroy();
  }
}

function handshake(socket: Socket, host: string, credentials: Credentials): Promise<tls.TLSSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<tls.TLSSocket>();
  const { ca, cert, key } = credentials;
  const secured = tls.connect({
    socket,
    // The certificate is checked against it.
    host,
    ...isIP(host) === 0 ? { servername: host } : {},
    ...ca === undefined ? {} : { ca },
    ...cert === undefined ? {} : { cert },
    ...key === undefined ? {} : { key },
    ALPNProtocols: ["h2"],
  }, () => secured.authorized ? resolve(secured) : reject(secured.authorizationError));
  secured.on("error", reject);
  return promise;
}
