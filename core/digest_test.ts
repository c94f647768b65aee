import assert from "node:assert/strict";
import { digestOf } from "./digest.ts";

Deno.test("digestOf tells texts apart that differ little, by integers that a number holds", () => {
  const texts = Array.from(
    { length: 200_000 },
    (_, index) => `vxlan 10.${index}.0.0/24 ${index & 7}`,
  );
  const digests = texts.map(digestOf);
  assert.equal(new Set(digests).size, texts.length);
  assert.ok(digests.every(Number.isSafeInteger));
  // All bits take part: half of the texts have each of them.
  for (let bit = 0; bit < 53; bit++) {
    const share = digests.filter((digest) => Math.floor(digest / 2 ** bit) % 2 === 1).length;
    assert.ok(Math.abs(share / texts.length - 0.5) < 0.01, `bit ${bit}: ${share}`);
  }
});

Deno.test("digestOf gives the same text the same number", () => {
  assert.equal(digestOf("a" + "b"), digestOf("ab"));
  assert.notEqual(digestOf(""), digestOf("\0"));
});
