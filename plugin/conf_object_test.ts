import assert from "node:assert/strict";
import { CniError } from "./cni_error.ts";
import { ConfObject } from "./conf_object.ts";

const conf = new ConfObject({
  Text: "a",
  empty: "",
  no: null,
  flag: true,
  number: 7,
  list: [{ x: 1 }, { x: 2 }],
  words: ["a", "b"],
  object: { inner: { mtu: "1500" } },
}, "delegate");

Deno.test("ConfObject takes keys in any case, and null for nothing", () => {
  assert.equal(conf.string("text"), "a");
  assert.equal(conf.get("no"), undefined);
  assert.equal(conf.string("no"), undefined);
});

Deno.test("ConfObject reads values by their type", () => {
  assert.equal(conf.boolean("flag"), true);
  assert.equal(conf.boolean("none"), false);
  assert.equal(conf.integer("number", 0, 7), 7);
  assert.deepEqual(conf.strings("words"), ["a", "b"]);
  assert.deepEqual(conf.objects("list").map((item) => item.integer("x", 0, 9)), [1, 2]);
  assert.equal(conf.parsed("empty", "a number", Number), undefined);
});

for (
  const [name, read, message] of [
    [
      "text for a flag",
      () => conf.boolean("Text"),
      'delegate.Text is "a"; it must be true or false',
    ],
    [
      "a number out of bounds",
      () => conf.integer("number", 8, 9),
      "delegate.number is 7; it must be a whole number from 8 to 9",
    ],
    [
      "a list of other things",
      () => conf.strings("list"),
      'delegate.list is [{"x":1},{"x":2}]; it must be a list of strings',
    ],
    [
      "deep inside",
      () => conf.object("object")!.object("inner")!.integer("mtu", 0, 9),
      'delegate.object.inner.mtu is "1500"; it must be a whole number from 0 to 9',
    ],
    [
      "in a list",
      () => conf.objects("list")[1]!.string("x"),
      "delegate.list[1].x is 2; it must be a string",
    ],
    [
      "unreadable",
      () => conf.parsed("Text", "an address", () => undefined),
      'delegate.Text is "a"; it must be an address',
    ],
  ] as const
) {
  Deno.test(`ConfObject says where and what is wrong: ${name}`, () => {
    assert.throws(read, { name: "CniError", code: 7, message });
  });
}

for (
  const [text, message] of [
    ["", /is not JSON: it is empty/],
    ["{", /is not JSON: /],
    ["[]", /is \[\], not a JSON object/],
    ["null", /is null, not a JSON object/],
  ] as const
) {
  Deno.test(`ConfObject.parse refuses ${text || "nothing"}`, () => {
    assert.throws(() => ConfObject.parse(text, "it"), (error) => {
      assert.ok(error instanceof CniError);
      assert.equal(error.code, 6);
      assert.match(error.message, message);
      return true;
    });
  });
}
