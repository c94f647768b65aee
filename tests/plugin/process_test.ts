import assert from "node:assert/strict";
import { rootTest } from "../support/root_test.ts";
import type { ScratchNamespace } from "../support/scratch_namespace.ts";
import { answersPing, type CniCall, DONE, GATEWAY, PluginNode } from "./plugin_node.ts";

for (const by of ["the plugin itself", "an agent"]) {
  rootTest(
    `40 ADDs at once by ${by} give 40 working pods; 40 DELs at once leave nothing`,
    async () => {
      using node = new PluginNode();
      if (by === "an agent") await node.startAgent();
      const pods = Array.from({ length: 40 }, () => node.pod());
      const added = await Promise.all(pods.map((pod) => node.run("ADD", pod)));
      assert.deepEqual(added.filter(({ code }) => code !== 0), []);
      const addresses = added.map(({ json }) => json.ips[0].address.split("/")[0]);
      assert.equal(new Set(addresses).size, 40);
      assert.deepEqual(node.addressFiles(), addresses.toSorted());
      for (const pod of pods) assert.ok(answersPing(pod, GATEWAY), pod.name);
      const deleted = await Promise.all(pods.map((pod) => node.run("DEL", pod)));
      assert.deepEqual(deleted, pods.map(() => DONE));
      assert.deepEqual(node.leftovers(), []);
      assert.deepEqual(node.namespace.ipJson("link show master cni0"), []);
    },
  );
}

/** Bad input: how, the code, and what the message says. */
const BAD: readonly [
  string,
  (node: PluginNode, pod: ScratchNamespace) => CniCall,
  number,
  RegExp,
][] = [
  ["input that is not JSON", () => ({ conf: "{cniVersion" }), 6, /is not JSON/],
  ["no input", () => ({ conf: "" }), 6, /it is empty/],
  ["an unknown version", (node) => ({ conf: node.conf({ cniVersion: "2.0.0" }) }), 1, /"2\.0\.0"/],
  ["a namespace that does not exist", () => ({ netns: "/run/netns/nobody" }), 3, /no such network/],
  ["a namespace that is none", () => ({ netns: "/etc/hostname" }), 8, /is not a network namespace/],
  ["a bad id", () => ({ containerId: "../etc" }), 4, /CNI_CONTAINERID="\.\.\/etc"/],
  ["a bad interface name", () => ({ ifName: "eth0/1" }), 4, /CNI_IFNAME="eth0\/1"/],
  [
    "a name that the kernel would make another of",
    () => ({ ifName: "eth%d" }),
    4,
    /^CNI_IFNAME="eth%d" in the environment must have no '%': the kernel puts a number in its place$/,
  ],
  ["a name that no device can have", () => ({ ifName: "all" }), 4, /CNI_IFNAME="all" .* settings/],
  [
    "no subnet.env",
    (node) => {
      Deno.removeSync(node.subnetFile);
      return {};
    },
    11,
    /there is no .*subnet\.env/,
  ],
  [
    "a subnet.env that is cut short",
    (node) => {
      Deno.truncateSync(node.subnetFile, Deno.statSync(node.subnetFile).size - 4);
      return {};
    },
    6,
    /subnet\.env: FLANNEL_IPMASQ=t/,
  ],
];
for (const [name, callOf, code, message] of BAD) {
  rootTest(
    `the process, and an agent, refuse ${name}: one error, exit 1, nothing left`,
    async () => {
      for (const served of [false, true]) {
        using node = new PluginNode();
        if (served) await node.startAgent();
        const pod = node.pod();
        const { code: exit, json } = await node.run("ADD", pod, callOf(node, pod));
        assert.match(json.msg, message);
        assert.deepEqual([exit, json.code], [1, code]);
        assert.deepEqual(node.leftovers(), []);
        assert.deepEqual(node.namespace.ipJson("link show type bridge"), []);
        assert.deepEqual(pod.ipJson("link show type veth"), []);
      }
    },
  );
}

rootTest("the process speaks VERSION, and says what it is if no runtime runs it", async () => {
  using node = new PluginNode();
  const pod = node.pod();
  assert.deepEqual(await node.run("VERSION", pod, { conf: { cniVersion: "0.4.0" } }), {
    code: 0,
    json: {
      cniVersion: "0.4.0",
      supportedVersions: ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    },
  });
  const { code, json } = await node.run("", pod);
  assert.match(json.msg, /CNI_COMMAND is missing/);
  assert.deepEqual([code, json.code], [1, 4]);
});
