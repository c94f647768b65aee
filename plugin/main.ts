/**
 * The CNI plugin as a program of its own: `deno run -A plugin/main.ts`, with `CNI_COMMAND` and the other variables in
 * the environment and the network configuration on standard input. Its argument is the folder in which an agent may have
 * an earlier call of the same attachment.
 *
 * @module
 */

import { runPlugin } from "./run_plugin.ts";

await runPlugin(Deno.args[0]);
