import assert from "node:assert/strict";
import { DesiredState } from "./desired_state.ts";
import type { KernelItem } from "./kernel_table.ts";

interface Thing extends KernelItem {
  readonly name: string;
  readonly value?: number;
}

/** A desired state of things, and what it reports. */
function create() {
  const desired = new DesiredState((object) => `${object.kind}:${(object as Thing).name}`);
  const reports: string[] = [];
  return {
    desired,
    set(owner: string, ...objects: readonly Thing[]): string[] {
      desired.set(owner, objects, (kind, key, now, before) => {
        assert.deepEqual(now, desired.get(kind, key)?.object);
        const [from, to] = [before, now].map((thing) => (thing as Thing | undefined)?.value);
        reports.push(`${key} ${from} → ${to}`);
      });
      return reports.splice(0);
    },
  };
}

function thing(name: string, value: number, kind = "thing"): Thing {
  return { kind, name, value };
}

Deno.test("set replaces what an owner wants as a whole, and reports each key", () => {
  const { desired, set } = create();
  assert.deepEqual(set("a", thing("x", 1), thing("y", 1)), [
    "thing:x undefined → 1",
    "thing:y undefined → 1",
  ]);
  assert.deepEqual(set("a", thing("x", 2), thing("z", 1)), [
    "thing:x 1 → 2",
    "thing:z undefined → 1",
    "thing:y 1 → undefined",
  ]);
  assert.deepEqual(desired.ofOwner("a").map(({ key }) => key), ["thing:x", "thing:z"]);
  assert.deepEqual(set("a"), ["thing:x 2 → undefined", "thing:z 1 → undefined"]);
  assert.equal(desired.of("thing").size, 0);
  assert.deepEqual(desired.ofOwner("a"), []);
});

Deno.test("set reports what is wanted again, also if it is the same", () => {
  const { set } = create();
  set("a", thing("x", 1));
  assert.deepEqual(set("a", thing("x", 1)), ["thing:x 1 → 1"]);
});

Deno.test("of two owners the later one has its object, and the other one's comes back after it", () => {
  const { desired, set } = create();
  const owner = () => desired.get("thing", "thing:x")?.owner;
  set("a", thing("x", 1));
  assert.deepEqual(set("b", thing("x", 2)), ["thing:x 1 → 2"]);
  assert.deepEqual(set("c", thing("x", 3)), ["thing:x 2 → 3"]);
  assert.deepEqual(set("b"), [], "it had given way already");
  assert.equal(owner(), "c");
  assert.deepEqual(set("c"), ["thing:x 3 → 1"]);
  assert.equal(owner(), "a");
  // Whoever says it again has it again.
  set("b", thing("x", 2));
  assert.deepEqual(set("a", thing("x", 1)), ["thing:x 2 → 1"]);
  assert.deepEqual(set("a"), ["thing:x 1 → 2"]);
  assert.deepEqual(set("b"), ["thing:x 2 → undefined"]);
});

Deno.test("objects of two kinds do not meet", () => {
  const { desired, set } = create();
  set("a", thing("x", 1), thing("x", 2, "other"));
  assert.deepEqual([...desired.of("thing").values()].map(({ key }) => key), ["thing:x"]);
  assert.deepEqual([...desired.of("other").values()].map(({ key }) => key), ["other:x"]);
});
