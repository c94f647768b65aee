import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { IpAddress } from "@denim/core/ip";
import { debianPlugin } from "../support/debian_plugins.ts";
import { rootTest } from "../support/root_test.ts";
import type { ScratchNamespace } from "../support/scratch_namespace.ts";
import { eventually } from "../support/wait.ts";
import {
  answersPing,
  attachment,
  type CniCall,
  DONE,
  GATEWAY,
  MTU_BYTES,
  PluginNode,
  SUBNET,
  waiting,
} from "./plugin_node.ts";

/** A configuration for another plugin; Debian's speak 1.0.0 at most. */
function confFor(
  node: PluginNode,
  delegate: Readonly<Record<string, unknown>>,
  changes: Readonly<Record<string, unknown>> = {},
): Record<string, unknown> {
  const conf = node.conf({ cniVersion: "1.0.0", ...changes });
  return { ...conf, delegate };
}

/** Waits until addresses answer a pod. Other plugins do not wait until the kernel has a link up. */
async function answer(pod: ScratchNamespace, ...addresses: readonly IpAddress[]): Promise<void> {
  for (const address of addresses) await eventually(`${address}`, () => answersPing(pod, address));
}

rootTest(
  "ptp attaches pods of both families, CHECK asks it, and DEL needs no subnet.env",
  async () => {
    using node = new PluginNode({ dualStack: true });
    const [first, second] = [node.pod(), node.pod()];
    const conf = confFor(node, { type: "ptp" });
    const result = await node.succeedAsProcess("ADD", first, { conf });
    await node.succeedAsProcess("ADD", second, { conf });
    assert.deepEqual(
      result.ips.map(({ address }: { address: string }) => address),
      ["10.231.7.2/24", "fc00:231:0:7::2/64"],
    );
    assert.equal(first.ipJson("link show eth0")[0].mtu, MTU_BYTES);
    await answer(first, GATEWAY, SUBNET.at(3n));
    assert.deepEqual(node.namespace.ipJson("link show type bridge"), []);

    // Debian's ptp looks in vain for routes that name no gateway, its own among them.
    const check = { conf: { ...conf, prevResult: { ...result, routes: [] } } };
    assert.deepEqual(await node.run("CHECK", first, check), DONE);
    first.ip("addr del 10.231.7.2/24 dev eth0");
    const { code, json } = await node.run("CHECK", first, check);
    assert.match(json.msg, /Failed to match addr/);
    assert.deepEqual([code, json.code], [1, 999]); // ptp's own words and code

    Deno.removeSync(node.subnetFile);
    for (const pod of [first, second, first]) {
      assert.deepEqual(
        await node.run("DEL", pod, { conf }),
        DONE,
      );
    }
    assert.deepEqual(node.leftovers(), []);
  },
);

rootTest("several interfaces of a container, one by ptp and one by denim's bridge", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  const ptp = { ifName: "net1", conf: confFor(node, { type: "ptp" }, { name: "othernet" }) };
  await node.succeedAsProcess("ADD", pod, ptp);
  node.succeed("ADD", pod);
  // The record is the bridge's now; ptp's DEL does without.
  assert.deepEqual(await node.run("DEL", pod, ptp), DONE);
  assert.deepEqual(pod.ipJson("link show type veth").map(({ ifname }) => ifname), ["eth0"]);
  assert.ok(answersPing(pod, GATEWAY));
  node.succeed("DEL", pod);
  assert.deepEqual(node.leftovers(), []);
});

rootTest("flannel and denim take down what the other had ptp set up", async () => {
  using node = new PluginNode();
  const [ours, theirs] = [node.pod(), node.pod()];
  const conf = confFor(node, { type: "ptp" });
  await node.succeedAsProcess("ADD", ours, { conf });
  const path = (pod: ScratchNamespace) => `${node.dataDir}/${pod.name}`;
  const record = Deno.readTextFileSync(path(ours));
  const ptp = [debianPlugin("ptp")] as const;
  // flannel's part is the record.
  assert.equal((await node.run("ADD", theirs, { conf: record }, ptp)).code, 0);
  Deno.writeTextFileSync(path(theirs), record);
  assert.deepEqual(await node.run("DEL", ours, { conf: record }, ptp), DONE);
  Deno.removeSync(path(ours));
  assert.deepEqual(await node.run("DEL", theirs, { conf }), DONE);
  assert.deepEqual(node.leftovers(), []);
});

for (const type of ["macvlan", "ipvlan"]) {
  rootTest(`${type} attaches pods to the node's own link, or says why not`, async () => {
    using node = new PluginNode();
    const [first, second] = [node.pod(), node.pod()];
    node.namespace.ip("link add uplink type veth peer name outside");
    for (const link of ["uplink", "outside"]) node.namespace.ip(`link set ${link} up`);
    const before = node.leftovers();
    const conf = confFor(node, { type, master: "uplink" });
    const { code, json } = await node.run("ADD", first, { conf });
    if (type === "ipvlan" && code !== 0) {
      console.log(`    this kernel has no ipvlan: ${json.msg}`);
      assert.match(json.msg, /failed to create ipvlan/);
    } else {
      assert.equal(code, 0, json?.msg);
      await node.succeedAsProcess("ADD", second, { conf });
      assert.equal(first.ipJson("link show eth0")[0].mtu, MTU_BYTES);
      await answer(first, SUBNET.at(3n));
    }
    for (const pod of [first, second]) assert.deepEqual(await node.run("DEL", pod, { conf }), DONE);
    assert.ok(!first.ip("link show").includes("eth0"));
    assert.deepEqual(node.leftovers(), before);
  });
}

rootTest("a delegate runs the user's own ipam", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  const ipam = {
    type: "static",
    addresses: [{ address: "10.231.7.50/24", gateway: "10.231.7.1" }],
  };
  const conf = confFor(node, { type: "ptp" }, { ipam });
  const result = await node.succeedAsProcess("ADD", pod, { conf });
  assert.equal(result.ips[0].address, "10.231.7.50/24");
  assert.deepEqual(node.addressFiles(), []);
  await answer(pod, GATEWAY);
  assert.deepEqual(await node.run("DEL", pod, { conf }), DONE);
});

/** A plugin that keeps what it is handed, and does as the test says. */
class FakePlugin {
  readonly folder: string;
  readonly conf: Record<string, unknown>;

  constructor(
    node: PluginNode,
    delegate: Readonly<Record<string, unknown>> = { type: "fake", mode: "x" },
  ) {
    this.folder = `${node.directory}/bin`;
    this.conf = { ...node.conf(), delegate };
    Deno.mkdirSync(this.folder);
    Deno.writeTextFileSync(
      `${this.folder}/${delegate.type ?? "bridge"}`,
      `#!/bin/sh
cd "$(dirname "$0")"
cat > "$CNI_COMMAND.json"
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS $CNI_PATH" >> calls
if [ -f "$CNI_COMMAND.sh" ]; then . "./$CNI_COMMAND.sh"; fi
`,
      { mode: 0o755 },
    );
    this.on("VERSION", `echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'`);
  }

  /** What it does when it is told a command; nothing, successfully, unless told. */
  on(command: string, script: string): void {
    Deno.writeTextFileSync(`${this.folder}/${command}.sh`, script);
  }

  /** Its variables in each call since the last time. */
  calls(): string[] {
    const path = `${this.folder}/calls`;
    try {
      return Deno.readTextFileSync(path).trim().split("\n").filter((line) => line !== "");
    } finally {
      Deno.writeTextFileSync(path, "");
    }
  }

  /** The commands of the calls. */
  commands(): string[] {
    return this.calls().map((line) => line.split(" ")[0]!);
  }

  /** What it was handed with a command. */
  handed(command: string): Record<string, unknown> {
    return JSON.parse(Deno.readTextFileSync(`${this.folder}/${command}.json`));
  }

  /** What a call of denim says that has it work. */
  call(changes: Readonly<Record<string, unknown>> = {}): CniCall {
    return { cniPath: `/nowhere:${this.folder}`, conf: { ...this.conf, ...changes } };
  }
}

rootTest("a delegate is handed what flannel hands it, and its result is passed on", async () => {
  using node = new PluginNode({ dualStack: true });
  const pod = node.pod(), fake = new FakePlugin(node);
  const result = { cniVersion: "1.1.0", ips: [{ address: "10.231.7.9/24" }] };
  fake.on("ADD", `echo '${JSON.stringify(result)}'`);
  const call = fake.call({ runtimeConfig: { mac: "02:00:00:00:00:01" } });
  const added = await node.run("ADD", pod, { ...call, args: "A=1" });
  assert.deepEqual(added, { code: 0, json: result });
  assert.deepEqual(fake.calls(), [`ADD ${pod.name} eth0 ${pod.path} A=1 ${call.cniPath}`]);
  const handed = {
    cniVersion: "1.1.0",
    name: "testnet",
    type: "fake",
    mode: "x",
    mtu: MTU_BYTES,
    ipMasq: false,
    runtimeConfig: { mac: "02:00:00:00:00:01" },
    ipam: {
      type: "host-local",
      dataDir: `${node.directory}/networks`,
      ranges: [[{ subnet: "10.231.7.0/24" }], [{ subnet: "fc00:231:0:7::/64" }]],
      routes: [{ dst: "10.231.0.0/16" }, { dst: "fc00:231::/48" }],
    },
  };
  assert.deepEqual(fake.handed("ADD"), handed);
  assert.deepEqual(JSON.parse(Deno.readTextFileSync(`${node.dataDir}/${pod.name}`)), handed);
  const env = Deno.readTextFileSync(node.subnetFile);
  Deno.removeSync(node.subnetFile);
  await node.succeedAsProcess("CHECK", pod, fake.call({ prevResult: result }));
  const { runtimeConfig, ...withoutWishes } = handed;
  assert.deepEqual(fake.handed("CHECK"), { ...withoutWishes, runtimeConfig, prevResult: result });
  await node.succeedAsProcess("DEL", pod, fake.call());
  assert.deepEqual(fake.handed("DEL"), handed);
  assert.deepEqual(node.records(), []);
  Deno.writeTextFileSync(node.subnetFile, env.replace("IPMASQ=true", "IPMASQ=false"));
  await node.succeedAsProcess("ADD", pod, fake.call());
  assert.equal(fake.handed("ADD").ipMasq, true);
});

rootTest("a delegate's DEL never sees the node's own namespace", async () => {
  using node = new PluginNode();
  const pod = node.pod(), fake = new FakePlugin(node);
  for (
    const [netns, seen] of [
      [node.namespace.path, ""],
      ["/etc/hostname", ""],
      ["/run/netns/nobody", "/run/netns/nobody"],
      [pod.path, pod.path],
    ] as const
  ) {
    await node.succeedAsProcess("ADD", pod, fake.call());
    fake.calls();
    assert.deepEqual(await node.run("DEL", pod, { ...fake.call(), netns }), DONE);
    assert.equal(fake.calls()[0]!.split(" ")[3], seen);
    assert.deepEqual(node.leftovers(), []);
  }
  // And what there is to lose with ptp.
  const conf = confFor(node, { type: "ptp" });
  await node.succeedAsProcess("ADD", pod, { conf });
  node.namespace.ip("link add eth0 type veth peer name eth1");
  assert.deepEqual(await node.run("DEL", pod, { conf, netns: node.namespace.path }), DONE);
  assert.deepEqual([node.addressFiles(), node.records()], [[], []]);
  assert.equal(node.namespace.ipJson("link show eth0").length, 1);
});

rootTest("an ADD that fails in the delegate is undone, and its error passed on", async () => {
  using node = new PluginNode();
  const pod = node.pod(), fake = new FakePlugin(node);
  const error = { cniVersion: "1.1.0", code: 77, msg: "no such luck", details: "none", more: [1] };
  fake.on("ADD", `echo '${JSON.stringify(error)}'; exit 3`);
  assert.deepEqual(await node.run("ADD", pod, fake.call()), { code: 1, json: error });
  assert.deepEqual([fake.commands(), node.records()], [["ADD", "DEL"], []]);

  fake.on("ADD", "echo oops; exit 3");
  const { json } = await node.run("ADD", pod, fake.call());
  assert.match(json.msg, /\/fake, run for ADD, exited with 3 and printed "oops\\n", which is not/);
  assert.equal(json.code, 104);
  fake.on("ADD", "kill -9 $$");
  assert.match(
    (await node.run("ADD", pod, fake.call())).json.msg,
    /died of SIGKILL and printed no/,
  );

  // Where it can't be undone, the record stays for the runtime's DEL.
  fake.on("DEL", "exit 1");
  await node.run("ADD", pod, fake.call());
  assert.deepEqual(node.records(), [pod.name]);
  assert.equal((await node.run("DEL", pod, fake.call())).code, 1);
  fake.on("DEL", "");
  assert.deepEqual(await node.run("DEL", pod, fake.call()), DONE);
  assert.deepEqual(node.records(), []);
});

rootTest(
  "a delegate of another version leaves nothing that the next DEL would stumble over",
  async () => {
    using node = new PluginNode();
    const pod = node.pod();
    const conf = { ...node.conf(), delegate: { type: "ptp" } };
    const { json } = await node.run("ADD", pod, { conf });
    assert.match(json.msg, /incompatible CNI versions/);
    assert.deepEqual(node.leftovers(), []);
    assert.deepEqual(await node.run("DEL", pod, { conf }), DONE);
  },
);

rootTest("a failed ADD leaves the container's other interface and its record alone", async () => {
  using node = new PluginNode();
  const pod = node.pod(), fake = new FakePlugin(node);
  node.succeed("ADD", pod);
  const record = () => Deno.readTextFileSync(`${node.dataDir}/${pod.name}`);
  const before = record();
  // The same interface again: the delegate would undo what the first ADD made.
  const { json } = await node.run("ADD", pod, fake.call());
  assert.match(json.msg, /has an interface eth0 already/);
  fake.on("ADD", "exit 1");
  await node.run("ADD", pod, { ...fake.call(), ifName: "eth1" });
  assert.deepEqual(fake.commands(), ["ADD", "DEL"]);
  assert.equal(record(), before);
});

rootTest("the bridge plugin does what denim's own bridge can't, for all commands", async () => {
  using node = new PluginNode();
  const pod = node.pod(), fake = new FakePlugin(node, { vlan: 5, comment: "the office" });
  const result = { cniVersion: "1.1.0", ips: [{ address: "10.231.7.9/24" }] };
  fake.on("ADD", `echo '${JSON.stringify(result)}'`);
  assert.deepEqual(await node.run("STATUS", pod, fake.call()), DONE);
  assert.deepEqual(await node.run("ADD", pod, fake.call()), { code: 0, json: result });
  assert.deepEqual(fake.commands(), ["VERSION", "STATUS", "ADD"]);
  const { type, vlan, comment, isGateway, ipMasq, mtu } = fake.handed("ADD");
  assert.deepEqual(
    { type, vlan, comment, isGateway, ipMasq, mtu },
    {
      type: "bridge",
      vlan: 5,
      comment: "the office",
      isGateway: true,
      ipMasq: false,
      mtu: MTU_BYTES,
    },
  );
  await node.succeedAsProcess("CHECK", pod, fake.call({ prevResult: result }));
  await node.succeedAsProcess("DEL", pod, fake.call());
  // Without a record too, and without subnet.env nothing is left to ask for.
  await node.succeedAsProcess("DEL", pod, fake.call());
  assert.deepEqual(fake.commands(), ["CHECK", "DEL", "DEL"]);
  // The record of an ADD that nothing else is left of: GC asks the plugin, and frees the address itself.
  await node.succeedAsProcess("ADD", pod, fake.call());
  Deno.mkdirSync(node.addressDirectory, { recursive: true });
  Deno.writeTextFileSync(`${node.addressDirectory}/10.231.7.9`, `${pod.name}\r\neth0`);
  node.age();
  fake.commands();
  const none = { "cni.dev/valid-attachments": [] };
  assert.deepEqual(await node.run("GC", pod, fake.call(none)), DONE);
  assert.deepEqual([fake.commands(), node.leftovers()], [["VERSION", "GC"], []]);
});

rootTest("what denim's bridge can't is refused without the bridge plugin", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  for (
    const [changes, message] of [
      [{ delegate: { macspoofchk: true } }, /^delegate\.macspoofchk is true, which denim does not/],
      [{ ipam: { type: "static" } }, /^delegate\.ipam\.type is "static", which denim does not/],
      [
        { runtimeConfig: { ipRanges: [[{ subnet: "10.9.0.0/24" }]] } },
        /^delegate\.runtimeConfig\.ipRanges is .* which denim does not/,
      ],
    ] as const
  ) {
    const call = { cniPath: "/nowhere", conf: node.conf(changes) };
    const { json } = await node.run("ADD", pod, call);
    assert.match(json.msg, message);
    assert.match(json.msg, /the "bridge" plugin does, and is not in CNI_PATH=\/nowhere: install/);
    assert.equal(json.code, 2);
    assert.equal((await node.run("STATUS", pod, call)).json.code, 50);
    assert.deepEqual(node.leftovers(), []);
    // A runtime takes down what it failed to set up.
    assert.deepEqual(await node.run("DEL", pod, call), DONE);
  }
});

rootTest(
  "Debian's bridge serves a second range; denim takes down what it left",
  async () => {
    using node = new PluginNode();
    const [pod, other] = [node.pod(), node.pod()];
    const ipam = { subnet: "10.231.8.0/24", dataDir: `${node.directory}/networks` };
    const conf = node.conf({ cniVersion: "1.0.0", ipam, delegate: { isGateway: false } });
    const result = await node.succeedAsProcess("ADD", pod, { conf });
    await node.succeedAsProcess("ADD", other, { conf });
    assert.deepEqual(
      result.ips.map(({ address }: { address: string }) => address),
      ["10.231.8.2/24", "10.231.7.2/24"],
    );
    await answer(pod, SUBNET.at(3n), IpAddress.parse("10.231.8.3"));
    // For the agent, as on denim's own bridge.
    assert.equal(node.namespace.ipJson("link show cni0")[0].ifalias, "denim: isGateway is false");
    await node.succeedAsProcess("DEL", pod, { conf });
    // The plugin is uninstalled meanwhile.
    await node.succeedAsProcess("DEL", other, { conf, cniPath: "/nowhere" });
    assert.deepEqual(node.leftovers(), []);
  },
);

/** Calls without the delegate, and what they say. */
const MISSING: readonly [string, CniCall, string, number, RegExp][] = [
  [
    "ADD",
    { cniPath: "/nowhere" },
    "fake",
    7,
    /"fake", and there is no such plugin in CNI_PATH=\/no/,
  ],
  ["ADD", { cniPath: "" }, "fake", 4, /CNI_PATH missing in the environment: .* "fake"/],
  ["ADD", {}, "../fake", 7, /delegate\.type is "\.\.\/fake"; it must be a plugin's name/],
  ["STATUS", { cniPath: "/nowhere" }, "fake", 50, /there is no such plugin in CNI_PATH=\/nowhere/],
  ["STATUS", {}, "ptp", 50, /ptp speaks CNI .*1\.0\.0, not the network's cniVersion "1\.1\.0"/],
];
for (const [command, call, type, code, message] of MISSING) {
  rootTest(`${command} says so if the delegate ${type} won't do: ${code}`, async () => {
    using node = new PluginNode();
    const pod = node.pod();
    const conf = { ...node.conf(), delegate: { type } };
    const { json } = await node.run(command, pod, { ...call, conf });
    assert.match(json.msg, message);
    assert.equal(json.code, code);
    assert.deepEqual(node.leftovers(), []);
    // A runtime takes down what it failed to set up.
    assert.deepEqual(await node.run("DEL", pod, { ...call, conf }), DONE);
  });
}

rootTest("STATUS asks the delegate", async () => {
  using node = new PluginNode();
  const pod = node.pod(), fake = new FakePlugin(node);
  assert.deepEqual(await node.run("STATUS", pod, fake.call()), DONE);
  assert.deepEqual(fake.handed("STATUS").type, "fake");
  const error = { cniVersion: "1.1.0", code: 51, msg: "limited" };
  fake.on("STATUS", `echo '${JSON.stringify(error)}'; exit 1`);
  assert.deepEqual(await node.run("STATUS", pod, fake.call()), { code: 1, json: error });
});

rootTest("GC has the delegate free its own, and keeps the record if it fails", async () => {
  using node = new PluginNode();
  const [valid, gone] = [node.pod(), node.pod()], fake = new FakePlugin(node);
  for (const pod of [valid, gone]) await node.succeedAsProcess("ADD", pod, fake.call());
  node.age();
  const attachments = {
    "cni.dev/valid-attachments": [{ containerID: valid.name, ifname: "eth0" }],
  };
  const error = { cniVersion: "1.1.0", code: 5, msg: "the disk" };
  fake.on("GC", `echo '${JSON.stringify(error)}'; exit 1`);
  assert.deepEqual(await node.run("GC", valid, fake.call(attachments)), { code: 1, json: error });
  assert.deepEqual(node.records(), [valid.name, gone.name].sort());
  fake.on("GC", "");
  // The records say what subnet.env did.
  Deno.removeSync(node.subnetFile);
  assert.deepEqual(await node.run("GC", valid, fake.call(attachments)), DONE);
  assert.deepEqual(
    fake.handed("GC"),
    { ...JSON.parse(Deno.readTextFileSync(`${node.dataDir}/${valid.name}`)), ...attachments },
  );
  assert.deepEqual(node.records(), [valid.name]);
});

rootTest("GC passes a delegate by that does not know it, and frees the record", async () => {
  using node = new PluginNode();
  const pod = node.pod(), fake = new FakePlugin(node);
  await node.succeedAsProcess("ADD", pod, fake.call());
  node.age();
  fake.on("VERSION", `echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0"]}'`);
  fake.commands();
  const none = { "cni.dev/valid-attachments": [] };
  assert.deepEqual(await node.run("GC", pod, fake.call(none)), DONE);
  assert.deepEqual([fake.commands(), node.records()], [["VERSION"], []]);
});

/** Has a delegate's ADD begin, and wait until it is told to go on. */
async function beginAdd(node: PluginNode, pod: ScratchNamespace, fake: FakePlugin) {
  new Deno.Command("mkfifo", { args: [`${fake.folder}/fifo`] }).outputSync();
  // Once the script is at work the shell has all of it: another may be put in its place.
  fake.on("ADD", ": > begun; read -r line < fifo; echo ADDED >> calls");
  const adding = await node.start("ADD", pod, fake.call());
  await eventually("the delegate works", () => existsSync(`${fake.folder}/begun`));
  return { adding, goOn: () => Deno.writeTextFile(`${fake.folder}/fifo`, "go\n") };
}

rootTest("a GC beside a delegated ADD waits for it, and leaves it alone", async () => {
  using node = new PluginNode();
  const [pod, gone] = [node.pod(), node.pod()], fake = new FakePlugin(node);
  await node.succeedAsProcess("ADD", gone, fake.call());
  fake.commands();
  const { adding, goOn } = await beginAdd(node, pod, fake);
  node.age();
  const none = { "cni.dev/valid-attachments": [] };
  const collecting = node.run("GC", pod, fake.call(none));
  await eventually("GC waits", () => waiting(`${node.dataDir}/.lock`) === 1);
  await goOn();
  assert.ok((await adding.output()).success);
  assert.deepEqual(await collecting, DONE);
  assert.deepEqual(fake.commands(), ["ADD", "ADDED"]);
  assert.deepEqual(node.records(), [pod.name, gone.name].sort());
  node.age();
  const rest = { "cni.dev/valid-attachments": [attachment(pod)] };
  assert.deepEqual(await node.run("GC", pod, fake.call(rest)), DONE);
  assert.deepEqual(node.records(), [pod.name]);
});

for (const command of ["DEL", "GC", "ADD"]) {
  rootTest(`denim killed over a delegated ADD: ${command} waits until it has ended`, async () => {
    using node = new PluginNode();
    const pod = node.pod(), fake = new FakePlugin(node);
    const { adding, goOn } = await beginAdd(node, pod, fake);
    adding.kill("SIGKILL");
    assert.equal((await adding.output()).signal, "SIGKILL");
    fake.on("ADD", "");
    node.age();
    const none = { "cni.dev/valid-attachments": [] };
    const next = node.run(command, pod, fake.call(command === "GC" ? none : {}));
    await eventually(`${command} waits`, () => waiting(`${node.dataDir}/${pod.name}`) === 1);
    await goOn();
    assert.equal((await next).code, 0);
    const asked = command === "GC" ? ["VERSION", "GC"] : [command];
    assert.deepEqual(fake.commands(), ["ADD", "ADDED", ...asked]);
    if (command === "ADD") assert.deepEqual(await node.run("DEL", pod, fake.call()), DONE);
    assert.deepEqual(node.leftovers(), []);
  });
}
