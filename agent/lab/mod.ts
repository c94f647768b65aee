/**
 * A laboratory: a small cluster of namespaces on one machine, with real agents and pods. The demo is made of
 * it, and so are tests of whole nodes, a third party's too.
 *
 * @module
 */

export {
  allDone,
  Lab,
  LabNode,
  type LabOptions,
  type LabUnderlay,
  type PluginCall,
  until,
} from "./lab.ts";
export { Pod } from "./pod.ts";
export { denimProgram } from "../program.ts";
