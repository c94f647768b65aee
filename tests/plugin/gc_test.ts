import assert from "node:assert/strict";
import { hostInterfaceName } from "../../plugin/bridge.ts";
import { rootTest } from "../support/root_test.ts";
import type { ScratchNamespace } from "../support/scratch_namespace.ts";
import { eventually } from "../support/wait.ts";
import {
  answersPing,
  attachment,
  DONE,
  GATEWAY,
  PLUGIN,
  PluginNode,
  waiting,
} from "./plugin_node.ts";

rootTest("GC frees what vanished containers held, and touches nothing else", async () => {
  using node = new PluginNode({ dualStack: true });
  const [valid, vanished, lingering, stranger] = Array.from({ length: 4 }, () => node.pod()) as [
    ScratchNamespace,
    ScratchNamespace,
    ScratchNamespace,
    ScratchNamespace,
  ];
  for (const pod of [valid, vanished, lingering]) node.succeed("ADD", pod);
  node.succeed("ADD", valid, { ifName: "eth1" });
  // Another network on the same bridge, and files that are nobody's.
  node.succeed("ADD", stranger, { conf: node.conf({ name: "othernet" }) });
  const foreign = `${node.directory}/networks/othernet`;
  const othernet = () => [...Deno.readDirSync(foreign)].map(({ name }) => name).sort();
  const before = othernet();
  Deno.writeTextFileSync(`${node.addressDirectory}/10.231.7.99`, "");
  Deno.writeTextFileSync(`${node.addressDirectory}/notes`, "old\r\neth0");
  Deno.writeTextFileSync(`${node.addressDirectory}/10.231.7.98`, "old-host-local");
  Deno.writeTextFileSync(`${node.addressDirectory}/.draft`, "killed");
  Deno.writeTextFileSync(`${node.dataDir}/cut`, '{"name":"testnet');
  Deno.writeTextFileSync(`${node.dataDir}/killed:eth0`, '{"name":"testnet');
  vanished.ip("link del eth0"); // as it goes with the namespace
  node.age();
  assert.deepEqual(await node.gc([attachment(valid)]), DONE);
  const veth = (pod: ScratchNamespace) =>
    hostInterfaceName({ containerId: pod.name, ifName: "eth0" });
  assert.deepEqual(node.addressFiles(), ["10.231.7.2", "fc00:231:0:7::2", "notes"]);
  assert.deepEqual(node.records(), [valid.name, stranger.name, "cut"].sort());
  assert.deepEqual(node.veths().sort(), [veth(valid), veth(stranger)].sort());
  assert.deepEqual(othernet(), before);
  assert.ok(answersPing(valid, GATEWAY) && answersPing(stranger, GATEWAY));
  // Again, and with nobody left.
  assert.deepEqual(await node.gc([attachment(valid)]), DONE);
  assert.deepEqual(await node.gc(null), DONE);
  assert.deepEqual(node.addressFiles(), ["notes"]);
  assert.deepEqual(node.records(), [stranger.name, "cut"].sort());
});

rootTest("GC frees an address that names nobody, but not a living pod's", async () => {
  using node = new PluginNode({ dualStack: true });
  const pods = [node.pod(), node.pod()];
  for (const pod of pods) node.succeed("ADD", pod);
  const cut = (name: string) => Deno.writeTextFileSync(`${node.addressDirectory}/${name}`, "");
  cut("10.231.7.3"); // the second pod's
  cut("10.231.7.99");
  cut("fc00:231:0:7::99");
  const collect = async (valid: readonly ScratchNamespace[]) => {
    node.age();
    assert.deepEqual(await node.gc(valid.map((pod) => attachment(pod))), DONE);
    return node.addressFiles();
  };
  // The IPv4 ones may be the second pod's. An IPv6 address both have.
  assert.deepEqual(await collect(pods), [
    "10.231.7.2",
    "10.231.7.3",
    "10.231.7.99",
    "fc00:231:0:7::2",
    "fc00:231:0:7::3",
  ]);
  node.succeed("DEL", pods[1]!);
  // It may be a pod's that the runtime's list is too old to have.
  cut("10.231.7.98");
  const soon = new Date(Date.now() + 60_000);
  Deno.utimeSync(`${node.addressDirectory}/10.231.7.98`, soon, soon);
  assert.deepEqual(await node.gc([attachment(pods[0]!)]), DONE);
  assert.deepEqual(node.addressFiles(), ["10.231.7.2", "10.231.7.98", "fc00:231:0:7::2"]);
  assert.deepEqual(await collect([pods[0]!]), ["10.231.7.2", "fc00:231:0:7::2"]);
});

rootTest("GC works without subnet.env, and if there was never a pod", async () => {
  using node = new PluginNode();
  assert.deepEqual(await node.gc([]), DONE);
  const pod = node.pod();
  node.succeed("ADD", pod);
  node.age();
  Deno.removeSync(node.subnetFile);
  assert.deepEqual(await node.gc([]), DONE);
  assert.deepEqual(node.leftovers(), []);
});

rootTest("GC leaves a derived name alone that is not a port of the network's bridge", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  node.succeed("ADD", pod);
  node.namespace.ip(`link set ${node.veths()[0]} nomaster`);
  node.age();
  await node.gc([]);
  assert.equal(node.veths().length, 1);
});

rootTest("an ADD beside a GC keeps what it makes", async () => {
  using node = new PluginNode();
  const pods = Array.from({ length: 4 }, () => node.pod());
  Deno.mkdirSync(node.addressDirectory, { recursive: true });
  // Whoever wants an address waits.
  const lock = Deno.openSync(`${node.addressDirectory}/lock`, { write: true, create: true });
  lock.lockSync(true);
  const adding = pods.map((pod) => node.run("ADD", pod));
  await eventually("the ADDs wait", () => waiting(`${node.addressDirectory}/lock`) === 4);
  const collecting = node.gc([]);
  await eventually("GC waits for them", () => waiting(`${node.dataDir}/.lock`) === 1);
  lock.close();
  for (const { code, json } of await Promise.all(adding)) assert.equal(code, 0, json?.msg);
  assert.deepEqual(await collecting, DONE);
  assert.equal(node.addressFiles().length, 4);
  assert.equal(node.records().length, 4);
  for (const pod of pods) assert.ok(answersPing(pod, GATEWAY));
});

rootTest("a GC that takes long to begin keeps what came after its runtime's list", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  const go = `${node.directory}/go`;
  const conf = { ...node.conf(), "cni.dev/valid-attachments": [] };
  const slow = ["sh", "-c", `until [ -e ${go} ]; do sleep 0.01; done; exec "$@"`, "sh"] as const;
  const collecting = await node.start("GC", node.namespace, { conf }, [...slow, ...PLUGIN]);
  await node.succeedAsProcess("ADD", pod);
  Deno.writeTextFileSync(go, "");
  assert.equal((await collecting.output()).code, 0);
  assert.equal(node.addressFiles().length, 1);
  assert.ok(answersPing(pod, GATEWAY));
});
