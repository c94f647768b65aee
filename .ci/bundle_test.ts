import assert from "node:assert/strict";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { bundle } from "./bundle.ts";
import { ROOT } from "./source_files.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

interface Run {
  readonly code: number;
  readonly output: string;
}

function run(args: readonly string[], env: Record<string, string> = {}): Run {
  const { code, stdout, stderr } = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", ...args],
    cwd: "/",
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
  }).outputSync();
  const decoder = new TextDecoder();
  return { code, output: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** The files that a file of a bundle loads before it begins, itself among them. */
function loadedBy(file: string): readonly string[] {
  const files = [file];
  for (const one of files) {
    for (const [, path] of Deno.readTextFileSync(one).matchAll(/\b(?:from|import)"(\.[^"]*)"/g)) {
      const next = resolve(dirname(one), path!);
      if (!files.includes(next)) files.push(next);
    }
  }
  return files;
}

Deno.test("a bundle is a folder that needs nothing beside it", async (t) => {
  using temp = new TempFolder();
  Deno.mkdirSync(`${temp.path}/parts`);
  Deno.writeTextFileSync(`${temp.path}/parts/earlier.js`, "");
  await bundle(temp.path);
  assert.deepEqual(temp.names(), ["agent.js", "parts", "plugin.js"]);
  const [agent, plugin] = [`${temp.path}/agent.js`, `${temp.path}/plugin.js`];
  const parts = [...Deno.readDirSync(`${temp.path}/parts`)].map(({ name }) => name);
  const files = [agent, plugin, ...parts.map((name) => `${temp.path}/parts/${name}`)];
  const texts = new Map(files.map((file) => [file, Deno.readTextFileSync(file)]));
  const partWith = (words: string) => {
    const found = [...texts].filter(([file, text]) => file !== plugin && text.includes(words));
    assert.equal(found.length, 1, words);
    return found[0]!;
  };

  await t.step("of an earlier one nothing is left", () => {
    assert.ok(!parts.includes("earlier.js"), parts.join(" "));
  });
  await t.step("the plugin answers", () => {
    const { code, output } = run([plugin], { CNI_COMMAND: "VERSION" });
    assert.equal(code, 0, output);
    assert.match(output, /supportedVersions/);
  });
  await t.step("the agent's program is the plugin where a runtime starts it", () => {
    const { code, output } = run([agent], { CNI_COMMAND: "VERSION" });
    assert.equal(code, 0, output);
    assert.match(output, /supportedVersions/);
  });
  await t.step("it knows what it was made of", () => {
    const { output } = run([agent, "version", "--json"]);
    assert.match(JSON.parse(output).revision, /^[0-9a-f]{40}(-dirty)?$/);
  });
  for (const [what, main] of [["each pod's start", plugin], ["each question", agent]] as const) {
    await t.step(`${what} loads nothing of Node's, whose modules take 10 to 40 ms`, () => {
      for (const file of loadedBy(main)) {
        assert.doesNotMatch(texts.get(file)!, /["']node:/, file);
      }
    });
  }
  await t.step("a question to the agent loads some KB", () => {
    const size = loadedBy(agent).reduce((sum, file) => sum + texts.get(file)!.length, 0);
    assert.ok(size < 60_000, `${size}`);
  });
  await t.step("Deno itself loads no more of it", () => {
    const { stdout } = new Deno.Command(Deno.execPath(), { args: ["info", "--json", agent] })
      .outputSync();
    const { modules } = JSON.parse(new TextDecoder().decode(stdout));
    assert.deepEqual(
      modules.map(({ specifier }: { specifier: string }) => fileURLToPath(specifier)).sort(),
      loadedBy(agent).toSorted(),
    );
  });
  await t.step("a store is not in what those load that use another", () => {
    const [commands] = partWith("<title>denim</title>");
    const loaded = loadedBy(commands);
    for (const words of ["etcdserverpb", "node-public-ip", "YAMLParseError"]) {
      assert.ok(!loaded.includes(partWith(words)[0]), words);
    }
  });
  await t.step("what the program gives back, it gives back there too", () => {
    const { stdout } = new Deno.Command(Deno.execPath(), {
      args: ["bundle", "--quiet", `${ROOT}/plugin/main.ts`],
      cwd: ROOT,
    }).outputSync();
    const declarations = (text: string) => [...text.matchAll(/\busing \w+ ?=/g)].length;
    const wanted = declarations(new TextDecoder().decode(stdout));
    assert.ok(wanted > 0);
    assert.equal(declarations(texts.get(plugin)!), wanted);
  });
  await t.step("each character of it takes one octet in memory", () => {
    for (const [file, text] of texts) assert.doesNotMatch(text, /[^\0-\xff]/, file);
  });
  await t.step("the page is in it", () => {
    const [, text] = partWith("<title>denim</title>");
    for (const part of ["--copper-soft:", "new EventSource("]) assert.ok(text.includes(part), part);
  });
  await t.step("etcd's schema is in it", () => {
    const { code, output } = run([agent, "leases", "--etcd-endpoints", "http://127.0.0.1:1"]);
    assert.equal(code, 1, output);
    assert.match(output, /127\.0\.0\.1:1.*ECONNREFUSED/);
  });
  await t.step({
    name: "the threads of backend udp and of the demo's pods run" +
      (Deno.uid() === 0 ? "" : " (needs root)"),
    ignore: Deno.uid() !== 0,
    fn() {
      const { code, output } = run([agent, "demo", "--backend", "udp", "--nodes", "2"]);
      assert.equal(code, 0, output);
      assert.match(output, /Every pod reaches every other/);
    },
  });
});
