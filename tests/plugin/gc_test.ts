import assert from "node:assert/strict";
import { hostInterfaceName } from "../../plugin/bridge.ts";
import { rootTest } from "../support/root_test.ts";
import type { ScratchNamespace } from "../support/scratch_namespace.ts";
import { eventually } from "../support/wait.ts";
import { answersPing, type CniAnswer, GATEWAY, PluginNode } from "./plugin_node.ts";

interface ValidAttachment {
  readonly containerID: string;
  readonly ifname: string;
}

const attachment = ({ name }: ScratchNamespace, ifname = "eth0"): ValidAttachment => ({
  containerID: name,
  ifname,
});

function gc(node: PluginNode, valid: readonly ValidAttachment[] | null): Promise<CniAnswer> {
  const conf = { ...node.conf(), "cni.dev/valid-attachments": valid };
  return node.run("GC", node.pod(), { conf });
}

const DONE = { code: 0, json: undefined };

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
  assert.deepEqual(await gc(node, [attachment(valid)]), DONE);
  const veth = (pod: ScratchNamespace) =>
    hostInterfaceName({ containerId: pod.name, ifName: "eth0" });
  assert.deepEqual(node.addressFiles(), [
    "10.231.7.2",
    "10.231.7.99",
    "fc00:231:0:7::2",
    "notes",
  ]);
  assert.deepEqual(node.records(), [valid.name, stranger.name, "cut"].sort());
  assert.deepEqual(node.veths().sort(), [veth(valid), veth(stranger)].sort());
  assert.deepEqual(othernet(), before);
  assert.ok(answersPing(valid, GATEWAY) && answersPing(stranger, GATEWAY));
  // Again, and with nobody left.
  assert.deepEqual(await gc(node, [attachment(valid)]), DONE);
  assert.deepEqual(await gc(node, null), DONE);
  assert.deepEqual(node.addressFiles(), ["10.231.7.99", "notes"]);
  assert.deepEqual(node.records(), [stranger.name, "cut"].sort());
});

rootTest("GC works without subnet.env, and where there was never a pod", async () => {
  using node = new PluginNode();
  assert.deepEqual(await gc(node, []), DONE);
  const pod = node.pod();
  node.succeed("ADD", pod);
  node.age();
  Deno.removeSync(node.subnetFile);
  assert.deepEqual(await gc(node, []), DONE);
  assert.deepEqual(node.leftovers(), []);
});

rootTest("GC leaves a derived name alone that is no port of the network's bridge", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  node.succeed("ADD", pod);
  node.namespace.ip(`link set ${node.veths()[0]} nomaster`);
  node.age();
  await gc(node, []);
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
  const collecting = gc(node, []);
  await eventually("GC waits for them", () => waiting(`${node.dataDir}/.lock`) === 1);
  lock.close();
  for (const { code, json } of await Promise.all(adding)) assert.equal(code, 0, json?.msg);
  assert.deepEqual(await collecting, DONE);
  assert.equal(node.addressFiles().length, 4);
  assert.equal(node.records().length, 4);
  for (const pod of pods) assert.ok(answersPing(pod, GATEWAY));
});

/** How many wait for a file's lock (proc_locks(5)). */
function waiting(path: string): number {
  let inode: number | null;
  try {
    inode = Deno.statSync(path).ino;
  } catch {
    return 0;
  }
  return Deno.readTextFileSync("/proc/locks").split("\n")
    .filter((line) => line.includes("->") && line.includes(`:${inode} `)).length;
}

rootTest("plugins killed at random moments: the next DEL or GC puts it right", async () => {
  using node = new PluginNode({ dualStack: true });
  const [survivor] = [node.pod()];
  node.succeed("ADD", survivor!);
  const before = node.leftovers();
  let cutOff = 0;
  for (let round = 0; round < 24; round++) {
    const pod = node.pod();
    const killed = round % 3 === 2 ? "DEL" : "ADD";
    if (killed === "DEL") node.succeed("ADD", pod);
    const plugin = await node.start(killed, pod);
    // Starting up takes Deno about 20 ms, and the work 10 more.
    const timer = setTimeout(() => kill(plugin), 15 + Math.random() * 30);
    const { signal } = await plugin.output();
    clearTimeout(timer);
    if (signal === "SIGKILL") cutOff++;
    if (round % 2 === 0) {
      const { code, json } = await node.run("DEL", pod);
      assert.equal(code, 0, json?.msg);
    } else {
      node.age();
      assert.deepEqual(await gc(node, [attachment(survivor!)]), DONE);
    }
    assert.deepEqual(node.leftovers(), before, `round ${round}`);
  }
  assert.ok(cutOff > 0, "no plugin was killed in time");
  const next = node.pod();
  node.succeed("ADD", next);
  assert.ok(answersPing(next, GATEWAY) && answersPing(survivor!, GATEWAY));
});

function kill(plugin: Deno.ChildProcess): void {
  try {
    plugin.kill("SIGKILL");
  } catch {
    // It was faster.
  }
}
