/**
 * The plugin is replaced while runtimes call it, as an upgrade on a live node does. `DENIM_TEST_REPLACEMENTS=200` for a
 * long run.
 */

import assert from "node:assert/strict";
import { bundle } from "../../.ci/bundle.ts";
import { HostFiles, type WantedFile } from "../../agent/install/host_files.ts";
import { launcher } from "../../agent/install/program_files.ts";
import { rootTest } from "../support/root_test.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { PluginNode } from "./plugin_node.ts";

const REPLACEMENTS = Number(Deno.env.get("DENIM_TEST_REPLACEMENTS") ?? 20);
const RUNTIMES = REPLACEMENTS >= 200 ? 8 : 4;
/** Deno is large: it is another one each time that this many replacements are done. */
const DENO_EVERY = 10;

rootTest(
  `${RUNTIMES} runtimes notice nothing of ${REPLACEMENTS} replacements of the plugin`,
  async () => {
    using temp = new TempFolder();
    using node = new PluginNode();
    await bundle(temp.path);
    const plugin = Deno.readTextFileSync(`${temp.path}/plugin.js`);
    const denos = ["", "\0"].map((tail, index) => {
      const path = `${temp.path}/deno${index}`;
      Deno.copyFileSync(Deno.execPath(), path);
      Deno.writeTextFileSync(path, tail, { append: true });
      return path;
    });
    const program = `${temp.path}/bin/denim`;
    const script = launcher({
      agent: undefined,
      plugin: `"$home/deno" run -A "$home/plugin.js"`,
      revision: undefined,
      calls: node.calls,
    });
    const home = `${temp.path}/bin/.denim`;
    const files = new HostFiles({ say: () => {}, dryRun: false });
    const put = (round: number) => {
      const deno = denos[Math.floor(round / DENO_EVERY) % denos.length]!;
      const wanted: readonly WantedFile[] = [
        { path: `${home}/deno`, mode: 0o755, content: { copyOf: deno } },
        { path: `${home}/plugin.js`, mode: 0o644, content: `${plugin}// ${round}\n` },
        { path: program, mode: 0o755, content: `${script}# ${round}\n` },
      ];
      assert.ok(files.put(wanted).includes(program));
    };
    put(0);

    let replacing = true, calls = 0;
    const runtimes = Array.from({ length: RUNTIMES }, async () => {
      const pod = node.pod();
      do {
        await node.succeedAsProcess("ADD", pod, {}, [program]);
        await node.succeedAsProcess("DEL", pod, {}, [program]);
        calls += 2;
      } while (replacing);
    });
    const replacements = (async () => {
      for (let round = 1; round <= REPLACEMENTS; round++) {
        // Once in a while, so that every part of a call meets a replacement.
        const before = calls;
        while (calls < before + RUNTIMES / 4) {
          await new Promise((resolve) => setTimeout(resolve, 1));
        }
        put(round);
      }
      replacing = false;
    })();
    await Promise.all([...runtimes, replacements]);
    assert.deepEqual(node.leftovers(), []);
    console.log(`${calls} calls`);
  },
);
