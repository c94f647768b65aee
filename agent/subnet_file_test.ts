import { Cidr, IpAddress, RuntimeError, type SubnetEnv } from "@denim/core";
import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { rootTest } from "../tests/support/root_test.ts";
import { SmallDisk } from "../tests/support/small_disk.ts";
import { eventually, NEVER } from "../tests/support/wait.ts";
import { SubnetFile } from "./subnet_file.ts";
import { TempFolder } from "../tests/support/temp_folder.ts";

function env(subnet: string): SubnetEnv {
  const networks = [Cidr.parse("10.5.0.0/16")];
  return { halves: [{ networks, subnet: Cidr.parse(subnet) }], mtuBytes: 1450, ipMasq: false };
}

const PUBLIC_IPS = new Map([[4 as const, IpAddress.parse("10.99.0.1")]]);

function fileTest(
  name: string,
  body: (path: string, log: RecordingLog) => Promise<void> | void,
): void {
  Deno.test(`subnet.env: ${name}`, async () => {
    using temp = new TempFolder();
    const directory = temp.path;
    await body(`${directory}/run/subnet.env`, new RecordingLog());
  });
}

fileTest("the last run is known from it, and under which addresses", (path, log) => {
  assert.deepEqual(new SubnetFile(path, log).lastRun(), { previousSubnets: [], networks: [] });
  new SubnetFile(path, log).write(env("10.5.7.0/24"), PUBLIC_IPS);
  const last = { previousSubnets: [Cidr.parse("10.5.7.0/24")], previousPublicIps: PUBLIC_IPS };
  const networks = [{ network: Cidr.parse("10.5.0.0/16"), subnetLength: 24 }];
  assert.deepEqual(new SubnetFile(path, log).lastRun(), { ...last, networks });
  assert.equal(Deno.statSync(`${path}.last`).mode! & 0o777, 0o600);
  Deno.removeSync(path);
  assert.deepEqual(
    new SubnetFile(path, log).lastRun(),
    { ...last, networks: [] },
    "without the file",
  );
  const record = Deno.readTextFileSync(`${path}.last`);
  Deno.writeTextFileSync(`${path}.last`, record.replace(/"boot":"[^"]*"/, '"boot":"another"'));
  assert.deepEqual(
    new SubnetFile(path, log).lastRun(),
    { previousSubnets: last.previousSubnets, networks: [] },
    "on a copy of the disk",
  );
  // flanneld ran since, which writes but the one.
  Deno.writeTextFileSync(
    path,
    "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.9.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
  );
  const { previousSubnets, previousPublicIps } = new SubnetFile(path, log).lastRun();
  assert.deepEqual([`${previousSubnets}`, previousPublicIps], ["10.5.9.0/24", undefined]);
  assert.deepEqual(log.lines, []);
});

fileTest("a path without a folder is one in the working directory", (path, log) => {
  const directory = path.replace("/subnet.env", "");
  Deno.mkdirSync(directory);
  const before = Deno.cwd();
  try {
    Deno.chdir(directory);
    new SubnetFile("subnet.env", log).write(env("10.5.7.0/24"), PUBLIC_IPS);
    assert.equal(`${new SubnetFile("subnet.env", log).lastRun().previousSubnets}`, "10.5.7.0/24");
  } finally {
    Deno.chdir(before);
  }
  const files = [...Deno.readDirSync(directory)].map(({ name, isFile }) => isFile && name);
  assert.deepEqual(files.sort(), ["subnet.env", "subnet.env.last"]);
});

fileTest("a record of another shape is said, and is no last run", (path, log) => {
  new SubnetFile(path, log).write(env("10.5.7.0/24"), PUBLIC_IPS);
  for (const record of ['{"lease":7}', "null", '{"lease":"10.5.7.0-24"}']) {
    Deno.writeTextFileSync(`${path}.last`, record);
    assert.equal(new SubnetFile(path, log).lastRun().previousPublicIps, undefined);
  }
  assert.equal(log.of("last-run-unreadable").length, 3);
});

rootTest(
  "subnet.env: a full disk is no defect: the agent says so, and writes it when there is room",
  async () => {
    using disk = new SmallDisk();
    const path = `${disk.directory}/subnet.env`, log = new RecordingLog();
    const file = new SubnetFile(path, log);
    const stopping = new AbortController();
    const keeping = file.keep(stopping.signal);
    disk.fill();
    assert.throws(
      () => file.write(env("10.5.7.0/24"), PUBLIC_IPS),
      (error) =>
        error instanceof RuntimeError && /cannot be written: No space left/.test(error.message),
    );
    await eventually("a complaint", () => log.of("subnet-file-failed").length > 0);
    disk.empty();
    await eventually("written", () => log.of("subnet-file-restored").length > 0);
    assert.match(Deno.readTextFileSync(path), /FLANNEL_SUBNET=10\.5\.7\.1\/24/);
    stopping.abort();
    await keeping;
  },
);

fileTest("what can't be read is said, and is no last run", (path, log) => {
  new SubnetFile(path, log).write(env("10.5.7.0/24"), PUBLIC_IPS);
  Deno.writeTextFileSync(path, "FLANNEL_SUB");
  Deno.writeTextFileSync(`${path}.last`, '{"lea');
  assert.deepEqual(new SubnetFile(path, log).lastRun(), { previousSubnets: [], networks: [] });
  assert.deepEqual(log.events, ["warn last-run-unreadable", "warn last-run-unreadable"]);
  assert.equal(log.count(/subnet\.env is cut short/), 1);
});

for (const name of ["subnet.env", "subnet.env.last"]) {
  fileTest(`a directory in the place of ${name} is named`, (path, log) => {
    const folder = path.replace("subnet.env", name);
    Deno.mkdirSync(folder, { recursive: true });
    assert.throws(() => new SubnetFile(path, log).lastRun(), {
      name: "RuntimeError",
      message: new RegExp(`${name} is a directory, .*: remove it`),
    });
  });
}

fileTest("it is written again while it is to be there, and only then", async (path, log) => {
  const file = new SubnetFile(path, log);
  // As the agent does, before all else: so the folder is there, and watched from the beginning.
  using _claim = await file.claim(0, NEVER);
  const stopping = new AbortController();
  const keeping = file.keep(stopping.signal);
  const is = (text: string | undefined) => () => {
    try {
      return Deno.readTextFileSync(path) === text;
    } catch {
      return text === undefined;
    }
  };
  file.write(env("10.5.7.0/24"), PUBLIC_IPS);
  const text = Deno.readTextFileSync(path);
  for (
    const [what, spoil] of [
      ["removed", () => Deno.removeSync(path)],
      ["cut short", () => Deno.truncateSync(path, 20)],
      [
        "its directory removed",
        () => Deno.removeSync(path.replace(/\/[^/]*$/, ""), { recursive: true }),
      ],
    ] as const
  ) {
    spoil();
    assert.ok(await eventually(what, is(text)) < 1_000, what);
  }
  assert.equal(log.of("subnet-file-restored").length, 3);
  // A directory in its place: one complaint, and an end to it.
  Deno.removeSync(path);
  Deno.mkdirSync(`${path}/in-the-way`, { recursive: true });
  await eventually(
    "a complaint",
    () => log.of("subnet-file-failed").length > 0,
  );
  Deno.removeSync(path, { recursive: true });
  await eventually("written again", is(text));
  file.remove();
  assert.ok(is(undefined)());
  Deno.writeTextFileSync(path, "a stranger's");
  stopping.abort();
  await keeping;
  assert.ok(is("a stranger's")());
});

fileTest("one agent has it at a time, and one that ends is waited for", async (path, log) => {
  const claim = (patienceMs: number) => new SubnetFile(path, log).claim(patienceMs, NEVER);
  assert.equal(new SubnetFile(path, log).isClaimed, false);
  {
    using _claim = await claim(0);
    assert.equal(new SubnetFile(path, log).isClaimed, true);
    await assert.rejects(claim(0), {
      name: "RuntimeError",
      message: /^another agent runs on this node: it holds .*subnet\.env\.lock; stop it first/,
    });
  }
  const first = await claim(0);
  const second = claim(10_000);
  first[Symbol.dispose]();
  (await second)[Symbol.dispose]();
  assert.equal(new SubnetFile(path, log).isClaimed, false);
});
