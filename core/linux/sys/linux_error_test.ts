import assert from "node:assert/strict";
import { EPERM, LinuxError } from "./linux_error.ts";

Deno.test("LinuxError says what failed, why, and the errno's name", () => {
  for (
    const [error, message, code] of [
      [new LinuxError(EPERM, "setns /x"), "setns /x: not permitted (EPERM)", "EPERM"],
      [new LinuxError(22, "add", "bad VNI"), "add: bad VNI (EINVAL)", "EINVAL"],
      [new LinuxError(4095, "open /x"), "open /x: error 4095 (E4095)", "E4095"],
    ] as const
  ) {
    assert.deepEqual([error.message, error.code], [message, code]);
  }
});

Deno.test("LinuxError keeps the error that it says more about", () => {
  const cause = new LinuxError(EPERM, "send");
  assert.equal(new LinuxError(EPERM, "make cni0", undefined, { cause }).cause, cause);
});
