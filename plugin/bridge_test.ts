import assert from "node:assert/strict";
import { hostInterfaceName } from "./bridge.ts";

Deno.test("hostInterfaceName follows from the attachment, and fits a device", () => {
  const name = hostInterfaceName({ containerId: "a".repeat(64), ifName: "eth0" });
  assert.equal(name, hostInterfaceName({ containerId: "a".repeat(64), ifName: "eth0" }));
  assert.match(name, /^veth[0-9a-f]{11}$/);
  // FNV-1a 64 of "a/b": another hash would not find the pods that an older denim made.
  assert.equal(hostInterfaceName({ containerId: "a", ifName: "b" }), "vethe620c319046");
});

Deno.test("no two of 100,000 attachments share a name", () => {
  const names = new Set<string>();
  for (let index = 0; index < 50_000; index++) {
    for (const ifName of ["eth0", "net1"]) {
      names.add(hostInterfaceName({ containerId: `pod${index}`, ifName }));
    }
  }
  assert.equal(names.size, 100_000);
});
