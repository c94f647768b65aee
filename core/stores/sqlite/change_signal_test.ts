import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { TempFolder } from "../../../tests/support/temp_folder.ts";
import { NEVER } from "../../../tests/support/wait.ts";
import { ChangeSignal, type ChangeSignalOptions, CLAIM_MS } from "./change_signal.ts";

function open(
  folder: TempFolder,
  watchFile?: ChangeSignalOptions["watchFile"],
): ChangeSignal & { readonly log: RecordingLog } {
  const log = new RecordingLog();
  return Object.assign(new ChangeSignal(`${folder.path}/denim.db`, { log, watchFile }), { log });
}

Deno.test("a process hears of what another one wrote", async () => {
  using folder = new TempFolder();
  using writer = open(folder);
  using reader = open(folder);
  reader.watch();
  const { count } = reader;
  writer.notify();
  assert.ok(await reader.after(count, 60_000, NEVER));
  assert.ok(reader.count > count);
});

Deno.test("living nodes have time to claim their subnets in a file that replaced another", () => {
  using folder = new TempFolder();
  using signal = open(folder);
  signal.identify("first", false);
  assert.equal(signal.claimTimeLeftMs, 0);
  signal.identify("first", false);
  assert.equal(signal.claimTimeLeftMs, 0, "it is the same file");
  signal.identify("second", false);
  using other = open(folder);
  assert.ok(other.claimTimeLeftMs > 0 && other.claimTimeLeftMs <= CLAIM_MS);
});

for (const damage of ["", "null", "{", "7", '{"identity":7}']) {
  Deno.test(`a signal that holds ${JSON.stringify(damage)} says nothing, and is written again`, () => {
    using folder = new TempFolder();
    Deno.writeTextFileSync(`${folder.path}/denim.db-signal`, damage);
    using signal = open(folder);
    signal.refresh();
    signal.identify("first", false);
    assert.match(Deno.readTextFileSync(`${folder.path}/denim.db-signal`), /"identity":"first"/);
  });
}

Deno.test("a file that the kernel can't watch is said; a defect is thrown", () => {
  using folder = new TempFolder();
  using deaf = open(folder, () => {
    throw new Error("Too many open files (os error 24)");
  });
  deaf.watch();
  assert.equal(deaf.log.count(/^warn store-signal-failed: .*raise fs\.inotify/), 1);
  using broken = open(folder, () => {
    throw new TypeError("not a function");
  });
  assert.throws(() => broken.watch(), TypeError);
  assert.deepEqual(broken.log.events, []);
});
