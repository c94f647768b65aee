import assert from "node:assert/strict";
import { addressBits, Cidr, IpAddress } from "./ip.ts";

const ADDRESSES: readonly (readonly [text: string, value: bigint, canonical?: string])[] = [
  ["0.0.0.0", 0n],
  ["10.5.38.1", 0x0a05_2601n],
  ["255.255.255.255", 0xffff_ffffn],
  ["::", 0n],
  ["::1", 1n],
  ["1::", 1n << 112n],
  ["fc00:5:0:e::", 0xfc00_0005_0000_000en << 64n],
  ["FD99:0::1", (0xfd99n << 112n) | 1n, "fd99::1"],
  ["0:0:0:0:0:0:0:0", 0n, "::"],
  ["1:2:3:4:5:6:7::", 0x0001_0002_0003_0004_0005_0006_0007_0000n, "1:2:3:4:5:6:7:0"],
  ["::2:3:4:5:6:7:8", 0x0000_0002_0003_0004_0005_0006_0007_0008n, "0:2:3:4:5:6:7:8"],
  ["64:ff9b::192.0.2.33", (0x64_ff9bn << 96n) | 0xc000_0221n, "64:ff9b::c000:221"],
  // RFC 5952: the longest run of zeros is shortened (4.2.3), the first of equals, but no lone one (4.2.2).
  ["2001:0:0:1:0:0:0:1", 0x2001_0000_0000_0001_0000_0000_0000_0001n, "2001:0:0:1::1"],
  ["2001:db8:0:0:1:0:0:1", 0x2001_0db8_0000_0000_0001_0000_0000_0001n, "2001:db8::1:0:0:1"],
  ["2001:db8:0:1:1:1:1:1", 0x2001_0db8_0000_0001_0001_0001_0001_0001n],
  ["::FFFF:192.0.2.1", (0xffffn << 32n) | 0xc000_0201n, "::ffff:192.0.2.1"],
];

const NO_ADDRESSES: readonly string[] = [
  "",
  "10.5.38",
  "10.5.38.1.2",
  "10.5.38.256",
  "10.05.38.1",
  "10.5.38.-1",
  " 10.5.38.1",
  "10.5.38.1/24",
  "0x0a.5.38.1",
  ":",
  ":::",
  "1::2::3",
  "1:2:3:4:5:6:7",
  "1:2:3:4:5:6:7:8:9",
  "1:2:3:4::5:6:7:8",
  "12345::",
  "fe80::1%eth0",
  "::g",
  "1.2.3.4::",
  "::1.2.3",
  "::1.2.3.4:5",
];

Deno.test("addresses: text, number, octets and back", () => {
  for (const [text, value, canonical = text] of ADDRESSES) {
    const address = IpAddress.parse(text);
    assert.equal(address.value, value, text);
    assert.equal(`${address}`, canonical);
    assert.equal(JSON.stringify([address]), `["${canonical}"]`);
    assert.ok(IpAddress.parse(canonical).equals(address), text);
    const bytes = address.toBytes();
    assert.equal(bytes.length * 8, addressBits(address.family));
    assert.ok(IpAddress.fromBytes(bytes).equals(address), text);
  }
  assert.deepEqual([...IpAddress.parse("10.5.38.1").toBytes()], [10, 5, 38, 1]);
});

Deno.test("addresses: what is none is refused, by name", () => {
  for (const text of NO_ADDRESSES) {
    assert.equal(IpAddress.tryParse(text), undefined, text);
    assert.throws(() => IpAddress.parse(text), {
      name: "TypeError",
      message: /is not an IP address$/,
    });
  }
  assert.throws(() => IpAddress.fromBytes(new Uint8Array(6)), RangeError);
  assert.throws(() => new IpAddress(4, 1n << 32n), RangeError);
  assert.throws(() => new IpAddress(6, -1n), RangeError);
});

Deno.test("addresses: equal numbers of two families differ", () => {
  assert.ok(!IpAddress.parse("0.0.0.1").equals(IpAddress.parse("::1")));
});

Deno.test("addresses: octets are read from inside a larger buffer", () => {
  const packet = new Uint8Array([9, 9, 10, 5, 38, 1, 9]);
  assert.equal(`${IpAddress.fromBytes(packet.subarray(2, 6))}`, "10.5.38.1");
});

Deno.test("networks: text and back, host bits cleared", () => {
  for (
    const [text, canonical = text] of [
      ["10.5.0.0/16"],
      ["10.5.3.7/24", "10.5.3.0/24"],
      ["10.5.3.7/32"],
      ["255.255.255.255/0", "0.0.0.0/0"],
      ["fc00:5::/48"],
      ["FC00:5:0:e:1::/64", "fc00:5:0:e::/64"],
      ["::1/128"],
    ] as const
  ) {
    assert.equal(`${Cidr.parse(text)}`, canonical);
    assert.equal(JSON.stringify([Cidr.parse(text)]), `["${canonical}"]`);
  }
});

Deno.test("networks: what is none is refused, by name", () => {
  for (const text of ["", "10.5.0.0", "10.5.0.0/", "10.5.0.0/33", "10.5.0.0/-1", "::/129", "x/8"]) {
    assert.equal(Cidr.tryParse(text), undefined, text);
    assert.throws(() => Cidr.parse(text), {
      name: "TypeError",
      message: `${JSON.stringify(text)} is not a network in CIDR notation`,
    });
  }
  assert.throws(() => new Cidr(IpAddress.parse("10.0.0.0"), 33), RangeError);
  assert.throws(() => new Cidr(IpAddress.parse("10.0.0.0"), 8.5), RangeError);
});

Deno.test("networks: size, first, last, and what is in between", () => {
  const network = Cidr.parse("10.5.3.0/24");
  assert.equal(network.family, 4);
  assert.equal(network.size, 256n);
  assert.equal(`${network.last}`, "10.5.3.255");
  assert.equal(`${network.at(1n)}`, "10.5.3.1");
  assert.equal(Cidr.parse("::/0").size, 1n << 128n);
  assert.equal(`${Cidr.parse("fc00::/64").last}`, "fc00::ffff:ffff:ffff:ffff");
});

Deno.test("networks: contains and overlaps", () => {
  for (
    const [outer, inner, contains, overlaps] of [
      ["10.5.0.0/16", "10.5.3.0/24", true, true],
      ["10.5.3.0/24", "10.5.0.0/16", false, true],
      ["10.5.3.0/24", "10.5.3.0/24", true, true],
      ["10.5.3.0/24", "10.5.4.0/24", false, false],
      ["0.0.0.0/0", "10.5.4.0/24", true, true],
      ["::/0", "10.5.4.0/24", false, false],
      ["fc00::/48", "fc00:0:0:1::/64", true, true],
    ] as const
  ) {
    const [one, other] = [Cidr.parse(outer), Cidr.parse(inner)];
    assert.equal(one.contains(other), contains, `${outer} contains ${inner}`);
    assert.equal(one.overlaps(other), overlaps, `${outer} overlaps ${inner}`);
  }
  assert.ok(Cidr.parse("10.5.3.0/24").contains(IpAddress.parse("10.5.3.255")));
  assert.ok(!Cidr.parse("10.5.3.0/24").contains(IpAddress.parse("10.5.4.0")));
  assert.ok(Cidr.parse("10.5.3.0/24").equals(Cidr.parse("10.5.3.9/24")));
  assert.ok(!Cidr.parse("10.5.3.0/24").equals(Cidr.parse("10.5.3.0/25")));
});

Deno.test("isLinkLocal: addresses that are good on their link alone, to the last one", () => {
  const local = ["169.254.0.0", "169.254.255.255", "fe80::1", "febf:ffff::"];
  const others = ["169.253.255.255", "169.255.0.0", "10.5.0.1", "fec0::", "fe7f:ffff::", "::1"];
  for (const text of local) assert.ok(IpAddress.parse(text).isLinkLocal, text);
  for (const text of others) assert.ok(!IpAddress.parse(text).isLinkLocal, text);
});

Deno.test("isReachable: addresses of one host that others reach", () => {
  const none =
    "0.0.0.0 127.0.0.1 127.255.255.255 224.0.0.1 239.255.255.255 255.255.255.255 :: ::1 ff02::1";
  const some =
    "0.0.0.1 126.0.0.1 128.0.0.1 223.255.255.255 240.0.0.1 10.0.0.255 ::2 fe80::1 fe00::";
  for (const text of none.split(" ")) assert.ok(!IpAddress.parse(text).isReachable, text);
  for (const text of some.split(" ")) assert.ok(IpAddress.parse(text).isReachable, text);
});
