/**
 * What tests of denim share: a third party's too, for backends and stores of its own.
 *
 * @module
 */

export * from "./support/root_test.ts";
