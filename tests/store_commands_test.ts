/** `denim config` and `denim leases`, on each kind of store. */

import assert from "node:assert/strict";
import { denimProgram } from "@denim/agent/lab";
import { EtcdServer } from "./support/etcd_server.ts";
import { TempFolder } from "./support/temp_folder.ts";

const NET_CONF = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}\n';

/** A store to point the command line at. */
interface Place extends AsyncDisposable {
  readonly flags: readonly string[];
  /** How messages name it. */
  readonly description: string;
}

const STORES: Readonly<Record<string, () => Promise<Place>>> = {
  sqlite: () => {
    const folder = new TempFolder();
    const path = `${folder.path}/denim.db`;
    return Promise.resolve({
      flags: ["--store", `sqlite:${path}`],
      description: `sqlite:${path}`,
      [Symbol.asyncDispose]: () => Promise.resolve(folder[Symbol.dispose]()),
    });
  },
  etcd: async () => {
    const server = await EtcdServer.start();
    return {
      flags: ["--etcd-endpoints", server.url],
      description: `etcd:${server.url}/coreos.com/network`,
      [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
    };
  },
};

interface Outcome {
  readonly code: number;
  readonly output: string;
  readonly errors: string;
}

async function denim(args: readonly string[], input = ""): Promise<Outcome> {
  const [command, ...rest] = denimProgram("agent").slice(0, -1);
  const child = new Deno.Command(command!, {
    args: [...rest, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  // Who needs no input may be gone by now.
  await writer.write(new TextEncoder().encode(input)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, output: decoder.decode(stdout), errors: decoder.decode(stderr) };
}

for (const command of ["leases", "config get"]) {
  Deno.test(`kubernetes: denim ${command} says what to use instead`, async () => {
    const { code, errors } = await denim([...command.split(" "), "--kube-subnet-mgr"]);
    assert.equal(code, 2);
    assert.match(errors, /does not work on the store kubernetes: .* kubectl get nodes/);
  });
}

for (const [name, openPlace] of Object.entries(STORES)) {
  Deno.test(`${name}: denim config reads, checks and writes the net-conf`, async () => {
    await using place = await openPlace();
    const config = (args: readonly string[], input?: string) =>
      denim(["config", ...args, ...place.flags], input);

    const none = await config(["get"]);
    assert.equal(none.code, 1);
    assert.match(none.errors, /there is no (net-conf|store) yet/);
    for (
      const [text, says] of [
        ["{", /^denim config: standard input: net-conf is not JSON/],
        ["{}", /standard input: net-conf: Network is missing/],
        ['{"Network":"10.5.0.0/16","SubnetMin":"10.5.3.7"}', /SubnetMin 10\.5\.3\.7 is not on a/],
        [
          '{"Network":"10.5.0.0/16","Backend":{"Type":"pigeon"}}',
          /denim has no Backend\.Type "pigeon"/,
        ],
        [
          '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":"one"}}',
          /Backend\.VNI is "one": expected number/,
        ],
      ] as const
    ) {
      for (const action of [["set"], ["set", "-"], ["check", "-"]]) {
        const { code, errors } = await config(action, text);
        assert.equal(code, 2, errors);
        assert.match(errors, says);
      }
    }

    const written = await config(["set"], NET_CONF);
    assert.deepEqual([written.code, written.errors], [0, ""]);
    assert.equal(
      written.output,
      `${place.description}: 10.5.0.0/16, a /24 a node from 10.5.1.0 to 10.5.255.0; backend vxlan\n`,
    );
    assert.deepEqual(await config(["get"]), { code: 0, output: NET_CONF, errors: "" });
    assert.equal((await config(["check"])).code, 0);

    for (
      const [args, says] of [
        [["write"], /^denim config: write: not one of get, check, set/],
        [["get", "file"], /file: one operand too many/],
        [["set", "--iface", "eth0"], /--iface: denim config has no such flag/],
      ] as const
    ) {
      const { code, errors } = await config(args);
      assert.equal(code, 2);
      assert.match(errors, says);
    }
    assert.equal((await config(["set", "/nonexistent"])).code, 1);
    assert.deepEqual(await config(["get"]), { code: 0, output: NET_CONF, errors: "" });
  });

  Deno.test(`${name}: denim leases lists, reserves and releases`, async () => {
    await using place = await openPlace();
    const leases = (...args: string[]) => denim(["leases", ...args, ...place.flags]);
    assert.equal((await denim(["config", "set", ...place.flags], NET_CONF)).code, 0);
    const table = async () => (await leases()).output.trimEnd().split("\n");
    assert.deepEqual(await table(), ["SUBNET  PUBLIC IP  BACKEND  UNTIL"]);

    assert.equal((await leases("reserve", "10.5.7.0/24", "10.99.0.7")).code, 0);
    assert.equal((await leases("reserve", "10.99.0.17", "10.5.17.0/24")).code, 0);
    assert.deepEqual(await table(), [
      "SUBNET        PUBLIC IP   BACKEND  UNTIL",
      "10.5.7.0/24   10.99.0.7   -        reserved",
      "10.5.17.0/24  10.99.0.17  -        reserved",
    ]);
    assert.deepEqual(JSON.parse((await leases("--json")).output)[0], {
      key: "10.5.7.0-24",
      backendType: "",
      halves: [{ subnet: "10.5.7.0/24", publicIp: "10.99.0.7", backendData: null }],
      expiresAt: null,
    });

    for (
      const [args, code, says] of [
        [["reserve", "10.5.7.0/24", "10.99.0.8"], 1, /10\.5\.7\.0-24 is leased to 10\.99\.0\.7/],
        [["reserve", "10.5.8.0/24", "10.99.0.7"], 1, /its node holds 10\.5\.7\.0-24/],
        [["reserve", "10.6.8.0/24", "10.99.0.8"], 2, /net-conf leases a \/24 from 10\.5\.1\.0/],
        [["reserve", "10.5.8.0/24"], 2, /reserve takes one subnet and one public IP/],
        [["reserve", "10.5.8.0/24", "fd99::8"], 2, /for each of the families/],
        [
          ["reserve", "10.5.8.0/24", "node8"],
          2,
          /node8: neither a subnet such as .* nor an IP address/,
        ],
        [["release"], 2, /release takes a subnet/],
        [["release", "10.5.9.0/24"], 1, /no node holds 10\.5\.9\.0\/24/],
        [["hoard"], 2, /hoard: neither reserve nor release/],
      ] as const
    ) {
      const outcome = await leases(...args);
      assert.equal(outcome.code, code, outcome.errors);
      assert.match(outcome.errors, says);
    }
    assert.deepEqual(await leases("release", "10.5.7.0/24"), {
      code: 0,
      output: "released 10.5.7.0-24\n",
      errors: "",
    });
    assert.equal((await table()).length, 2);
  });
}

Deno.test("denim leases does not wait for an etcd that is not there, and makes no file", async () => {
  const absent = await denim(["leases", "--etcd-endpoints", "http://127.0.0.1:9"]);
  assert.equal(absent.code, 1);
  assert.match(
    absent.errors,
    /^denim leases: etcd:.*http:\/\/127\.0\.0\.1:9: connect ECONNREFUSED/,
  );
  using folder = new TempFolder();
  const path = `${folder.path}/denim.db`;
  const none = await denim(["leases", "--store", `sqlite:${path}`]);
  assert.equal(none.code, 1);
  assert.match(none.errors, /there is no store yet; denim config set makes one/);
  assert.throws(() => Deno.statSync(path));
});

Deno.test("denim config check FILE needs no store, and makes none", async () => {
  using folder = new TempFolder();
  const directory = folder.path;
  Deno.writeTextFileSync(`${directory}/net-conf.json`, NET_CONF);
  const check = ["config", "check", `${directory}/net-conf.json`];
  const { code, output } = await denim([...check, "--store", `sqlite:${directory}/x/denim.db`]);
  assert.equal(code, 0);
  assert.equal(output, "10.5.0.0/16, a /24 a node from 10.5.1.0 to 10.5.255.0; backend vxlan\n");
  assert.throws(() => Deno.statSync(`${directory}/x`));
});

Deno.test("help of each command says how to name a store", async () => {
  for (const command of ["config", "leases"]) {
    const { code, output } = await denim([command, "--help"]);
    assert.equal(code, 0);
    assert.match(output, new RegExp(`^Usage: denim ${command} `));
    assert.match(output, /--etcd-endpoints URLS +URLs of etcd's servers/);
  }
});
