/**
 * Pods of several plugins in one cluster: denim's own bridge on one node, Debian's `ptp` on another.
 */

import assert from "node:assert/strict";
import { IpAddress } from "@denim/core/ip";
import { Lab, type LabNode } from "@denim/agent/lab";
import { DEBIAN_PLUGINS } from "../support/debian_plugins.ts";
import { rootTest } from "../support/root_test.ts";
import { ScratchNamespace } from "../support/scratch_namespace.ts";
import { answersPing } from "./plugin_node.ts";
import { eventually, NEVER } from "../support/wait.ts";

/** The most that fits into the pods' MTU of 1450 bytes, less the headers of IPv4 and ICMP. */
const LARGEST_PAYLOAD = 1450 - 28;

/** Has a plugin work on a node's pod, as a runtime would; answers with the pod's address. */
async function call(
  node: LabNode,
  command: string,
  pod: ScratchNamespace,
  delegate: Readonly<Record<string, unknown>>,
): Promise<IpAddress | undefined> {
  const variables = {
    CNI_CONTAINERID: pod.name,
    CNI_NETNS: pod.path,
    CNI_PATH: DEBIAN_PLUGINS,
  };
  const conf = { ...node.cniConfig, cniVersion: "1.0.0", delegate };
  const { code, output, errors } = await node.callPlugin(command, variables, conf);
  assert.equal(code, 0, `${command}: ${output}${errors}`);
  return output === ""
    ? undefined
    : IpAddress.parse(JSON.parse(output).ips[0].address.split("/")[0]);
}

rootTest("pods attached through ptp and through bridge, on two nodes, talk", async () => {
  await using lab = await Lab.create({
    nodes: 2,
    netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
  });
  await lab.startAgents(NEVER);
  const [bridged, routed] = lab.nodes as [LabNode, LabNode];
  using onBridge = new ScratchNamespace();
  const bridgeAddress = await call(bridged, "ADD", onBridge, { type: "bridge" });
  // Where the agent does not masquerade ptp shall, unless the user says otherwise.
  for (const delegate of [{ type: "ptp" }, { type: "ptp", ipMasq: false }]) {
    using onPtp = new ScratchNamespace();
    const ptpAddress = await call(routed, "ADD", onPtp, delegate);
    assert.ok(routed.subnet().contains(ptpAddress!));
    // Each node hears of the other's subnet by itself, when it may.
    await eventually("ptp → bridge", () => answersPing(onPtp, bridgeAddress!));
    for (const payloadBytes of [56, LARGEST_PAYLOAD]) {
      assert.ok(answersPing(onPtp, bridgeAddress!, payloadBytes), `ptp → bridge ${payloadBytes}`);
      assert.ok(answersPing(onBridge, ptpAddress!, payloadBytes), `bridge → ptp ${payloadBytes}`);
    }
    await call(routed, "DEL", onPtp, delegate);
    assert.equal(answersPing(onBridge, ptpAddress!), false);
  }
  await call(bridged, "DEL", onBridge, { type: "bridge" });
});
