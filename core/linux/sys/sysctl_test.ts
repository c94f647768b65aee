import assert from "node:assert/strict";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { TempFolder } from "../../../tests/support/temp_folder.ts";
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

rootTest("a container writes to its host's settings where those are mounted", () => {
  using host = new TempFolder();
  const script = `
    import { readSysctl, writeSysctl } from ${JSON.stringify(import.meta.resolve("./sysctl.ts"))};
    const name = "net/ipv4/conf/lo/forwarding";
    const before = readSysctl(name);
    writeSysctl(name, before === "1" ? "0" : "1", Deno.args[0]);
    console.log(before === readSysctl(name) ? "as before" : "changed");
  `;
  Deno.writeTextFileSync(`${host.path}/write.ts`, script);
  const run = (mountHost: string) =>
    sh(
      `unshare --mount --net sh -ec '${mountHost}; mount --bind /proc/sys /proc/sys;
      mount -o remount,bind,ro /proc/sys; "$1" run -A "$2/write.ts" "$2"' sh "$1" "$2"`,
      [
        Deno.execPath(),
        host.path,
      ],
    );
  assert.throws(() => run(":"), /the file system is read-only \(EROFS\)/);
  const mounted = run('mkdir -p "$2/proc/sys/net"; mount --bind /proc/sys/net "$2/proc/sys/net"');
  assert.equal(mounted, "changed\n");
});
