/**
 * denim beside the plugins that it replaces, as Debian's containernetworking-plugins has them.
 *
 * @module
 */

import assert from "node:assert/strict";
import { debianPlugin } from "../support/debian_plugins.ts";
import { rootTest } from "../support/root_test.ts";
import { sh } from "../support/sh.ts";
import type { ScratchNamespace } from "../support/scratch_namespace.ts";
import { answersPing, type CniAnswer, type CniCall, GATEWAY, PluginNode } from "./plugin_node.ts";

/** The node's configuration as flannel would hand it on: Debian's plugins speak 1.0.0 at most. */
function delegated(node: PluginNode): Record<string, unknown> {
  const pod = node.pod();
  node.succeed("ADD", pod, { conf: node.conf({ cniVersion: "1.0.0" }) });
  const record = JSON.parse(Deno.readTextFileSync(`${node.dataDir}/${pod.name}`));
  node.succeed("DEL", pod);
  return record;
}

function other(
  plugin: "bridge" | "host-local",
  node: PluginNode,
  command: string,
  pod: ScratchNamespace,
  call: CniCall,
): Promise<CniAnswer["json"]> {
  return node.succeedAsProcess(command, pod, call, [debianPlugin(plugin)]);
}

rootTest("denim and host-local give addresses in turn, and free each other's", async () => {
  using node = new PluginNode({ dualStack: true });
  const conf = delegated(node); // took .2 and gave it back
  const pods = Array.from({ length: 4 }, () => node.pod());
  const given: string[] = [];
  for (const [index, pod] of pods.entries()) {
    const json = index % 2 === 0
      ? await other("host-local", node, "ADD", pod, { conf })
      : node.succeed("ADD", pod);
    given.push(...json.ips.map(({ address }: { address: string }) => address.split("/")[0]));
  }
  assert.deepEqual(given, [
    ...["10.231.7.3", "fc00:231:0:7::3", "10.231.7.4", "fc00:231:0:7::4"],
    ...["10.231.7.5", "fc00:231:0:7::5", "10.231.7.6", "fc00:231:0:7::6"],
  ]);
  assert.deepEqual(node.addressFiles(), given.toSorted());
  // Each takes down what the other gave.
  for (const [index, pod] of pods.entries()) {
    if (index % 2 === 0) node.succeed("DEL", pod);
    else await other("host-local", node, "DEL", pod, { conf });
  }
  assert.deepEqual(node.addressFiles(), []);
});

rootTest("host-local and denim wait for the same lock", async () => {
  using node = new PluginNode();
  const conf = delegated(node);
  const pods = Array.from({ length: 16 }, () => node.pod());
  const answers = await Promise.all(
    pods.map((pod, index) =>
      index % 2 === 0 ? other("host-local", node, "ADD", pod, { conf }) : node.run("ADD", pod)
    ),
  );
  const addresses = answers.map((answer) => (answer.json ?? answer).ips[0].address.split("/")[0]);
  assert.equal(new Set(addresses).size, 16);
  assert.deepEqual(node.addressFiles(), addresses.toSorted());
});

rootTest("denim takes down what flannel's chain set up", async () => {
  using node = new PluginNode();
  const conf = delegated(node);
  const [pod, neighbour] = [node.pod(), node.pod()];
  await other("bridge", node, "ADD", pod, { conf });
  // flannel's own part of an ADD.
  Deno.writeTextFileSync(`${node.dataDir}/${pod.name}`, JSON.stringify(conf));
  node.succeed("ADD", neighbour);
  assert.ok(answersPing(pod, GATEWAY) && answersPing(neighbour, GATEWAY));
  node.succeed("DEL", neighbour);
  node.succeed("DEL", pod);
  assert.deepEqual(node.leftovers(), []);
});

rootTest("denim has the bridge plugin take down what masquerades", async () => {
  using node = new PluginNode();
  const conf = { ...delegated(node), ipMasq: true };
  const pod = node.pod();
  const rules = () => node.namespace.run(() => sh("iptables-save -t nat"));
  await other("bridge", node, "ADD", pod, { conf });
  Deno.writeTextFileSync(`${node.dataDir}/${pod.name}`, JSON.stringify(conf));
  assert.match(rules(), /MASQUERADE/);
  await node.succeedAsProcess("DEL", pod);
  assert.doesNotMatch(rules(), /MASQUERADE/);
  assert.deepEqual(node.leftovers(), []);
});

rootTest("flannel's chain takes down what denim set up", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  node.succeed("ADD", pod, { conf: node.conf({ cniVersion: "1.0.0" }) });
  const conf = JSON.parse(Deno.readTextFileSync(`${node.dataDir}/${pod.name}`));
  await other("bridge", node, "DEL", pod, { conf });
  assert.deepEqual(node.leftovers(), [pod.name]); // which flannel then removes
});

rootTest(
  "pods of flannel's chain live on beside denim's, whose network has another name",
  async () => {
    using node = new PluginNode();
    const conf = { ...delegated(node), name: "cbr0" };
    const [pod, denims] = [node.pod(), node.pod()];
    const { ips: [held] } = await other("bridge", node, "ADD", pod, { conf });
    Deno.writeTextFileSync(`${node.dataDir}/${pod.name}`, JSON.stringify(conf));
    Deno.removeSync(`${node.addressDirectory}/last_reserved_ip.0`);
    const { ips: [given] } = node.succeed("ADD", denims);
    assert.deepEqual([held.address, given.address], ["10.231.7.2/24", "10.231.7.3/24"]);
    assert.ok(answersPing(pod, GATEWAY) && answersPing(denims, GATEWAY));
    // The runtime has forgotten flannel's network: it has denim take its pod down.
    node.succeed("DEL", pod);
    assert.throws(
      () => Deno.statSync(`${node.directory}/networks/cbr0/10.231.7.2`),
      Deno.errors.NotFound,
    );
    assert.deepEqual(node.addressFiles(), ["10.231.7.3"]);
    node.succeed("DEL", denims);
    assert.deepEqual(node.leftovers(), []);
  },
);

rootTest(
  "a bridge that Docker gave the gateway's address is named, or is the pods' by its name",
  () => {
    using node = new PluginNode();
    const pod = node.pod();
    node.namespace.ip("link add docker0 type bridge");
    node.namespace.ip(`addr add ${GATEWAY}/24 dev docker0`);
    node.namespace.ip("link set docker0 up");
    const { code, json } = node.call("ADD", pod);
    assert.equal(code, 1);
    assert.match(
      json.msg,
      /the bridge docker0 has .* 10\.231\.7\.1\/24, .* ip addr del 10\.231\.7\.1\/24 dev docker0 .*delegate\.bridge/,
    );
    assert.deepEqual([node.addressFiles(), node.records()], [[], []]);
    assert.deepEqual(pod.ipJson("link show type veth"), []);
    const conf = node.conf({ delegate: { bridge: "docker0" } });
    node.succeed("ADD", pod, { conf });
    assert.ok(answersPing(pod, GATEWAY));
    node.succeed("DEL", pod, { conf });
    node.namespace.ip(`addr del ${GATEWAY}/24 dev docker0`);
    node.succeed("ADD", pod);
  },
);
