import assert from "node:assert/strict";
import { allowNoFreeMemory, giveBackFreeMemory } from "./free_memory.ts";

Deno.test("large blocks are given back when they are freed, also from between others", () => {
  allowNoFreeMemory();
  // By itself glibc keeps blocks of 1 MB in its heap once it has seen a larger one go.
  new ArrayBuffer(8 << 20).transfer(0);
  const small: ArrayBuffer[] = [];
  const large = Array.from({ length: 64 }, () => {
    const block = new ArrayBuffer(1 << 20);
    new Uint8Array(block).fill(1);
    small.push(new ArrayBuffer(4096));
    return block;
  });
  const fullBytes = Deno.memoryUsage().rss;
  for (const block of large) block.transfer(0);
  const freedBytes = fullBytes - Deno.memoryUsage().rss;
  assert.ok(freedBytes > 48 << 20, `${freedBytes} bytes`);
  assert.equal(small.length, 64);
  giveBackFreeMemory();
});
