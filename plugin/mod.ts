/**
 * denim's CNI plugin: ADD, DEL and VERSION in one process, in place of the chain flannel, bridge, host-local.
 *
 * @module
 */

export { type Answer, answer, runPlugin } from "./plugin.ts";
export type { ReadVariable } from "./environment.ts";
