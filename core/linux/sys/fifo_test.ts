import assert from "node:assert/strict";
import { TempFolder } from "../../../tests/support/temp_folder.ts";
import { FifoReader, FifoWriter, makeFifo } from "./fifo.ts";
import { LinuxError } from "./linux_error.ts";

const refusal = (code: string) => (error: unknown) =>
  error instanceof LinuxError && error.code === code;

Deno.test("a FIFO is its owner's alone, and made once", () => {
  using temp = new TempFolder();
  const path = `${temp.path}/fifo`;
  makeFifo(path);
  assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
  assert.throws(() => makeFifo(path), refusal("EEXIST"));
});

Deno.test("lines arrive whole and in order, and a reader without writers waits as long as it is told", () => {
  using temp = new TempFolder();
  const path = `${temp.path}/fifo`;
  makeFifo(path);
  assert.equal(FifoWriter.open(path), undefined, "nobody reads");
  assert.equal(FifoWriter.open(`${temp.path}/none`), undefined);
  using reader = new FifoReader(path);
  assert.deepEqual(reader.lines(1), []);
  using writer = FifoWriter.open(path)!;
  const sent = Array.from({ length: 1000 }, (_, index) => `line ${index} é`);
  for (const line of sent) writer.write(`${line}\n`, 0);
  const received: string[] = [];
  while (received.length < sent.length) received.push(...reader.lines(0));
  assert.deepEqual(received, sent);
});

Deno.test("a writer says that the reader is gone, or reads nothing", () => {
  using temp = new TempFolder();
  const path = `${temp.path}/fifo`;
  makeFifo(path);
  const reader = new FifoReader(path);
  using writer = FifoWriter.open(path)!;
  assert.throws(() => writer.write("x".repeat(1_000_000), 1), refusal("EAGAIN"));
  reader[Symbol.dispose]();
  assert.throws(() => writer.write("x\n", 1), refusal("EPIPE"));
});
