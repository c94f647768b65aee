import assert from "node:assert/strict";
import type { KernelItem } from "./kernel_table.ts";
import { type Comparison, KindObjects } from "./kind_objects.ts";

interface Thing extends KernelItem {
  readonly name: string;
  readonly value: number;
}

const thing = (name: string, value: number): Thing => ({ kind: "thing", name, value });

interface Peer extends KernelItem {
  readonly publicKey: string;
}

const peer = (publicKey: string): Peer => ({ kind: "peer", publicKey });

function create() {
  const objects = new KindObjects(
    (object) => (object as Thing).name,
    (owner) => `owner ${owner}`,
  );
  return {
    objects,
    there: (key: string) => (objects.there(key) as Thing | undefined)?.value,
    want: (name: string, value: number) => objects.add(name, thing(name, value), 7),
  };
}

Deno.test("what is wanted is nothing that the kernel has, until it has it", () => {
  const { objects, there, want } = create();
  want("a", 1);
  assert.deepEqual(objects.get("a"), { owner: "owner 7", key: "a", object: thing("a", 1) });
  assert.equal(there("a"), undefined);
  assert.ok(objects.setAsWanted("a"));
  assert.equal(there("a"), 1);
  assert.ok(!objects.setAsWanted("nobody wants this"));
});

Deno.test("objects that differ in a key are kept as bytes, however many there are", () => {
  const objects = new KindObjects((object) => (object as Peer).publicKey, () => "owner");
  const peers = Array.from({ length: 1_000 }, (_, index) => peer(`${index}`.padStart(44, "A")));
  for (const each of peers) objects.add(each.publicKey, each, 0);
  for (const each of peers) {
    const { object } = objects.get(each.publicKey)!;
    assert.deepEqual(object, each);
    assert.notEqual(object, each, "the object itself is not kept");
  }
});

Deno.test("when something else is wanted, or nothing, the kernel still has what was wanted before", () => {
  const { objects, there, want } = create();
  for (const name of ["a", "b"]) {
    want(name, 1);
    objects.setAsWanted(name);
  }
  objects.replace(objects.find("a")!, thing("a", 2), 8);
  objects.remove(objects.find("b")!);
  assert.deepEqual([there("a"), there("b")], [1, 1]);
  assert.deepEqual([objects.size, objects.has("b")], [1, false]);
  objects.setAsWanted("a");
  assert.equal(there("a"), 2);
  assert.deepEqual([...objects.others.keys()], ["b"]);
});

Deno.test("others change what the kernel has, and remove it", () => {
  const { objects, there, want } = create();
  want("a", 1);
  objects.setAsWanted("a");
  objects.setThere("a", thing("a", 9));
  assert.equal(there("a"), 9);
  assert.ok(objects.setGone("a"));
  assert.ok(!objects.setGone("a"));
  assert.equal(there("a"), undefined);
});

Deno.test("a listing says all that the kernel has, and what was known before stays known until its end", () => {
  const { objects, there, want } = create();
  for (const name of ["stays", "gone", "new", "other"]) want(name, 1);
  for (const name of ["stays", "gone"]) objects.setAsWanted(name);
  objects.setThere("unwanted", thing("unwanted", 3));
  objects.startListing();
  for (const name of ["stays", "new"]) objects.list(objects.find(name)!.row);
  assert.deepEqual(["gone", "new", "unwanted"].map(objects.isThere, objects), [true, false, true]);
  const others = new Map([["other", thing("other", 2)]]);
  const unlisted = () =>
    [...objects.unlisted(others)].map(({ key, there, wasThere }) => ({ key, there, wasThere }));
  const expected = [
    { key: "gone", there: undefined, wasThere: true },
    { key: "other", there: thing("other", 2), wasThere: false },
  ];
  assert.deepEqual(unlisted(), expected);
  objects.endListing(others);
  assert.deepEqual(unlisted(), expected, "also when the listing is over");
  assert.deepEqual(
    ["stays", "gone", "new", "other", "unwanted"].map(there),
    [1, undefined, 1, 2, undefined],
  );
});

Deno.test("marks stay with what they were made for, and are taken once", () => {
  const { objects, want } = create();
  const [a, b] = [want("a", 1), want("b", 1)];
  for (const key of ["a", "b", "a", "unwanted"]) objects.mark(key);
  objects.replace(objects.find("a")!, thing("a", 2), 7);
  objects.remove(objects.find("b")!);
  assert.equal(want("c", 1), b, "it has the other one's row");
  assert.ok(objects.isMarked && objects.isMarkedUnwanted("unwanted"));
  const { rows, keys } = objects.takeMarks();
  assert.deepEqual([rows, [...keys]], [[a], ["unwanted"]]);
  assert.deepEqual([...objects.compare(rows)], [
    { row: a, key: "a", object: thing("a", 2), there: undefined, wasThere: false },
  ]);
  assert.ok(!objects.isMarked && !objects.isMarkedUnwanted("unwanted"));
  objects.setRowAsWanted(a, "a");
  objects.markRow(a);
  const [{ there, wasThere }] = [...objects.compare(objects.takeMarks().rows)] as [Comparison];
  assert.deepEqual([there, wasThere], [thing("a", 2), true]);
});
