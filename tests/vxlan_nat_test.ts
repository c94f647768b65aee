/** VXLAN behind NAT: packets whose outer source somebody changes arrive with right checksums. */

import type { LabNode } from "@denim/agent/lab";
import assert from "node:assert/strict";
import { ipJson } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { sh, shIn } from "./support/sh.ts";
import { NEVER } from "./support/wait.ts";

/** As a host's own firewall may have it, a hypervisor's network for its guests, or a kube-proxy before 1.16.13. */
const NAT = `nft 'table ip others { chain postrouting { type nat hook postrouting priority srcnat;
  udp dport 8472 masquerade fully-random; }; }'`;

/** The datagrams that the node's kernel has thrown away for their checksums. */
function badChecksums(node: LabNode): number {
  const [, value] = /^UdpInCsumErrors\s+(\d+)/m.exec(shIn(node, "nstat -asz UdpInCsumErrors"))!;
  return Number(value);
}

labTest("NAT of the tunnel's packets leaves their checksums right", {
  nodes: 2,
  netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
}, async (lab) => {
  await lab.startAgents(NEVER);
  const [node, other] = lab.nodes as [LabNode, LabNode];
  const [a, b] = [await node.addPod("a"), await other.addPod("b")];
  // Between namespaces packets need no checksum, unless the device can't promise to finish them.
  for (const each of lab.nodes) shIn(each, "ethtool -K eth0 tx off");
  shIn(node, NAT);
  const { port } = await b.listen();
  using inside = a.open();
  inside.run(() =>
    sh(`timeout 10 bash -c 'head -c 1000000 /dev/zero > /dev/tcp/${b.address}/${port}'`)
  );
  assert.equal((await b.received()).bytes, 1_000_000);
  assert.equal(badChecksums(other), 0);
  const [{ linkinfo }] = ipJson(node, "-d link show flannel.1");
  assert.equal(linkinfo.info_data.udp_csum, false);
  // The inner checksum is still the outer device's to compute: that is what makes a VXLAN device fast.
  assert.match(shIn(node, "ethtool -k flannel.1"), /tx-checksum-ip-generic: on/);
});
