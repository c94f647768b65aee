import assert from "node:assert/strict";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { IpAddress } from "../../ip.ts";
import { IncomingDrop } from "./incoming_drop.ts";

rootTest("IncomingDrop drops a port or a source, as nft reads it, until it is disposed of", () => {
  using namespace = new ScratchNamespace();
  const rules = () => sh(`ip netns exec ${namespace.name} nft list ruleset`);
  {
    using _drop = namespace.run(() => new IncomingDrop({ udpPort: 8472 }));
    assert.match(rules(), /hook prerouting priority raw; policy accept;/);
    assert.match(rules(), /ip protocol (17|udp) @nh,176,16 (8472|0x2118) drop/);
  }
  assert.equal(rules().trim(), "");
  using _drop = namespace.run(() => new IncomingDrop({ source: IpAddress.parse("10.99.0.1") }));
  assert.match(rules(), /ip saddr 10\.99\.0\.1 drop/);
});
