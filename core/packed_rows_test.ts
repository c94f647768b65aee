import assert from "node:assert/strict";
import { Cidr, IpAddress } from "./ip.ts";
import { MacAddress } from "./mac.ts";
import { PackedRows } from "./packed_rows.ts";

/** Any value with a name. */
interface Named {
  readonly name: number;
  readonly [field: string]: unknown;
}

const rows = () => new PackedRows<Named>(({ name }) => `the value ${name}`, ["text"]);
const find = (of: PackedRows<Named>, name: number) => of.find(`the value ${name}`);

class Own {
  readonly name = 99;
  readonly [field: string]: unknown;
}

const VALUES: readonly Named[] = [
  { name: 0 },
  { name: 1, text: "flannel.1", other: "", mac: MacAddress.parse("02:0a:00:00:00:ff") },
  { name: 2, via: IpAddress.parse("255.0.0.1"), via6: IpAddress.parse("fd00::ffff:1") },
  {
    name: 3,
    to: Cidr.parse("10.5.0.0/16"),
    to6: Cidr.parse("::/0"),
    last: Cidr.parse("0.0.0.0/0"),
  },
  { name: 4, a: 0xffff_ffff, b: -1, c: 0.5, d: 2 ** 40, e: -0, f: Infinity, g: NaN },
  { name: 5, yes: true, no: false, none: null, missing: undefined },
  { name: 6, list: [1, [2, { deep: IpAddress.parse("1.2.3.4") }], [], {}], after: 7 },
  { name: 7, secret: new Own() },
  { name: 8, callback: rows },
  { name: 9, symbol: Symbol.iterator },
  new Own(),
];

Deno.test("PackedRows gives values back as they were, and those of other classes themselves", () => {
  const packed = rows();
  for (const value of VALUES) packed.add(value);
  assert.equal(packed.size, VALUES.length);
  for (const value of VALUES) assert.deepEqual(find(packed, value.name)!.value, value);
  assert.equal(find(packed, 99)!.value, VALUES.at(-1));
  assert.equal(find(packed, 10), undefined);
});

Deno.test("PackedRows tells values apart whose fields differ in their texts alone", () => {
  const packed = rows();
  packed.add({ name: 1, device: "a" });
  packed.add({ name: 2, device: "b" });
  packed.add({ name: 3, device: ["a"] });
  packed.add({ name: 4, device: { a: "a" } });
  assert.deepEqual([...packed.rows()].map((row) => packed.at(row)), [
    { name: 1, device: "a" },
    { name: 2, device: "b" },
    { name: 3, device: ["a"] },
    { name: 4, device: { a: "a" } },
  ]);
});

Deno.test("PackedRows does what a Map does, whatever comes and goes", () => {
  const packed = rows();
  const map = new Map<number, Named>();
  let state = 1;
  const random = (below: number) => (state = Math.imul(state, 48_271) >>> 0) % below;
  for (let step = 0; step < 20_000; step++) {
    const name = random(500);
    const there = find(packed, name);
    assert.deepEqual(there?.value, map.get(name));
    const value: Named = random(2) === 0
      ? { name, number: random(1000) }
      : { name, address: new IpAddress(4, BigInt(random(1000))), text: `${random(1000)}` };
    if (there === undefined) packed.add(value);
    else if (random(2) === 0) packed.replace(there.row, value);
    else packed.remove(there.row);
    if (find(packed, name) === undefined) map.delete(name);
    else map.set(name, value);
    assert.equal(packed.size, map.size);
  }
  const all = [...packed.rows()].map((row) => packed.at(row)).sort((a, b) => a.name - b.name);
  assert.deepEqual(all, [...map.values()].sort((a, b) => a.name - b.name));
});

Deno.test("PackedRows keeps texts that differ, and finds values by them", () => {
  const packed = new PackedRows<{ readonly key: string; readonly of?: { readonly key: string } }>(
    ({ key }) => key,
    ["key"],
  );
  const keys = [
    "",
    "a",
    "b",
    "10.5.2.0-24",
    "10.5.2.0-24&fc00::-64",
    "Zürich",
    "→",
    "x".repeat(101),
  ];
  for (const key of keys) packed.add({ key, of: { key: `of ${key}` } });
  for (const key of keys) {
    assert.deepEqual(packed.find(key)!.value, { key, of: { key: `of ${key}` } });
  }
});
