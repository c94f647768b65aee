/**
 * What tests of denim share: a third party's too, for backends and stores of its own.
 *
 * @module
 */

export {
  denimProgram,
  Lab,
  LabNode,
  type LabOptions,
  type PluginCall,
  Pod,
} from "@denim/agent/lab";
export * from "./contracts/backend.ts";
export * from "./support/root_test.ts";
