/**
 * Which requests come from a page of the agent's own. A web site that somebody of this machine looks at can send
 * requests to loopback too: it may give its own name another address (DNS rebinding), and may send forms anywhere.
 *
 * @module
 */

/** Addresses of this machine alone. */
const LOOPBACK = /^(127(\.\d+){3}|\[::1\])$/;
/** The same as the other end of a connection: IPv4 at a socket of IPv6 begins with `::ffff:`. */
const LOOPBACK_PEER = /^((::ffff:)?127(\.\d+){3}|::1)$/;

/** Whether a name can be no web site's: a loopback address, or a name without a dot, as `localhost`. */
export function isLocalName(hostname: string): boolean {
  return LOOPBACK.test(hostname) || !/[.:]/.test(hostname);
}

/** Whether a request was asked for under a name of this machine. */
export function isAskedLocally(request: Request): boolean {
  return isLocalName(new URL(request.url).hostname);
}

/** Whether who asks has connected from a loopback address, and so is on this machine. */
export function isFromLoopback(from: Deno.Addr | undefined): boolean {
  return from !== undefined && "hostname" in from && LOOPBACK_PEER.test(from.hostname);
}

/** Whether a request that does something comes from the same place that it goes to, as far as browsers say. */
export function isSameOrigin(request: Request): boolean {
  const origin = request.headers.get("Origin");
  return origin === null || URL.parse(origin)?.host === new URL(request.url).host;
}
