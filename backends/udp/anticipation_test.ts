import assert from "node:assert/strict";
import { Anticipation } from "./anticipation.ts";

const OUT = 0, IN = 1;

Deno.test("who was answered soon looks out for the next answer, and no longer than it may take", () => {
  const anticipation = new Anticipation(2);
  anticipation.carried(OUT, 10);
  assert.equal(anticipation.looksOn(10.01), false, "nothing is known yet");
  anticipation.carried(IN, 10.1);
  assert.equal(anticipation.looksOn(10.11), false, "what follows an answer is not known yet");
  anticipation.carried(OUT, 20);
  assert.equal(anticipation.looksOn(20.1), true);
  assert.equal(anticipation.looksOn(20.2), false);
});

Deno.test("who was left without an answer sleeps at once, until one comes soon again", () => {
  const anticipation = new Anticipation(2);
  for (const atMs of [10, 10.1, 30, 50]) anticipation.carried(OUT, atMs);
  assert.equal(anticipation.looksOn(50.01), false);
  anticipation.carried(IN, 50.1);
  anticipation.carried(OUT, 60);
  assert.equal(anticipation.looksOn(60.1), true);
});
