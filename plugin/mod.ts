/**
 * denim's CNI plugin: one process in place of the chain flannel, bridge, host-local; or in flannel's place alone,
 * where another plugin than bridge does the work.
 *
 * @module
 */

export { type Answer, answer, runPlugin } from "./plugin.ts";
export type { ReadVariable } from "./environment.ts";
