/**
 * The CNI plugin on nodes whose kernel has IPv6 switched off, in part or altogether.
 */

import assert from "node:assert/strict";
import { rootTest } from "../support/root_test.ts";
import type { ScratchNamespace } from "../support/scratch_namespace.ts";
import {
  answersPing,
  DONE,
  GATEWAY,
  PluginNode,
  programOf,
  reachesGateways,
  SUBNET6,
} from "./plugin_node.ts";

function set(namespace: ScratchNamespace, setting: string, value: string): void {
  namespace.run(() => Deno.writeTextFileSync(`/proc/sys/${setting}`, value));
}

for (const which of ["default", "all"]) {
  rootTest(`ADD switches IPv6 on for what it makes where ${which}.disable_ipv6 is 1`, async () => {
    using node = new PluginNode({ dualStack: true });
    const [first, second] = [node.pod(), node.pod()];
    for (const namespace of [node.namespace, first, second]) {
      set(namespace, `net/ipv6/conf/${which}/disable_ipv6`, "1");
    }
    const result = node.succeed("ADD", first);
    node.succeed("ADD", second);
    for (const pod of [first, second]) assert.ok(reachesGateways(pod));
    assert.ok(answersPing(first, SUBNET6.at(3n)));
    const check = { conf: { ...node.conf(), prevResult: result } };
    assert.deepEqual(await node.run("CHECK", first, check), DONE);
    // Somebody switches it off again, which takes every address away.
    set(node.namespace, "net/ipv6/conf/cni0/disable_ipv6", "1");
    const { json } = await node.run("CHECK", first, check);
    assert.match(json.msg, /^cni0 lacks the address fc00:231:0:7::1\/64$/);
    const third = node.pod();
    node.succeed("ADD", third);
    for (const pod of [first, second, third]) assert.ok(reachesGateways(pod));
    for (const pod of [first, second, third]) node.succeed("DEL", pod);
    assert.deepEqual(node.leftovers(), []);
  });
}

/** The plugin, where a shell command has changed what it sees of the file system. */
function pluginAfter(command: string): readonly [string, ...string[]] {
  const plugin = programOf("../../plugin/main.ts");
  return ["unshare", "--mount", "sh", "-c", `${command} && exec "$@"`, "sh", ...plugin];
}

rootTest("ADD names the setting where IPv6 is off and /proc/sys can't be written", async () => {
  using node = new PluginNode({ dualStack: true });
  const pod = node.pod();
  set(node.namespace, "net/ipv4/ip_forward", "1");
  set(node.namespace, "net/ipv6/conf/default/disable_ipv6", "1");
  const plugin = pluginAfter("mount -t proc -o ro proc /proc");
  const { code, json } = await node.run("ADD", pod, {}, plugin);
  assert.match(
    json.msg,
    /^cni0 needs IPv6, and net\/ipv6\/conf\/cni0\/disable_ipv6 is 1 and can't be set: .*read-only \(EROFS\)/,
  );
  assert.deepEqual([code, json.code, node.leftovers()], [1, 5, []]);
});

/** Stands for a kernel with `ipv6.disable=1`, as far as its settings go: it has none of IPv6's. */
const WITHOUT_IPV6 = pluginAfter("mount -t tmpfs none /proc/sys/net/ipv6");

rootTest("a kernel without IPv6 serves pods of IPv4", async () => {
  using node = new PluginNode();
  const [pod, other] = [node.pod(), node.pod()];
  assert.deepEqual(await node.run("STATUS", pod, {}, WITHOUT_IPV6), DONE);
  const prevResult = await node.succeedAsProcess("ADD", pod, {}, WITHOUT_IPV6);
  await node.succeedAsProcess("ADD", other, {}, WITHOUT_IPV6);
  assert.ok(answersPing(pod, GATEWAY));
  const check = { conf: { ...node.conf(), prevResult } };
  assert.deepEqual(await node.run("CHECK", pod, check, WITHOUT_IPV6), DONE);
  assert.deepEqual(await node.run("DEL", pod, {}, WITHOUT_IPV6), DONE);
  node.age();
  assert.deepEqual(await node.gc([], WITHOUT_IPV6), DONE);
  assert.deepEqual(node.leftovers(), []);
});

rootTest("a kernel without IPv6 is named if the node has an IPv6 subnet", async () => {
  using node = new PluginNode({ dualStack: true });
  const pod = node.pod();
  for (const [command, expected] of [["ADD", 102], ["STATUS", 50]] as const) {
    const { code, json } = await node.run(command, pod, {}, WITHOUT_IPV6);
    assert.match(
      json.msg,
      /^the node has the subnet fc00:231:0:7::\/64, and its kernel no IPv6: .*ipv6\.disable=1/,
    );
    assert.deepEqual([code, json.code], [1, expected]);
  }
  assert.deepEqual(node.leftovers(), []);
  assert.deepEqual(node.namespace.ipJson("link show type bridge"), []);
  assert.deepEqual(await node.run("DEL", pod, {}, WITHOUT_IPV6), DONE);
});
