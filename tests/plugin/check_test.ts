import assert from "node:assert/strict";
import { hostInterfaceName } from "../../plugin/bridge.ts";
import { debianPlugin } from "../support/debian_plugins.ts";
import { rootTest } from "../support/root_test.ts";
import type { ScratchNamespace } from "../support/scratch_namespace.ts";
import { type CniAnswer, DONE, PluginNode } from "./plugin_node.ts";

function check(
  node: PluginNode,
  pod: ScratchNamespace,
  prevResult: unknown,
  changes: Readonly<Record<string, unknown>> = {},
): Promise<CniAnswer> {
  return node.run("CHECK", pod, { conf: { ...node.conf(changes), prevResult } });
}

for (const cniVersion of ["0.4.0", "1.0.0", "1.1.0"]) {
  rootTest(`CHECK finds all that ADD made, in ${cniVersion}`, async () => {
    using node = new PluginNode({ dualStack: true });
    const pod = node.pod();
    const conf = { cniVersion, delegate: { isDefaultGateway: true, promiscMode: true } };
    const route = { dst: "10.9.0.0/16", gw: "10.231.7.9", table: 1000 };
    const ipam = { routes: [route] };
    const result = node.succeed("ADD", pod, { conf: node.conf({ ...conf, ipam }) });
    assert.deepEqual(await check(node, pod, result, conf), DONE);
    // Without the record, what an ADD would make now counts.
    Deno.removeSync(`${node.dataDir}/${pod.name}`);
    assert.deepEqual(await check(node, pod, result, { ...conf, ipam }), DONE);
  });
}

/** What is broken, how, and what CHECK says. */
const BROKEN: readonly [string, (node: PluginNode, pod: ScratchNamespace) => void, RegExp][] = [
  [
    "the pod's address",
    (_, pod) => pod.ip("addr del 10.231.7.2/24 dev eth0"),
    /^eth0 lacks the address 10\.231\.7\.2\/24; .*the route to 10\.231\.0\.0\/16 .* is gone$/,
  ],
  [
    "the pod's IPv6 address",
    (_, pod) => pod.ip("addr del fc00:231:0:7::2/64 dev eth0"),
    /^eth0 lacks the address fc00:231:0:7::2\/64/,
  ],
  [
    "the pod's route",
    (_, pod) => pod.ip("route del 10.231.0.0/16"),
    /^the route to 10\.231\.0\.0\/16 via 10\.231\.7\.1 by eth0 is gone$/,
  ],
  [
    "the route, for one by another way",
    (_, pod) => pod.ip("route replace 10.231.0.0/16 via 10.231.7.77"),
    /^the route to 10\.231\.0\.0\/16 via 10\.231\.7\.1 by eth0 is gone$/,
  ],
  [
    "a route of another table",
    (_, pod) => pod.ip("route flush table 1000"),
    /^the route to 10\.9\.0\.0\/16 via 10\.231\.7\.9 by eth0 is gone$/,
  ],
  ["the veth pair", (_, pod) => pod.ip("link del eth0"), /^eth0 in .* is gone; veth.* is gone$/],
  [
    "the node's end in the bridge",
    (node) => node.namespace.ip(`link set ${node.veths()[0]} nomaster`),
    /^veth\w+ is not a port of cni0$/,
  ],
  [
    "the node's end up",
    (node) => node.namespace.ip(`link set ${node.veths()[0]} down`),
    /^veth\w+ is down$/,
  ],
  ["the pod's interface up", (_, pod) => pod.ip("link set eth0 down"), /^eth0 in .* is down; /],
  [
    "the pod's Ethernet address",
    (_, pod) => pod.ip("link set eth0 address 02:00:00:00:00:09"),
    /^eth0 in .* has the Ethernet address 02:00:00:00:00:09, not /,
  ],
  [
    "the pod's MTU",
    (_, pod) => pod.ip("link set eth0 mtu 1400"),
    /^eth0 in .* has an MTU of 1400, not 1450$/,
  ],
  [
    "the bridge",
    (node) => node.namespace.ip("link del cni0"),
    /^the bridge cni0 is gone$/,
  ],
  ["the bridge up", (node) => node.namespace.ip("link set cni0 down"), /^cni0 is down; /],
  [
    "the gateway's address",
    (node) => node.namespace.ip("addr del 10.231.7.1/24 dev cni0"),
    /^cni0 lacks the address 10\.231\.7\.1\/24$/,
  ],
  [
    "forwarding",
    (node) =>
      node.namespace.run(() => Deno.writeTextFileSync("/proc/sys/net/ipv4/ip_forward", "0")),
    /^the node does not forward: net\/ipv4\/ip_forward is 0$/,
  ],
  [
    "the address file",
    (node) => Deno.removeSync(`${node.addressDirectory}/10.231.7.2`),
    /\/testnet\/10\.231\.7\.2 is gone, or names another container: 10\.231\.7\.2 is not reserved$/,
  ],
  [
    "the address file, for another's",
    (node) => Deno.writeTextFileSync(`${node.addressDirectory}/10.231.7.2`, "other\r\neth0"),
    /10\.231\.7\.2 is not reserved$/,
  ],
];
for (const [what, breakIt, message] of BROKEN) {
  rootTest(`CHECK misses ${what}`, async () => {
    using node = new PluginNode({ dualStack: true });
    const pod = node.pod();
    const ipam = { routes: [{ dst: "10.9.0.0/16", gw: "10.231.7.9", table: 1000 }] };
    const result = node.succeed("ADD", pod, { conf: node.conf({ ipam }) });
    breakIt(node, pod);
    const { code, json } = await check(node, pod, result);
    assert.match(json.msg, message);
    assert.deepEqual([code, json.code], [1, 103]);
  });
}

rootTest("CHECK knows the route by one interface from that by another", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  const first = node.succeed("ADD", pod);
  const second = node.succeed("ADD", pod, { ifName: "eth1" });
  pod.ip("route del 10.231.0.0/16 dev eth0");
  const conf = (prevResult: unknown) => ({ ...node.conf(), prevResult });
  assert.match((await check(node, pod, first)).json.msg, /^the route to .* by eth0 is gone$/);
  assert.deepEqual(await node.run("CHECK", pod, { ifName: "eth1", conf: conf(second) }), DONE);
});

rootTest("CHECK misses the namespace", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  const netns = "/run/netns/nobody";
  const { interfaces: [bridge, host, eth0], ...others } = node.succeed("ADD", pod);
  const prevResult = { ...others, interfaces: [bridge, host, { ...eth0, sandbox: netns }] };
  const { json } = await node.run("CHECK", pod, { netns, conf: { ...node.conf(), prevResult } });
  assert.match(json.msg, /there is no such network namespace/);
  assert.equal(json.code, 3);
});

rootTest("CHECK takes what a later plugin of the chain changed", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  const result = node.succeed("ADD", pod);
  pod.ip("route del 10.231.0.0/16");
  pod.ip("link set eth0 mtu 1400");
  const [bridge, host, eth0] = result.interfaces;
  const changed = { ...result, routes: [], interfaces: [bridge, host, { ...eth0, mtu: 1400 }] };
  assert.equal((await check(node, pod, changed)).code, 0);
});

rootTest("CHECK takes what flannel's chain set up", async () => {
  using node = new PluginNode();
  const [pod, scratch] = [node.pod(), node.pod()];
  const conf = node.conf({ cniVersion: "1.0.0" });
  node.succeed("ADD", scratch, { conf });
  const record = JSON.parse(Deno.readTextFileSync(`${node.dataDir}/${scratch.name}`));
  const { json: result } = await node.run("ADD", pod, { conf: record }, [debianPlugin("bridge")]);
  Deno.writeTextFileSync(
    `${node.dataDir}/${pod.name}`,
    JSON.stringify({ ...record, ipMasq: true }),
  );
  assert.notEqual(
    result.interfaces[1].name,
    hostInterfaceName({ containerId: pod.name, ifName: "eth0" }),
  );
  assert.deepEqual(await check(node, pod, result, conf), DONE);
  node.namespace.ip(`link set ${result.interfaces[1].name} nomaster`);
  assert.match((await check(node, pod, result, conf)).json.msg, /is not a port of cni0/);
});

rootTest("CHECK refuses the result of another attachment", async () => {
  using node = new PluginNode();
  const [pod, other] = [node.pod(), node.pod()];
  node.succeed("ADD", pod);
  const { json } = await check(node, pod, node.succeed("ADD", other));
  assert.match(json.msg, /prevResult\.interfaces has no eth0 in .*: it is of another attachment/);
  assert.equal(json.code, 7);
});

/** What makes a node unready, and what STATUS says. */
const UNREADY: readonly [string, (node: PluginNode) => void, RegExp][] = [
  [
    "subnet.env is cut short",
    (node) => Deno.truncateSync(node.subnetFile, 20),
    /is cut short|can't be read/,
  ],
  [
    "there is no subnet.env",
    (node) => Deno.removeSync(node.subnetFile),
    /there is no .*subnet\.env/,
  ],
  [
    "the bridge's name is another device's",
    (node) => node.namespace.ip("link add cni0 type veth peer name other"),
    /cni0 is not a bridge \(it is veth\)/,
  ],
];
for (const [what, prepare, message] of UNREADY) {
  rootTest(`STATUS is not ready where ${what}`, async () => {
    using node = new PluginNode();
    prepare(node);
    const { code, json } = await node.run("STATUS", node.pod());
    assert.match(json.msg, message);
    assert.deepEqual([code, json.code], [1, 50]);
  });
}

rootTest("STATUS is ready before and after the first ADD, and makes nothing", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  assert.deepEqual(await node.run("STATUS", pod), DONE);
  assert.deepEqual(node.namespace.ipJson("link show type bridge"), []);
  node.succeed("ADD", pod);
  assert.deepEqual(await node.run("STATUS", pod), DONE);
});
