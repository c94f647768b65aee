import { IpAddress, parseNetworkConfig } from "@denim/core";
import assert from "node:assert/strict";
import { RecordingLog } from "../../tests/support/recording_log.ts";
import { alloc } from "./mod.ts";

Deno.test("alloc asks nothing of the kernel, and leaves pods the outer device's MTU", async () => {
  const addresses = new Map([[4, IpAddress.parse("10.99.0.1")]] as const);
  await using session = await alloc.open({
    config: parseNetworkConfig('{"Network":"10.5.0.0/16"}'),
    outer: { name: "eth0", mtuBytes: 9000, addresses, publicIps: addresses },
    held: undefined,
    kernel: { macOf: () => undefined, hasDevice: () => false, routeTo: () => undefined },
    log: new RecordingLog(),
    signal: new AbortController().signal,
  }, alloc.options.parse({ Type: "alloc" }));
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
