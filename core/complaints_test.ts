import assert from "node:assert/strict";
import { Complaints } from "./complaints.ts";

Deno.test("Complaints.isNew() says each reason once until the trouble is resolved", () => {
  const complaints = new Complaints();
  assert.deepEqual(
    ["a", "b", "a", "b"].map((reason) => complaints.isNew(reason)),
    [true, true, false, false],
  );
  assert(complaints.isNew("a", "another thing"));
  assert(complaints.resolve());
  assert(!complaints.resolve(), "nothing was said since");
  assert(complaints.isNew("a"));
  assert(!complaints.isNew("a", "another thing"));
});
