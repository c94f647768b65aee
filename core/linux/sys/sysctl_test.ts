import assert from "node:assert/strict";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { readSysctl, trySysctl, writeSysctl } from "./sysctl.ts";

const NONE = "net/ipv4/conf/no-such-device/forwarding";

Deno.test("a setting that the kernel does not have is undefined, and can't be set", () => {
  assert.equal(readSysctl(NONE), undefined);
  assert.throws(() => writeSysctl(NONE, "1"), { name: "LinuxError", code: "ENOENT" });
  trySysctl(NONE, "1");
});

Deno.test("a setting that has the value already needs no right to be written", () => {
  const setting = "net/ipv4/ip_forward";
  writeSysctl(setting, readSysctl(setting)!);
});

rootTest(
  "settings are those of the thread's namespace, and a dot belongs to a device's name",
  () => {
    using namespace = new ScratchNamespace();
    namespace.ip("link add eth0.5 type bridge");
    const setting = "net/ipv4/conf/eth0.5/forwarding";
    assert.equal(readSysctl(setting), undefined);
    namespace.run(() => {
      writeSysctl(setting, "1");
      assert.equal(readSysctl(setting), "1");
      trySysctl(setting, "0");
      assert.equal(readSysctl(setting), "0");
    });
  },
);
