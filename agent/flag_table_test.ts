import assert from "node:assert/strict";
import { flag, flagsHelp, parseFlags } from "./flag_table.ts";
import { list, request, text, toggle, wholeNumber } from "./flag_types.ts";

const FLAGS = [
  flag("nodes", wholeNumber(2, 20), "how many nodes", "3"),
  flag("name", text("NAME"), "the name, of which there is a great deal to say, more than one line"),
  flag("tag", list(text("TAG"))),
  flag("keep", toggle, "keep it"),
  flag("help", request, "print this and exit"),
] as const;

Deno.test("parseFlags() gives each flag the type of its line in the table", () => {
  const flags = parseFlags("x", FLAGS, { args: ["--tag=a", "--tag", "b", "--keep"] });
  assert.ok(typeof flags !== "string");
  const { values } = flags;
  const typed: readonly [number, string | undefined, readonly string[], boolean] = [
    values.nodes,
    values.name,
    values.tag,
    values.keep,
  ];
  assert.deepEqual(typed, [3, undefined, ["a", "b"], true]);
  // @ts-expect-error: a misspelled name is a type error.
  assert.equal(values.nodez, undefined);
});

Deno.test("parseFlags() keeps operands for commands that take them, also those behind --", () => {
  const args = ["a", "--keep", "7", "-", "--", "--name", "b"];
  const flags = parseFlags("x", FLAGS, { args, takesOperands: true });
  assert.ok(typeof flags !== "string");
  assert.deepEqual(flags.operands, ["a", "7", "-", "--name", "b"]);
  assert.throws(() => parseFlags("x", FLAGS, { args }), /^ConfigError: a: not a flag: x takes no/);
});

Deno.test("parseFlags() tells where a value comes from, and what the operator called the flag", () => {
  const environment = { FLANNELD_NODES: "4", FLANNELD_NAME: "n", FLANNELD_TAG: "" };
  const flags = parseFlags("x", FLAGS, { args: ["-name=m"], environment });
  assert.ok(typeof flags !== "string");
  const { source, label } = flags;
  assert.deepEqual([flags.values.nodes, flags.values.name, flags.values.tag], [4, "m", []]);
  assert.deepEqual([source("nodes"), label("nodes")], ["environment", "FLANNELD_NODES"]);
  assert.deepEqual([source("name"), label("name")], ["argument", "--name"]);
  assert.deepEqual([source("tag"), label("tag")], ["default", "--tag"]);
});

Deno.test("parseFlags() answers a request before it reads any value", () => {
  const asked: "help" | object = parseFlags("x", FLAGS, { args: ["--nodes=many", "--help"] });
  assert.equal(asked, "help");
});

Deno.test("flagsHelp() wraps at 100 columns, says defaults, and leaves out flags without help", () => {
  const long = flag("long", text("TEXT"), "word ".repeat(40).trim());
  assert.equal(
    flagsHelp([FLAGS[0], FLAGS[2], FLAGS[3]]),
    "  --nodes N  how many nodes (3)\n  --keep     keep it",
  );
  const lines = flagsHelp([long]).split("\n");
  assert.equal(lines.length, 3);
  for (const line of lines) {
    assert.ok(line.length <= 100 && /^ {2}(--long TEXT| {11}) {2}word/.test(line));
  }
});
