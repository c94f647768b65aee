/**
 * The program `denim`: the CNI plugin where a container runtime runs it, else the command line. Each part
 * is loaded only when it is used: a runtime waits for the plugin at every pod's start.
 *
 * @module
 */

if (Deno.env.has("CNI_COMMAND")) {
  const { runPlugin } = await import("@denim/plugin");
  await runPlugin();
} else {
  const { runCommandLine } = await import("./command_line.ts");
  Deno.exit(await runCommandLine(Deno.args));
}
