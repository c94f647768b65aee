import assert from "node:assert/strict";
import { lockFile, lockIfThere, removeIfPossible, removeIfThere, unlessGone } from "./files.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

Deno.test("removeIfThere() passes a missing file by, and no other failure", () => {
  using folder = new TempFolder();
  Deno.writeTextFileSync(`${folder.path}/file`, "");
  for (const path of ["file", "file", "folder/file", "file/x"]) {
    removeIfThere(`${folder.path}/${path}`);
  }
  assert.deepEqual(folder.names(), []);
  Deno.mkdirSync(`${folder.path}/full/x`, { recursive: true });
  assert.throws(() => removeIfThere(`${folder.path}/full`), { code: "ENOTEMPTY" });
});

Deno.test("removeIfPossible() passes what the file system says by", () => {
  using folder = new TempFolder();
  Deno.mkdirSync(`${folder.path}/full/x`, { recursive: true });
  for (const path of ["full", "none"]) removeIfPossible(`${folder.path}/${path}`);
  assert.deepEqual(folder.names(), ["full"]);
});

Deno.test("unlessGone() tells a missing file from every other failure", () => {
  using folder = new TempFolder();
  assert.equal(unlessGone(() => Deno.readTextFileSync(`${folder.path}/none`)), undefined);
  assert.throws(() => unlessGone(() => Deno.readTextFileSync(folder.path)), { code: "EISDIR" });
  assert.throws(() =>
    unlessGone(() => {
      throw new TypeError("a defect");
    }), TypeError);
});

Deno.test("lockFile() makes the file; a lock that is shared keeps others out that want it alone", async () => {
  using folder = new TempFolder();
  const path = `${folder.path}/lock`;
  assert.equal(lockIfThere(path, "shared"), undefined);
  const mine = lockFile(path, "shared");
  assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
  {
    // A process's second open of a file is another holder to flock(2).
    using _second = lockFile(path, "shared");
  }
  using other = Deno.openSync(path);
  let taken = false;
  const waiting = other.lock(true).then(() => taken = true);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(taken, false);
  mine[Symbol.dispose]();
  await waiting;
});
