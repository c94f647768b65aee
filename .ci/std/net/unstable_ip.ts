import * as net from "node:net";

/** Whether a text is an IPv4 address in dotted decimal. */
export function isIPv4(addr: string): boolean {
  return net.isIPv4(addr);
}

/** Whether a text is an IPv6 address (RFC 4291 section 2.2). */
export function isIPv6(addr: string): boolean {
  return net.isIPv6(addr);
}
