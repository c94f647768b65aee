import assert from "node:assert/strict";
import { denimProgram, denoFlags } from "./program.ts";

Deno.test("the denim task, the laboratory and an installed denim run the agent with the same flags", async () => {
  const config = JSON.parse(await Deno.readTextFile(new URL("../deno.json", import.meta.url)));
  const flags = denoFlags("agent");
  assert.equal(config.tasks.denim.command, `deno run ${flags.join(" ")} agent/main.ts`);
  assert.deepEqual(denimProgram("agent").slice(2, -2), flags);
});
