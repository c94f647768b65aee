import assert from "node:assert/strict";
import { nodeContext } from "../../tests/support/node_context.ts";
import { alloc } from "./mod.ts";

Deno.test("alloc asks nothing of the kernel, and leaves pods the outer device's MTU", async () => {
  await using session = await alloc.open(
    nodeContext({ outer: { mtuBytes: 9000 } }),
    alloc.options.parse({ Type: "alloc" }),
  );
  assert.deepEqual(
    [
      session.mtuBytes,
      session.publishes.size,
      session.nodeState(undefined),
      session.peerState(undefined!),
    ],
    [9000, 0, [], []],
  );
});
