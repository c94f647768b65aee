import { Cidr, IpAddress, NO_ROW } from "@denim/core";
import assert from "node:assert/strict";
import { ADDRESS_BYTES, HalfRows, type KeptHalf } from "./half_rows.ts";

const half = (subnet: string, publicIp: string, isNear = false): KeptHalf => ({
  subnet: Cidr.parse(subnet),
  publicIp: IpAddress.parse(publicIp),
  isNear,
  mtuBytes: 1450,
});
const bytes = (address: string) => IpAddress.parse(address).toBytes();

Deno.test("halves are found by the address that packets come from, and by no other", () => {
  const rows = new HalfRows();
  const tunneled = rows.add(half("10.5.2.0/24", "10.99.0.2"));
  const near = rows.add(half("10.5.3.0/24", "10.99.0.3", true));
  // Its first bytes are those of an IPv4 address.
  const ipv6 = rows.add(half("a05:400::/64", "fd99::4"));
  assert.deepEqual(
    ["10.5.2.0", "10.99.0.2", "10.5.3.1", "10.5.3.0", "10.99.0.3", "a05:400::", "10.5.4.0"]
      .map((address) => rows.from(bytes(address))),
    [tunneled, NO_ROW, near, NO_ROW, near, ipv6, NO_ROW],
  );
  for (
    const [row, isOuter, address] of [
      [tunneled, false, "10.5.2.0"],
      [tunneled, true, "10.99.0.2"],
      [near, false, "10.5.3.1"],
      [ipv6, true, "fd99::4"],
    ] as const
  ) {
    const written = new Uint8Array(ADDRESS_BYTES);
    rows.write(row, isOuter, written);
    assert.deepEqual(written.slice(0, rows.family(row) === 4 ? 4 : 16), bytes(address));
  }
  assert.deepEqual(
    [tunneled, near, ipv6].map((row) => `${rows.subnet(row)} ${rows.publicIp(row)}`),
    ["10.5.2.0/24 10.99.0.2", "10.5.3.0/24 10.99.0.3", "a05:400::/64 fd99::4"],
  );
});

Deno.test("of a half that is replaced the new row is found, and of one that is gone none", () => {
  const rows = new HalfRows();
  const of = (number: number) => half(`10.${number >> 8}.${number & 255}.0/24`, "10.99.0.1", true);
  const numbers = Array.from({ length: 1000 }, (_, number) => number);
  const before = numbers.map((number) => rows.add(of(number)));
  const after = new Map(
    numbers.filter((number) => number % 3 > 0).map((number) => [
      number,
      rows.add(of(number)),
    ]),
  );
  for (const row of before) rows.remove(row);
  for (const number of numbers) {
    const row = rows.from(bytes(`10.${number >> 8}.${number & 255}.1`));
    assert.equal(row, after.get(number) ?? NO_ROW);
  }
});
