import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { rootTest } from "../../tests/support/root_test.ts";
import { TempFolder } from "../../tests/support/temp_folder.ts";
import { eventually, NEVER } from "../../tests/support/wait.ts";
import { Lab, whileProgress } from "./lab.ts";

rootTest("a laboratory that goes while an agent is being started leaves no folder", async () => {
  using folder = new TempFolder();
  const path = Deno.env.get("PATH")!;
  const mark = (name: string) => `${folder.path}/${name}`;
  // As on a busy machine: it takes its time.
  Deno.writeTextFileSync(
    mark("mkdir"),
    `#!/bin/sh\ntouch ${mark("begun")}; sleep 0.2; PATH=${path} mkdir "$@"; touch ${
      mark("done")
    }\n`,
    { mode: 0o755 },
  );
  const lab = await Lab.create({ nodes: 1, netConf: {} });
  const starting = new AbortController();
  Deno.env.set("PATH", `${folder.path}:${path}`);
  const started = lab.startAgents(starting.signal);
  Deno.env.set("PATH", path);
  await eventually("its shell is at work", () => existsSync(mark("begun")));
  starting.abort();
  await assert.rejects(started);
  await lab[Symbol.asyncDispose]();
  assert.ok(existsSync(mark("done")) && !existsSync(lab.directory));
});

Deno.test("whileProgress() waits for as long as there is progress", async () => {
  let looks = 0;
  const waited: number[] = [];
  const done = await whileProgress({
    until: () => looks >= 20,
    progress: () => `${++looks}`,
    onWait: () => waited.push(looks),
    lookMs: 1,
  }, NEVER);
  assert.equal(done, true);
  assert.equal(waited.length, 20);
});

Deno.test("whileProgress() gives up after three looks without progress", async () => {
  const steps = ["a", "a", "a", "b", "b", "b", "b", "c"];
  let looks = 0;
  const wait = { until: () => false, progress: () => steps[looks++]!, lookMs: 1 };
  assert.equal(await whileProgress(wait, NEVER), false);
  assert.equal(looks, 7);
});

Deno.test("whileProgress() ends with its signal", async () => {
  const reason = new Error("stopped");
  const wait = { until: () => false, progress: () => "" };
  await assert.rejects(whileProgress(wait, AbortSignal.abort(reason)), reason);
});
