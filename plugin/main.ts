/**
 * The CNI plugin as a program of its own: `deno run -A plugin/main.ts`, with `CNI_COMMAND` and the other variables in
 * the environment and the network configuration on standard input.
 *
 * @module
 */

import { runPlugin } from "./run_plugin.ts";

await runPlugin();
