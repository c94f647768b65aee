import assert from "node:assert/strict";
import { sharedMemory } from "./shared_memory.ts";

const BYTES = 20 * 2 ** 20;

/** The memory that this process is resident with and no file stands behind, in bytes. */
function residentBytes(): number {
  const status = Deno.readTextFileSync("/proc/self/status");
  return 1024 * Number(/^RssAnon:\s+(\d+)/m.exec(status)![1]);
}

Deno.test("shared memory that nobody writes to takes no room, also if such memory was freed before", async () => {
  // A worker's end frees what it made, without a garbage collection.
  const program = `import { sharedMemory } from ${
    JSON.stringify(import.meta.resolve("./shared_memory.ts"))
  };
    self.onmessage = () => self.postMessage(sharedMemory(${BYTES}).byteLength);`;
  const url = URL.createObjectURL(new Blob([program], { type: "application/typescript" }));
  for (let round = 0; round < 6; round++) {
    const worker = new Worker(url, { type: "module" });
    const answered = Promise.withResolvers<number>();
    worker.onmessage = ({ data }: MessageEvent<number>) => answered.resolve(data);
    worker.postMessage("");
    assert.equal(await answered.promise, BYTES);
    worker.terminate();
    const before = residentBytes();
    const memory = sharedMemory(BYTES);
    new Uint8Array(memory)[BYTES / 2] = 1;
    assert.ok(residentBytes() - before < BYTES / 4, `round ${round}`);
  }
  URL.revokeObjectURL(url);
});
