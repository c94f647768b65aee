/**
 * denim with one more backend: the agent, and, where a container runtime runs it, the CNI plugin.
 *
 * @module
 */

import { tcp } from "./tcp_backend.ts";

if (Deno.env.has("CNI_COMMAND")) {
  const { runPlugin } = await import("@denim/plugin");
  await runPlugin();
} else {
  const { runAgent } = await import("@denim/agent");
  const { builtin } = await import("@denim/backends");
  Deno.exit(await runAgent({ backends: [...builtin, tcp] }));
}
