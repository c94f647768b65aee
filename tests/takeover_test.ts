/** A node that is taken over from flanneld and Docker as they leave it. */

import { denimProgram, type LabNode } from "@denim/agent/lab";
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { ip, ipJson } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { RunningPing } from "./support/ping.ts";
import { reached } from "./support/reached.ts";
import { NEVER } from "./support/wait.ts";

const MAC = "02:0a:05:00:00:03";
const FLANNEL_CONF = '{"name":"cbr0","plugins":[{"type":"flannel"}]}';
const DENIM_CONF = '{"name":"denim","plugins":[{"type":"denim"}]}';

/** Starts an agent that has an /etc of its own, beside its log. */
const IN_OWN_ETC = [
  ...["unshare", "-m", "sh", "-c"],
  'mount --bind "$(dirname "$(readlink /proc/self/fd/2)")/etc" /etc && exec "$@"',
  "sh",
] as const;

labTest("what flanneld and Docker left is taken over, or named with what to do", {
  nodes: 2,
  netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
  agentProgram: [...IN_OWN_ETC, ...denimProgram("agent")],
}, async (lab) => {
  const [node, other] = lab.nodes as [LabNode, LabNode];
  const confs = (node: LabNode) => `${node.directory}/etc/cni/net.d`;
  for (const each of lab.nodes) {
    mkdirSync(confs(each), { recursive: true });
  }
  // flanneld's, with the subnets that the nodes had.
  for (const [each, gateway] of [[node, "10.5.3.1"], [other, "10.5.4.1"]] as const) {
    Deno.writeTextFileSync(
      each.subnetFile,
      `FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=${gateway}/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n`,
    );
  }
  await other.startAgent(NEVER);
  for (
    const command of [
      `link add flannel.1 address ${MAC} type vxlan id 1 dev eth0 local 10.99.0.1 dstport 8472 nolearning`,
      "addr add 10.5.3.0/32 dev flannel.1",
      "link set flannel.1 up",
      `route add ${other.subnet()} via ${other.subnet().address} dev flannel.1 onlink`,
      "route add 10.5.77.0/24 via 10.5.77.0 dev flannel.1 onlink",
      // What it made when its net-conf had another VNI.
      "link add flannel.7 type vxlan id 7 dev eth0 dstport 8472",
      "addr add 10.5.3.0/32 dev flannel.7",
      "link set flannel.7 up",
      // Docker's, by mk-docker-opts.sh.
      "link add docker0 type bridge",
      "addr add 10.5.3.1/24 dev docker0",
      "link set docker0 up",
    ]
  ) ip(node, command);
  Deno.writeTextFileSync(`${confs(node)}/05-flannel.conflist`, FLANNEL_CONF);
  Deno.writeTextFileSync(`${confs(node)}/10-denim.conflist`, DENIM_CONF);
  // A pod of flannel's lives on.
  mkdirSync(`${node.directory}/networks/cbr0`, { recursive: true });
  Deno.writeTextFileSync(`${node.directory}/networks/cbr0/10.5.3.2`, "flannels-pod\r\neth0");
  // What other plugins and the runtime keep there.
  mkdirSync(`${node.directory}/networks/results`);
  Deno.writeTextFileSync(`${node.directory}/networks/results/cbr0-flannels-pod-eth0`, "{}");

  const warnings = () => {
    const text = Deno.readTextFileSync(node.logFile);
    return [...text.matchAll(/ WARN +(.*) event=(.*)$/gm)].map(([, message, event]) =>
      `${event}: ${message}`
    );
  };
  await node.startAgent(NEVER);
  assert.equal(`${node.subnet()}`, "10.5.3.0/24");
  assert.equal(ipJson(node, "link show flannel.1")[0].address, MAC);
  assert.match(ip(node, `route show ${other.subnet()}`), /nhid \d+ .* proto 155/);
  assert.equal(ip(node, "route show 10.5.77.0/24"), "");
  const [shadowed, tunnel, bridge] = warnings();
  assert.match(
    shadowed!,
    /^cni-conf-shadowed: .*05-flannel\.conflist comes before 10-denim\.conflist/,
  );
  assert.match(tunnel!, /^leftover-device: .* ip link delete flannel\.7$/);
  assert.match(bridge!, /^leftover-device: .* docker0 .* ip addr del 10\.5\.3\.1\/24 dev docker0/);
  assert.equal(warnings().length, 3, warnings().join("\n"));
  await assert.rejects(node.addPod("too-early"), /ip addr del 10\.5\.3\.1\/24 dev docker0/);

  // What was said is done.
  Deno.removeSync(`${confs(node)}/05-flannel.conflist`);
  ip(node, "link delete flannel.7");
  ip(node, "addr del 10.5.3.1/24 dev docker0");
  const [a, b] = [await node.addPod("a"), await other.addPod("b")];
  // .2 is the living pod's, .3 was for the one that was refused.
  assert.equal(`${a.address}`, "10.5.3.4");
  await reached(a, b.address);
  using namespace = a.open();
  const pinging = new RunningPing(namespace, ["-c", "3", "-i", "0.2", `${b.address}`]);
  assert.deepEqual(await pinging.finish(), { sent: 3, received: 3 });
  await node.stopAgent();
  await node.startAgent(NEVER);
  assert.equal(warnings().length, 3, warnings().join("\n"));
});
