/**
 * The part of an agent that attaches pods, which kills itself (kill_at_step.ts) once it serves. Its third argument is the
 * folder of calls.
 *
 * @module
 */

import { PluginServer } from "@denim/plugin";

using server = PluginServer.open(Deno.args[2]!, undefined);
await import("./kill_at_step.ts");
server.serve(() => {});
