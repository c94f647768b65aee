import assert from "node:assert/strict";
import { replaceFile } from "./replace_file.ts";
import { TempFolder } from "../../../tests/support/temp_folder.ts";

Deno.test("replaceFile() writes a file whole, with its permissions", () => {
  using temp = new TempFolder();
  const folder = temp.path;
  const path = `${folder}/file`;
  for (const text of ["first", "second"]) {
    replaceFile(path, text, { mode: 0o600 });
    assert.equal(Deno.readTextFileSync(path), text);
  }
  assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
  assert.deepEqual(temp.names(), ["file"]);
});

Deno.test("replaceFile() leaves no draft behind when it fails", () => {
  using temp = new TempFolder();
  const folder = temp.path;
  Deno.mkdirSync(`${folder}/taken`);
  assert.throws(() => replaceFile(`${folder}/taken`, "text", { mode: 0o600 }));
  assert.deepEqual(temp.names(), ["taken"]);
});
