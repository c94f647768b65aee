import assert from "node:assert/strict";
import * as z from "zod";
import { usually } from "./usual.ts";

const schema = z.object({ port: z.int().max(65_535).default(1) });
const fast = usually((value) => value === "usual" ? { port: 2 } : undefined, schema);

Deno.test("usually reads by hand what is as it should be, and leaves the rest to the schema", () => {
  assert.deepEqual(fast.parse("usual"), { port: 2 });
  assert.deepEqual(fast.parse({}), { port: 1 });
  assert.deepEqual(fast.parse({ port: 7 }), { port: 7 });
});

Deno.test("usually refuses in the schema's words, and names the same keys", () => {
  for (const wrong of [undefined, 5, { port: "x" }, { port: 70_000 }]) {
    const said = (schema: z.ZodType) =>
      schema.safeParse(wrong).error!.issues.map(({ path, message }) => [path, message]);
    assert.deepEqual(said(fast), said(schema), JSON.stringify(wrong));
  }
});
