import assert from "node:assert/strict";
import { replaceFile } from "./replace_file.ts";

Deno.test("replaceFile() writes a file whole, with its permissions", () => {
  const folder = Deno.makeTempDirSync();
  try {
    const path = `${folder}/file`;
    for (const text of ["first", "second"]) {
      replaceFile(path, text, { mode: 0o600 });
      assert.equal(Deno.readTextFileSync(path), text);
    }
    assert.equal(Deno.statSync(path).mode! & 0o777, 0o600);
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["file"]);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("replaceFile() leaves no draft behind when it fails", () => {
  const folder = Deno.makeTempDirSync();
  try {
    Deno.mkdirSync(`${folder}/taken`);
    assert.throws(() => replaceFile(`${folder}/taken`, "text", { mode: 0o600 }));
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["taken"]);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
