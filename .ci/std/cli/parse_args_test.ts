import assert from "node:assert/strict";
import { parseArgs, type ParseOptions } from "@std/cli/parse-args";

/** Each holds of the real `@std/cli` too. */
const cases: readonly [args: string, options: ParseOptions, expected: Record<string, unknown>][] = [
  ["--foo --bar=baz ./quux.txt", {}, { foo: true, bar: "baz", _: ["./quux.txt"] }],
  ["--n 012 --s 012 5", { string: "s" }, { n: 12, s: "012", _: [5] }],
  ["--foo a", { boolean: ["foo"] }, { foo: true, _: ["a"] }],
  ["a", { boolean: ["foo"], string: ["bar"] }, { foo: false, _: ["a"] }],
  ["--s= --t", { string: ["s", "t"] }, { s: "", t: "", _: [] }],
  ["--foo=false", { boolean: ["foo"], default: { foo: true } }, { foo: false, _: [] }],
  ["", { default: { mtu: "0" }, string: ["mtu"] }, { mtu: "0", _: [] }],
  ["--foo 1 --foo 2", {}, { foo: 2, _: [] }],
  ["--foo 1 --foo 2", { collect: ["foo"], string: ["foo"] }, { foo: ["1", "2"], _: [] }],
  ["--foo 1", { collect: ["foo"] }, { foo: [1], _: [] }],
  ["", { collect: ["foo", "bar"], string: ["foo"] }, { foo: [], _: [] }],
  ["--no-foo", { boolean: ["foo"], negatable: ["foo"] }, { foo: false, _: [] }],
  ["--no-foo", { boolean: ["foo"] }, { foo: false, "no-foo": true, _: [] }],
  ["-v", { boolean: ["verbose"], alias: { verbose: "v" } }, { verbose: true, v: true, _: [] }],
  ["a -- --no-b c", {}, { _: ["a", "--no-b", "c"] }],
  ["a -- --no-b c", { "--": true }, { _: ["a"], "--": ["--no-b", "c"] }],
  ["a --b -- c", { stopEarly: true }, { _: ["a", "--b", "c"] }],
  ["--known 1 --new=2 x", { string: "known", unknown: () => false }, { known: "1", _: [] }],
];

for (const [args, options, expected] of cases) {
  const said = JSON.stringify(options, (_, value) => typeof value === "function" ? "fn" : value);
  Deno.test(`parseArgs reads ${JSON.stringify(args)} with ${said}`, () => {
    assert.deepEqual(parseArgs(args.split(" ").filter(Boolean), options), expected);
  });
}

Deno.test("parseArgs names what is unknown", () => {
  const seen: (string | undefined)[][] = [];
  parseArgs(["--foo=1", "bar", "--no-baz", "--qux", "2"], {
    string: ["qux"],
    unknown: (arg, key) => {
      seen.push([arg, key]);
    },
  });
  assert.deepEqual(seen, [["--foo=1", "foo"], ["bar", undefined], ["--no-baz", "no-baz"]]);
});

Deno.test("parseArgs types what it returns", () => {
  const args = parseArgs(["--name", "a", "--if", "b", "-v"], {
    boolean: ["verbose"],
    string: ["name", "if", "other"],
    collect: ["if"],
    default: { name: "none" },
    alias: { verbose: "v" },
  });
  const typed: [string, string[], string | undefined, boolean, boolean] = [
    args.name,
    args.if,
    args.other,
    args.verbose,
    args.v,
  ];
  assert.deepEqual(typed, ["a", ["b"], undefined, true, true]);
});
