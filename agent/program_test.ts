import assert from "node:assert/strict";
import { AGENT_V8_FLAGS, denimProgram } from "./program.ts";

Deno.test("the denim task and the laboratory start the agent with the same V8 flags", async () => {
  const config = JSON.parse(await Deno.readTextFile(new URL("../deno.json", import.meta.url)));
  const flags = `--v8-flags=${AGENT_V8_FLAGS}`;
  assert.ok(config.tasks.denim.command.split(" ").includes(flags));
  assert.ok(denimProgram("agent").includes(flags));
});
