import assert from "node:assert/strict";
import { bundle } from "./bundle.ts";
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

Deno.test("a bundle is two files that need nothing beside them", async (t) => {
  using temp = new TempFolder();
  await bundle(temp.path);
  assert.deepEqual(temp.names(), ["agent.js", "plugin.js"]);
  const agent = `${temp.path}/agent.js`;

  await t.step("the plugin answers", () => {
    const { code, output } = run([`${temp.path}/plugin.js`], { CNI_COMMAND: "VERSION" });
    assert.equal(code, 0, output);
    assert.match(output, /supportedVersions/);
  });
  await t.step(
    "the plugin needs nothing of Node's, whose modules take each pod's start 30 ms",
    () => {
      assert.doesNotMatch(Deno.readTextFileSync(`${temp.path}/plugin.js`), /["']node:/);
    },
  );
  await t.step("what the program gives back, it gives back there too", () => {
    for (const part of ["agent", "plugin"]) {
      assert.match(
        Deno.readTextFileSync(`${temp.path}/${part}.js`),
        /using store = AddressStore/,
        part,
      );
    }
  });
  await t.step("each character of it takes one octet in memory", () => {
    assert.doesNotMatch(Deno.readTextFileSync(agent), /[^\0-\xff]/);
  });
  await t.step("the page is in it", () => {
    const text = Deno.readTextFileSync(agent);
    for (const part of ["<title>denim</title>", "--copper-soft:", "new EventSource("]) {
      assert.ok(text.includes(part), part);
    }
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
