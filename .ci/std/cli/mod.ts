/**
 * Stands in for `jsr:@std/cli` where JSR is out of reach: what denim uses of it, no more.
 *
 * @module
 */

export * from "./parse_args.ts";
