/**
 * What tests of denim share: a third party's too, for backends and stores of its own.
 *
 * @module
 */

export { Lab, LabNode, type LabOptions, type PluginCall } from "../agent/lab/lab.ts";
export { denimProgram } from "../agent/program.ts";
export { Pod } from "../agent/lab/pod.ts";
export * from "./contracts/backend.ts";
export * from "./support/root_test.ts";
