import assert from "node:assert/strict";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { IpAddress } from "../../ip.ts";
import { Pinger } from "./ping.ts";

rootTest("a reply that came in time counts, though the thread stood still until later", () => {
  using namespace = new ScratchNamespace();
  namespace.ip("link set lo up");
  using pinger = namespace.run(() => new Pinger(4));
  const { now } = performance;
  let looks = 0;
  try {
    performance.now = () => {
      if (looks++ > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
      return now.call(performance);
    };
    assert.ok(pinger.ping(IpAddress.parse("127.0.0.1"), 50) !== undefined);
  } finally {
    performance.now = now;
  }
});
