import { Cidr } from "@denim/core";
import assert from "node:assert/strict";
import { eventually } from "../../tests/support/wait.ts";
import { Clones } from "./clones.ts";

Deno.test("a clone is told of while it is there and for a while after, and then no more", async () => {
  let nowMs = 0;
  let present: readonly Cidr[] = [];
  let changes = 0;
  const clones = new Clones({
    clock: { nowMs: () => nowMs },
    present: () => present,
    onChange: () => changes++,
  });
  const told = () => clones.troubles().map(({ subnet, health }) => `${subnet} ${health}`);
  const ending = new AbortController();
  const running = clones.run(ending.signal);
  const [one, other] = [Cidr.parse("10.5.1.0/24"), Cidr.parse("10.5.2.0/24")];
  clones.saw([one, other]);
  clones.saw([one]);
  assert.deepEqual([told(), changes], [["10.5.1.0/24 clone", "10.5.2.0/24 clone"], 2]);
  present = [other];
  nowMs = 61_000;
  clones.saw([]);
  await eventually("one is forgotten", () => told().length === 1);
  assert.deepEqual(told(), ["10.5.2.0/24 clone"]);
  present = [];
  nowMs = 200_000;
  clones.saw([]);
  await eventually("so is the other", () => told().length === 0);
  assert.equal(changes, 4);
  ending.abort();
  await running;
});
