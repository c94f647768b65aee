/**
 * The node agent, for a program with backends of its own:
 * `Deno.exit(await runAgent({ backends: [...builtin, mine] }))`.
 *
 * @module
 */

export type { AnyBackend } from "./net_conf.ts";
export { runAgent, type RunAgentOptions } from "./run_agent.ts";
