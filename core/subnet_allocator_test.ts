import assert from "node:assert/strict";
import { Cidr, IpAddress } from "./ip.ts";
import { type FamilyConfig, parseNetworkConfig } from "./net_conf.ts";
import { chooseSubnets, randomBelow, SubnetAllocator } from "./subnet_allocator.ts";

const IPV4 = familyConfig({ Network: "10.5.0.0/24", SubnetLen: 28 });
const IPV6 = familyConfig({
  EnableIPv4: false,
  EnableIPv6: true,
  IPv6Network: "fc00:5::/60",
  IPv6SubnetLen: 64,
});
const BOUNDED = familyConfig({
  Network: "10.5.0.0/24",
  SubnetLen: 28,
  SubnetMin: "10.5.0.48",
  SubnetMax: "10.5.0.176",
});
/** flannel takes a SubnetMin that is the network's first subnet. */
const FROM_ZERO = familyConfig({ Network: "10.5.0.0/24", SubnetLen: 28, SubnetMin: "10.5.0.0" });
/** 2⁶⁴ subnets. */
const HUGE_IPV6 = familyConfig({
  EnableIPv4: false,
  EnableIPv6: true,
  IPv6Network: "fc00::/32",
  IPv6SubnetLen: 96,
});

function familyConfig(netConf: Record<string, unknown>): FamilyConfig {
  return parseNetworkConfig(JSON.stringify(netConf)).families[0]!;
}

/** The subnets of a network by number. */
function subnetAt({ network, subnetLength, family }: FamilyConfig, index: bigint): Cidr {
  const hostBits = BigInt((family === 4 ? 32 : 128) - subnetLength);
  return new Cidr(network.at(index << hostBits), subnetLength);
}

/** Every subnet that is free, in order: what `pick` gives for 0, 1, 2 and so on. */
function allFree(allocator: SubnetAllocator): string[] {
  return Array.from({ length: Number(allocator.free) }, (_, rank) =>
    `${
      allocator.pick((limit) => {
        assert.equal(limit, allocator.free);
        return BigInt(rank);
      })
    }`);
}

/** The same by definition. */
function freeByDefinition(config: FamilyConfig, held: readonly Cidr[]): string[] {
  const count = 1n << BigInt(config.subnetLength - config.network.prefixLength);
  const free: string[] = [];
  for (let index = 1n; index < count; index++) {
    const subnet = subnetAt(config, index);
    const { value } = subnet.address;
    if (value < config.subnetMin.value || value > config.subnetMax.value) continue;
    if (!held.some((other) => other.overlaps(subnet))) free.push(`${subnet}`);
  }
  return free;
}

const HELD: readonly string[] = [
  "10.5.0.16/28",
  "10.5.0.64/26", // Four subnets …
  "10.5.0.80/28", // … and one of them again.
  "10.5.0.150/32", // A part of one.
  "10.5.0.240/28",
  "10.6.0.0/28", // Outside.
  "fc00:5::/58", // Around, of the other family.
  "fc00:5:0:3::/64",
  "fc00:5:0:8::/62",
  "fc00:5:0:f:1::/96",
];

for (const [name, config] of Object.entries({ IPV4, IPV6, BOUNDED, FROM_ZERO })) {
  Deno.test(`allocator: what is free with bounds, the first subnet and others' lengths (${name})`, () => {
    assert.deepEqual(allFree(new SubnetAllocator(config)), freeByDefinition(config, []));
    const held = HELD.map((text) => Cidr.parse(text)).filter(({ prefixLength }) =>
      prefixLength !== 58
    );
    assert.deepEqual(allFree(new SubnetAllocator(config, held)), freeByDefinition(config, held));
  });

  Deno.test(`allocator: picks each subnet once, then nothing (${name})`, () => {
    const expected = freeByDefinition(config, []);
    const given: Cidr[] = [];
    for (const _ of expected) {
      const subnet = new SubnetAllocator(config, given).pick()!;
      assert.ok(new SubnetAllocator(config, given).isFree(subnet));
      given.push(subnet);
      assert.ok(!new SubnetAllocator(config, given).isFree(subnet));
    }
    assert.deepEqual(given.map(String).toSorted(), expected.toSorted());
    const full = new SubnetAllocator(config, given);
    assert.equal(full.free, 0n);
    assert.equal(full.pick(), undefined);
  });
}

Deno.test("allocator: one that holds the whole network, or more, leaves nothing", () => {
  for (const around of ["10.5.0.0/24", "10.0.0.0/8", "0.0.0.0/0"]) {
    assert.equal(new SubnetAllocator(IPV4, [Cidr.parse(around)]).pick(), undefined);
  }
});

const HOST_CASES: readonly (readonly [
  what: string,
  config: FamilyConfig,
  hosts: readonly string[],
  links: readonly string[],
  free: readonly string[],
  picked: string,
])[] = [
  [
    "the subnets of hosts are not free, in each family",
    familyConfig({
      Network: "10.0.0.0/8",
      SubnetLen: 24,
      SubnetMin: "10.0.1.0",
      SubnetMax: "10.0.3.0",
    }),
    ["10.0.1.1", "10.0.1.2", "10.0.9.9", "192.0.2.1", "fd00::1"],
    ["10.0.0.0/16"],
    ["10.0.2.0/24", "10.0.3.0/24"],
    "10.0.2.0/24",
  ],
  [
    "IPv6",
    familyConfig({
      EnableIPv4: false,
      EnableIPv6: true,
      IPv6Network: "fd00::/60",
      IPv6SubnetLen: 64,
      IPv6SubnetMax: "fd00:0:0:3::",
    }),
    ["fd00:0:0:1::1", "10.0.1.1"],
    ["fd00::/62"],
    ["fd00:0:0:2::/64", "fd00:0:0:3::/64"],
    "fd00:0:0:2::/64",
  ],
  [
    "a subnet outside of the hosts' link comes first",
    familyConfig({ Network: "10.0.0.0/8", SubnetMin: "10.0.254.0", SubnetMax: "10.1.1.0" }),
    ["10.0.255.1"],
    ["10.0.0.0/16", "192.0.2.0/24"],
    ["10.0.254.0/24", "10.1.0.0/24", "10.1.1.0/24"],
    "10.1.0.0/24",
  ],
  [
    "a link around the whole network leaves what no host is in",
    BOUNDED,
    ["10.5.0.50"],
    ["10.0.0.0/8"],
    freeByDefinition(BOUNDED, [Cidr.parse("10.5.0.48/28")]),
    "10.5.0.64/28",
  ],
];

for (const [what, config, hosts, links, free, picked] of HOST_CASES) {
  Deno.test(`allocator: ${what}`, () => {
    const known = hosts.map((text) => ({ address: IpAddress.parse(text), whose: "a host" }));
    const prefixes = links.map((text) => Cidr.parse(text));
    const without = new SubnetAllocator(config, [], { hosts: known, links: [] });
    assert.deepEqual(allFree(without), free);
    const allocator = new SubnetAllocator(config, [], { hosts: known, links: prefixes });
    assert.equal(`${allocator.pick(() => 0n)}`, picked);
    for (const subnet of free) assert.ok(allocator.isFree(Cidr.parse(subnet)));
  });
}

Deno.test("allocator: isFree is for subnets that pick might give", () => {
  const allocator = new SubnetAllocator(BOUNDED, [Cidr.parse("10.5.0.64/28")]);
  for (
    const [text, free] of [
      ["10.5.0.48/28", true],
      ["10.5.0.176/28", true],
      ["10.5.0.64/28", false],
      ["10.5.0.32/28", false],
      ["10.5.0.192/28", false],
      ["10.5.0.96/27", false],
      ["10.5.0.96/29", false],
      ["10.6.0.48/28", false],
      ["fc00:5:0:3::/64", false],
    ] as const
  ) assert.equal(allocator.isFree(Cidr.parse(text)), free, text);
  assert.ok(!new SubnetAllocator(FROM_ZERO).isFree(Cidr.parse("10.5.0.0/28")));
});

Deno.test("allocator: what is free is what the definition says, whatever is held", () => {
  let seed = 1;
  const random = (limit: number) => {
    // A linear congruential generator (ANSI C's): the same run each time.
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fff_ffff;
    return (seed >>> 8) % limit;
  };
  for (const config of [IPV4, BOUNDED, IPV6]) {
    const seen = new Set<number>();
    for (let step = 0; step < 400; step++) {
      const held = Array.from({ length: random(12) }, () => {
        const { network, subnetLength } = config;
        const address = subnetAt(config, BigInt(random(16))).at(BigInt(random(16)));
        // A part of one subnet, one, two; at times anything up to the whole network.
        const longest = subnetLength + 2;
        const span = random(8) === 0 ? longest - network.prefixLength + 1 : 4;
        return new Cidr(address, longest - random(span));
      });
      const free = allFree(new SubnetAllocator(config, held));
      assert.deepEqual(free, freeByDefinition(config, held), `step ${step}: ${held}`);
      seen.add(free.length);
    }
    assert.ok(seen.size > 5, "from empty to full");
  }
});

Deno.test("allocator: all but half of 2⁶⁴ subnets reserved in one piece", () => {
  const reserved = Cidr.parse("fc00:0:8000::/33");
  const allocator = new SubnetAllocator(HUGE_IPV6, [reserved]);
  assert.equal(allocator.free, (1n << 63n) - 1n);
  for (let index = 0; index < 100; index++) assert.ok(!reserved.overlaps(allocator.pick()!));
});

Deno.test("randomBelow: in range, and every number of it", () => {
  for (const limit of [1n, 3n, 16n]) {
    const seen = new Set(Array.from({ length: 1000 }, () => randomBelow(limit)));
    assert.deepEqual(
      [...seen].sort(),
      Array.from({ length: Number(limit) }, (_, i) => BigInt(i)).sort(),
    );
  }
  assert.ok(Array.from({ length: 100 }, () => randomBelow(1n << 128n)).some((n) => n >> 120n > 0n));
});

Deno.test("chooseSubnets: a preferred subnet if it is free, else another; an error if none is", () => {
  const allocators = (...held: string[]) => [
    new SubnetAllocator(IPV4, held.map((text) => Cidr.parse(text))),
    new SubnetAllocator(IPV6),
  ];
  const choose = (...preferred: string[]) =>
    chooseSubnets(
      allocators("10.5.0.32/28"),
      preferred.map((text) => Cidr.parse(text)),
      () => 0n,
    ).join(" ");
  assert.equal(choose(), "10.5.0.16/28 fc00:5:0:1::/64");
  assert.equal(choose("fc00:5:0:7::/64", "10.5.0.48/28"), "10.5.0.48/28 fc00:5:0:7::/64");
  assert.equal(choose("10.5.0.32/28", "10.5.0.64/28"), "10.5.0.64/28 fc00:5:0:1::/64");
  assert.throws(() => chooseSubnets(allocators("10.5.0.0/24"), []), {
    name: "RuntimeError",
    message: "the network 10.5.0.0/24 is full: every /28 from 10.5.0.16 to 10.5.0.240 is leased; " +
      "give up leases that nobody uses, or enlarge the network in net-conf",
  });
});
