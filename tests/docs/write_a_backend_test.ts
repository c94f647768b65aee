/** The guide to a backend of one's own, word for word, in an empty folder beside the checkout. */

import assert from "node:assert/strict";
import { findDenort } from "../../.ci/denort.ts";
import { ROOT } from "../../.ci/source_files.ts";
import { rootTest } from "../support/root_test.ts";
import { TempFolder } from "../support/temp_folder.ts";

/** A block of the guide; of a file the text before it says the name. */
interface Block {
  readonly language: string;
  readonly text: string;
  readonly file: string | undefined;
}

function guide(): readonly Block[] {
  const page = Deno.readTextFileSync(`${ROOT}/docs/write-a-backend.md`);
  const blocks = page.matchAll(/([^]*?)^```(\w+)\n([^]*?)^```$/gm);
  return Array.from(blocks, ([, prose, language, text]) => {
    const [name] = [...prose!.matchAll(/`(\w+\.(?:ts|json))`/g)].at(-1)?.slice(1) ?? [];
    return { language: language!, text: text!, file: language === "sh" ? undefined : name };
  });
}

rootTest("the guide to a backend of one's own works, word for word", async (t) => {
  using temp = new TempFolder();
  const folder = temp.path;
  Deno.symlinkSync(ROOT, `${folder}/denim`);
  Deno.mkdirSync(`${folder}/bin`);
  Deno.symlinkSync(Deno.execPath(), `${folder}/bin/deno`);
  const project = `${folder}/mine`;
  Deno.mkdirSync(project);
  const blocks = guide();
  for (const { file, text } of blocks) {
    if (file !== undefined) Deno.writeTextFileSync(`${project}/${file}`, text);
  }
  assert.deepEqual(
    [...Deno.readDirSync(project)].map(({ name }) => name).sort(),
    ["datagram.ts", "deno.json", "direct.ts", "main.ts", "mine_test.ts"],
  );
  const commands = blocks.filter(({ language }) => language === "sh").map(({ text }) => text);
  for (const command of commands.flatMap((text) => text.trim().split("\n"))) {
    await t.step(command, async () => {
      const { code, stdout, stderr } = await new Deno.Command("sh", {
        args: ["-c", command],
        cwd: project,
        env: {
          PATH: `${folder}/bin:${Deno.env.get("PATH")}`,
          // Where a task was called, which this test may be part of.
          INIT_CWD: project,
          // Any program can carry the modules; only running them takes denort.
          ...!findDenort().found && { DENORT_BIN: Deno.realPathSync("/bin/true") },
        },
      }).output();
      const output = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
      assert.equal(code, 0, output);
      if (command.includes(" demo ")) assert.match(output, /Every pod reaches every other/);
      if (command.includes(" test ")) assert.match(output, /6 passed .* 0 failed/);
    });
  }
  assert.ok(Deno.statSync(`${project}/dist/mine`).size > 1_000_000);
});
