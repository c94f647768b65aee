import assert from "node:assert/strict";
import { Cidr } from "./ip.ts";
import { isNexthopIdOf, nexthopId } from "./kernel_state.ts";

Deno.test("nexthop ids: by subnet", () => {
  for (
    const [subnet, id] of [
      ["10.5.38.0/24", 0x0a05_2600],
      ["223.255.255.0/24", 0xdfff_ff00],
      ["0:0:0:e::/64", 0xe000_000e],
      ["fc00:5:0:e::/64", 0xf062_b2ca],
      ["fc00:5:0:f::/64", 0xf062_b2cb],
      ["fc00:6:0:e::/64", 0xee9a_2c73],
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

Deno.test("nexthop ids: whether one is of a network", () => {
  for (
    const [network, subnetLength, inside, outside] of [
      ["10.5.0.0/16", 24, "10.5.255.0/24", "10.6.0.0/24"],
      ["10.5.0.0/16", 24, "10.5.7.0/28", "fc00:5:0:7::/64"],
      ["fc00:5::/48", 64, "fc00:5:0:ffff::/64", "fc00:6:0:ffff::/64"],
      ["fc00:5::/48", 64, "fc00:5::/64", "fc00:5:1::/64"],
      ["fc00:5::/112", 126, "fc00:5::fffc/126", "fc00:5::1:0/126"],
      ["fc00::/24", 64, "fc00:ff:ffff::/64", "10.5.0.0/24"],
    ] as const
  ) {
    const of = { network: Cidr.parse(network), subnetLength };
    assert.ok(isNexthopIdOf(nexthopId(Cidr.parse(inside)), of), `${inside} in ${network}`);
    assert.ok(!isNexthopIdOf(nexthopId(Cidr.parse(outside)), of), `${outside} in ${network}`);
  }
});
