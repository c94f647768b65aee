import assert from "node:assert/strict";
import { MemoryTable, type Thing } from "../../../tests/support/memory_table.ts";
import { diff } from "./diff.ts";

/** The steps between things of two kinds, "low" made before "high", in a few words each. */
function steps(
  wanted: readonly Thing[],
  found: readonly Thing[],
  table = new MemoryTable("table", []),
  wasKnown: (key: string) => boolean = () => false,
): string[] {
  const kinds = ["low", "high"].map((kind) => {
    const of = (things: readonly Thing[]) =>
      new Map(
        things.filter((thing) => thing.kind === kind).map((thing) => [table.key(thing), thing]),
      );
    const wants = of(wanted), finds = of(found);
    return {
      wanted: [...wants].map(([key, object], row) => ({
        row,
        key,
        object,
        there: finds.get(key),
        wasThere: wasKnown(key),
      })),
      isWanted: (key: string) => wants.has(key),
      found: finds,
    };
  });
  const { puts, removals } = diff(table, kinds);
  return [...puts, ...removals].map((step) =>
    `${step.action} ${step.key}${step.action === "put" && step.mayReplace ? ", replacing" : ""}`
  );
}

const low = (name: string, value = ""): Thing => ({ kind: "low", name, value });
const high = (name: string, value = ""): Thing => ({ kind: "high", name, value });

Deno.test("diff puts in the order of kinds, and then removes in the opposite order", () => {
  assert.deepEqual(steps([high("b"), low("b")], [high("a"), low("a")]), [
    "put low:b",
    "put high:b",
    "remove high:a",
    "remove low:a",
  ]);
});

Deno.test("diff leaves alone what is right, and replaces what is not", () => {
  const found = [low("a", "right"), low("b", "wrong")];
  const wanted = [low("a", "right"), low("b", "right"), low("c", "right"), low("d", "right")];
  assert.deepEqual(steps(wanted, found, undefined, (key) => key === "low:d"), [
    "put low:b, replacing",
    "put low:c",
    "put low:d, replacing",
  ]);
});

Deno.test("diff neither removes what is not denim's nor puts what has no place", () => {
  const table = new MemoryTable("table", []);
  table.ours = ({ name }) => name !== "setting";
  const placed = Object.assign(table, { hasPlace: ({ name }: Thing) => name !== "absent" });
  assert.deepEqual(steps([low("absent"), low("a")], [low("setting"), low("old")], placed), [
    "put low:a",
    "remove low:old",
  ]);
});
