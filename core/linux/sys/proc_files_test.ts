import assert from "node:assert/strict";
import {
  listProcFolder,
  OpenProcFile,
  readProcFile,
  readProcLink,
  writeProcFile,
} from "./proc_files.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { TempFolder } from "../../../tests/support/temp_folder.ts";

Deno.test("files are read whole, and written in place", () => {
  using temp = new TempFolder();
  const path = `${temp.path}/file`;
  const text = "ä".repeat(5000);
  Deno.writeTextFileSync(path, text);
  assert.equal(readProcFile(path), text);
  Deno.writeTextFileSync(path, "");
  writeProcFile(path, "1");
  assert.equal(readProcFile(path), "1");
  assert.throws(() => readProcFile(`${path}2`), { name: "LinuxError", code: "ENOENT" });
  assert.throws(() => writeProcFile(`${path}2`, ""), { name: "LinuxError", code: "ENOENT" });
});

Deno.test("links and folders of /proc tell what there is", () => {
  assert.match(readProcLink("/proc/self/ns/net"), /^net:\[\d+\]$/);
  assert.throws(() => readProcLink("/proc/self/comm"), { name: "LinuxError", code: "EINVAL" });
  const names = listProcFolder("/proc/self/task");
  assert.ok(names.includes(`${Deno.pid}`), `${names}`);
  assert.throws(() => listProcFolder("/proc/self/nothing"), { name: "LinuxError", code: "ENOENT" });
});

rootTest(
  "a file that stays open tells what is so now, in the namespace that it was opened in",
  () => {
    using namespace = new ScratchNamespace();
    using file = namespace.run(() => new OpenProcFile("/proc/thread-self/net/dev"));
    const devices = () => [...file.read().matchAll(/^ *(\S+):/gm)].map(([, name]) => name);
    assert.deepEqual(devices(), ["lo"]);
    namespace.ip("link add dev other type bridge");
    assert.deepEqual(devices().sort(), ["lo", "other"]);
    assert.throws(() => new OpenProcFile("/proc/self/nothing"), { code: "ENOENT" });
  },
);
