/** net-conf in a file that changes as a ConfigMap's mount does. */

import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { ConfigError, sleep } from "../../mod.ts";
import { NetConfFile } from "./net_conf_file.ts";

const netConf = (network: string) => `{"Network":"${network}"}`;

/** A volume as the kubelet makes it: `net-conf.json` → `..data/net-conf.json`, `..data` → a folder of each version. */
class Mount implements Disposable {
  readonly directory = Deno.makeTempDirSync({ prefix: "denim-net-conf-" });
  #version = 0;

  get path(): string {
    return `${this.directory}/net-conf.json`;
  }

  write(text: string): void {
    const version = `..v${++this.#version}`;
    Deno.mkdirSync(`${this.directory}/${version}`);
    Deno.writeTextFileSync(`${this.directory}/${version}/net-conf.json`, text);
    Deno.symlinkSync(version, `${this.directory}/..data_tmp`);
    Deno.renameSync(`${this.directory}/..data_tmp`, `${this.directory}/..data`);
    if (this.#version === 1) Deno.symlinkSync("..data/net-conf.json", this.path);
    else Deno.removeSync(`${this.directory}/..v${this.#version - 1}`, { recursive: true });
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.directory, { recursive: true });
  }
}

Deno.test("a net-conf is waited for, followed as its mount changes, and left out if it can't be used", async () => {
  using mount = new Mount();
  const log = new RecordingLog();
  const ending = new AbortController();
  const file = new NetConfFile(mount.path, log);
  const seen: string[] = [];
  const reading = file.read(ending.signal);
  const watching = (async () => {
    for await (const { families } of file.watch(ending.signal)) {
      seen.push(families.map(({ network }) => `${network}`).join());
    }
  })();
  await eventually("it is said", () => log.lines.length === 2);
  assert.match(log.lines[0]!, /waiting for a net-conf in \S+net-conf.json/);
  const sees = async (...networks: string[]) =>
    await eventually(`${networks}`, () => seen.join() === networks.join());
  mount.write(netConf("10.5.0.0/16"));
  await sees("10.5.0.0/16");
  assert.equal(`${(await reading).families[0]?.network}`, "10.5.0.0/16");
  mount.write(netConf("10.6.0.0/16"));
  await sees("10.5.0.0/16", "10.6.0.0/16");
  mount.write("{");
  await eventually(
    "it is refused",
    () => log.lines.some((line) => /^error .*not followed/.test(line)),
  );
  mount.write(netConf("10.6.0.0/16"));
  mount.write(netConf("10.7.0.0/16"));
  await sees("10.5.0.0/16", "10.6.0.0/16", "10.7.0.0/16");
  ending.abort();
  await watching;
  assert.equal(log.lines.length, 3, log.lines.join("\n"));
});

Deno.test("a net-conf that is edited in its place is followed, and reading it is no change", async () => {
  using mount = new Mount();
  Deno.writeTextFileSync(mount.path, netConf("10.5.0.0/16"));
  const ending = new AbortController();
  const file = new NetConfFile(mount.path, new RecordingLog());
  const configs = file.watch(ending.signal);
  assert.ok(!(await configs.next()).done);
  Deno.writeTextFileSync(mount.path, netConf("10.6.0.0/16"));
  const second = await configs.next();
  assert.equal(`${second.done ? "" : second.value.families[0]?.network}`, "10.6.0.0/16");
  const { readTextFile } = Deno;
  let reads = 0;
  Deno.readTextFile = (...args) => (reads++, readTextFile(...args));
  try {
    const last = configs.next();
    await readTextFile(mount.path);
    // Longer than it takes to hear of ten changes.
    await sleep(500, ending.signal);
    ending.abort();
    assert.ok((await last).done);
    assert.ok(reads <= 2, `${reads} readings`);
  } finally {
    Deno.readTextFile = readTextFile;
  }
});

Deno.test("a first net-conf that can't be used is refused, with its file's name", async () => {
  using mount = new Mount();
  mount.write('{"Network":"10.5.0.0/33"}');
  const { signal } = new AbortController();
  const refused = (error: Error) =>
    error instanceof ConfigError && error.message.startsWith(`${mount.path}: net-conf: Network`);
  const file = new NetConfFile(mount.path, new RecordingLog());
  await assert.rejects(file.read(signal), refused);
  await assert.rejects(file.watch(signal).next(), refused);
});
