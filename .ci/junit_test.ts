import assert from "node:assert/strict";
import { closingLine, countTests } from "./junit.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

/** Runs real tests, so that a change of Deno's report shows. */
function reportOf(source: string, ...args: string[]): string {
  using temp = new TempFolder();
  const folder = temp.path;
  Deno.writeTextFileSync(`${folder}/deno.json`, "{}");
  Deno.writeTextFileSync(`${folder}/a_test.ts`, source);
  new Deno.Command(Deno.execPath(), {
    args: ["test", "--quiet", "--no-check", "--junit-path=report.xml", ...args],
    cwd: folder,
    stdout: "null",
    stderr: "null",
  }).outputSync();
  return Deno.readTextFileSync(`${folder}/report.xml`);
}

const MIXED = `
  Deno.test("passes", () => {});
  Deno.test.ignore("is <ignored> (needs \\"root\\")", () => {});
  Deno.test("fails", () => { throw new Error("</testcase><skipped/>"); });
  Deno.test("has steps", async (t) => {
    await t.step("passes", () => {});
    await t.step("fails", () => { throw new Error("no"); });
    await t.step({ name: "is ignored", ignore: true, fn() {} });
  });`;

Deno.test("countTests tells passed, failed and skipped apart", () => {
  const { passed, failed, skipped } = countTests(reportOf(MIXED));
  assert.deepEqual({ passed, skipped }, {
    passed: 2,
    skipped: ['is <ignored> (needs "root")', "has steps > is ignored"],
  });
  assert.deepEqual(failed.map((text) => text.split("\n").slice(0, 2)), [
    ["fails", "    Error: </testcase><skipped/>"],
    ["has steps > fails", "    Error: no"],
  ]);
});

Deno.test("countTests leaves out what a filter left out", () => {
  assert.deepEqual(countTests(reportOf(MIXED, "--filter", "/^passes/")), {
    passed: 1,
    failed: [],
    skipped: [],
  });
});

Deno.test("closingLine names skipped tests only if there are some", () => {
  assert.equal(closingLine(3, 0, 0), "3 passed, 0 failed");
  assert.equal(closingLine(3, 1, 2), "3 passed, 1 failed, 2 skipped");
});
