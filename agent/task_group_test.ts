import { RuntimeError } from "@denim/core";
import assert from "node:assert/strict";
import { TaskGroup } from "./task_group.ts";
import { NEVER } from "../tests/support/wait.ts";

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve()));
}

Deno.test("the first task that fails ends the others, and its failure is the group's", async () => {
  const group = new TaskGroup(NEVER);
  let ended = 0;
  for (let at = 0; at < 2; at++) group.add(aborted(group.signal).then(() => void ended++));
  group.add(aborted(group.signal).then(() => Promise.reject(new RuntimeError("too late"))));
  group.add(Promise.reject(new RuntimeError("port taken")));
  await assert.rejects(group.join(), /^RuntimeError: port taken$/);
  assert.equal(ended, 2, "it waits for all");
});

Deno.test("a group waits for tasks that its tasks add", async () => {
  const group = new TaskGroup(NEVER);
  let ended = false;
  group.add((async () => {
    await Promise.resolve();
    group.add(new Promise((resolve) => setTimeout(resolve, 1)).then(() => void (ended = true)));
  })());
  await group.join();
  assert.ok(ended);
});

Deno.test("after a stop failures are no news, but a defect is", async () => {
  for (
    const [failure, counts] of [[new RuntimeError("stopped"), false], [
      new TypeError("!"),
      true,
    ]] as const
  ) {
    const stopping = new AbortController();
    const group = new TaskGroup(stopping.signal);
    group.add(aborted(group.signal).then(() => Promise.reject(new RuntimeError("stopped"))));
    group.add(aborted(group.signal).then(() => Promise.reject(failure)));
    stopping.abort();
    if (counts) await assert.rejects(group.join(), failure);
    else await group.join();
  }
});
