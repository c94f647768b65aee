import assert from "node:assert/strict";
import { Cidr } from "./ip.ts";
import { nexthopId } from "./kernel_state.ts";

Deno.test("nexthop ids: by subnet", () => {
  for (
    const [subnet, id] of [
      ["10.5.38.0/24", 0x0a05_2600],
      ["223.255.255.0/24", 0xdfff_ff00],
      ["fc00:5:0:e::/64", 0xe000_000e],
      ["fc00:5:0:f::/64", 0xe000_000f],
      ["fc00:5::f000:0/100", 0xe000_000f],
      ["ffff:ffff:ffff:ffff::/64", 0xffff_ffff],
    ] as const
  ) assert.equal(nexthopId(Cidr.parse(subnet)), id, subnet);
});

Deno.test("nexthop ids: the subnets of a network have different ones", () => {
  const network = Cidr.parse("fc00:5::/48");
  const ids = new Set<number>();
  for (let index = 0n; index < 1n << 16n; index++) {
    ids.add(nexthopId(new Cidr(network.at(index << 64n), 64)));
  }
  assert.equal(ids.size, 1 << 16);
});
