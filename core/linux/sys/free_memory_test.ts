import assert from "node:assert/strict";
import { inOwnProcess } from "../../../tests/support/own_process.ts";

/** Prints how many bytes the process gives back for 64 blocks of 1 MiB each, with small ones between them. */
const PROGRAM = `
  const { allowNoFreeMemory, giveBackFreeMemory } = await import(Deno.args[0]);
  allowNoFreeMemory();
  // By itself glibc keeps blocks of 1 MB in its heap once it has seen a larger one go.
  new ArrayBuffer(8 << 20).transfer(0);
  const small = [];
  const large = Array.from({ length: 64 }, () => {
    const block = new ArrayBuffer(1 << 20);
    new Uint8Array(block).fill(1);
    small.push(new ArrayBuffer(4096));
    return block;
  });
  const fullBytes = Deno.memoryUsage().rss;
  for (const block of large) block.transfer(0);
  console.log(fullBytes - Deno.memoryUsage().rss, small.length);
  giveBackFreeMemory();
`;

Deno.test("large blocks are given back when they are freed, also from between others", () => {
  const said = inOwnProcess(PROGRAM, [import.meta.resolve("./free_memory.ts")]);
  const [freedBytes, small] = said.split(" ").map(Number);
  assert.ok(freedBytes! > 48 << 20, `${freedBytes} bytes`);
  assert.equal(small, 64);
});
