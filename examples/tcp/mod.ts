/**
 * An example of a backend of one's own: pods' packets in TCP connections.
 *
 * @module
 */

export { tcp } from "./tcp_backend.ts";
