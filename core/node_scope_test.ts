import assert from "node:assert/strict";
import { NodeScope } from "./node_scope.ts";

Deno.test("a node has one object of a class, another node another", () => {
  class One {}
  class Other {}
  const [scope, elsewhere] = [new NodeScope(), new NodeScope()];
  const one = scope.get(One, () => new One());
  assert.ok(scope.get(Other, () => new Other()) instanceof Other);
  assert.equal(scope.get(One, () => assert.fail("there is one")), one);
  assert.notEqual(elsewhere.get(One, () => new One()), one);
});
