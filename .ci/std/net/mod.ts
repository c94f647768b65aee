/**
 * Stands in for `jsr:@std/net` where JSR is out of reach: what denim uses of it, no more.
 *
 * @module
 */

export * from "./get_available_port.ts";
