/**
 * What carries requests to the API server.
 *
 * @module
 */

import { messageOf, RuntimeError } from "../../mod.ts";

/** One request. */
export interface TransportRequest {
  /** `GET` or `PATCH`. */
  readonly method: string;
  /** The path on the server and the query, from its slash on. */
  readonly path: string;
  /** The headers. */
  readonly headers: Readonly<Record<string, string>>;
  /** The body; none if it is left out. */
  readonly body?: string | undefined;
  /** Ends the request, and the reading of its answer. */
  readonly signal: AbortSignal;
}

/** Connections to one server. What is under way fails when it is disposed of. */
export interface Transport extends Disposable {
  /** Makes a request. Rejects with a {@link TransportError} if there is no answer. */
  send(request: TransportRequest): Promise<Response>;
}

/** A server did not answer: it is out of reach, not what it should be, or hangs up. */
export class TransportError extends RuntimeError {}

/** What a person can do about a failure of TLS, by what its message says. */
const TLS_ADVICE: readonly (readonly [says: RegExp, advice: string])[] = [
  [
    /UnknownIssuer|self[- ]signed|unable to (verify|get)/,
    "its certificate is signed by none of the CAs that are known here; name its CA as certificate-authority",
  ],
  [/Expired|has expired/, "its certificate has expired"],
  [
    /NotValidForName|does not match certificate/,
    "its certificate is for another name; use one of its names in the URL, or tls-server-name",
  ],
  [/InvalidContentType|CorruptMessage|wrong version number/, "it does not speak TLS"],
];

/** What a failed request's error means to a person. */
export function explain(error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  const message = messageOf(cause)
    .replace(/^.*?client error \(\w+\): /, "")
    .replace(/^(tcp connect error: )+/, "");
  return TLS_ADVICE.find(([says]) => says.test(message))?.[1] ?? message;
}
