import { getAvailablePort } from "@std/net/get-available-port";
import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { Health } from "./health.ts";

Deno.test("health is there at once, readiness when the node says so", async () => {
  const port = getAvailablePort();
  await using health = Health.serve({ hostname: "127.0.0.1", port }, new RecordingLog());
  const ask = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    await response.body?.cancel();
    return response.status;
  };
  assert.deepEqual([await ask("/healthz"), await ask("/readyz")], [200, 503]);
  health.tell(undefined);
  assert.deepEqual([await ask("/readyz"), await ask("/")], [200, 404]);
  health.tell("its subnet is another node's");
  assert.equal(await ask("/readyz"), 503);
});

Deno.test("a port that is taken is named with its flags", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  await Promise.resolve();
  assert.throws(
    () => Health.serve({ hostname: "127.0.0.1", port }, new RecordingLog()),
    new RegExp(`--healthz-ip 127\\.0\\.0\\.1 --healthz-port ${port}: .*`),
  );
});
