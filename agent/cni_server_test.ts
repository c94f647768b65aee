import { MetricsRegistry, throwDefect } from "@denim/core";
import { FifoWriter } from "@denim/core/linux/fifo";
import { CallFiles } from "@denim/plugin/calls";
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { rootTest } from "../tests/support/root_test.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";
import { eventually } from "../tests/support/wait.ts";
import { CniServer } from "./cni_server.ts";

rootTest("CniServer serves again in a folder that was deleted, which it says once", async () => {
  using temp = new TempFolder();
  const files = new CallFiles(`${temp.path}/calls`);
  const log = new RecordingLog();
  await using _server = new CniServer({ path: files.folder, log, metrics: new MetricsRegistry() });
  const serves = () => eventually("it serves", () => existsSync(files.agent), 30_000);
  await serves();
  {
    using ask = FifoWriter.open(files.ask)!;
    Deno.removeSync(files.folder, { recursive: true });
    // It looks about itself after a second at the soonest, whenever somebody asks.
    await eventually("it finds out", () => {
      try {
        ask.write("hello 0 0\n", 1_000);
      } catch (error) {
        // Nobody reads any more.
        throwDefect(error);
      }
      return log.of("cni-not-served").length > 0;
    });
  }
  await serves();
  assert.match(log.of("cni-not-served")[0]!.message, /No such file or directory/);
  assert.deepEqual(log.events.filter((event) => !event.startsWith("debug")), [
    "warn cni-not-served",
  ]);
});
