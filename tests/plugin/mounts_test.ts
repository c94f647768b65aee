/**
 * An agent that its service manager gave another view of the file system, as systemd's `ProtectSystem=` does: it attaches
 * pods as the node's programs see them.
 */

import assert from "node:assert/strict";
import { pluginScript } from "@denim/plugin";
import { rootTest } from "../support/root_test.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { MTU_BYTES, programOf } from "./plugin_node.ts";

/** A node of its own: its processes, mounts and network. */
const SCRIPT = `
set -eu
mount -t tmpfs denim-test "$FOLDER/state"; mkdir -m 700 "$FOLDER/state/calls"
mount -t tmpfs denim-test /run; mkdir /run/netns
printf 'FLANNEL_NETWORK=10.231.0.0/16\\nFLANNEL_SUBNET=10.231.7.1/24\\nFLANNEL_MTU=${MTU_BYTES}\\nFLANNEL_IPMASQ=true\\n' >"$FOLDER/state/subnet.env"
unshare --mount sh -c 'umount "$FOLDER/state"; exec $AGENT' &
agent=$!
timeout 60 sh -c 'until [ -e "$FOLDER/state/calls/agent" ]; do sleep 0.01; done'
[ ! /proc/self/ns/mnt -ef "/proc/$agent/ns/mnt" ]
ip netns add pod
export CNI_CONTAINERID=pod CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0
# On a busy machine a script may find the agent late, and nothing is done then.
timeout 60 sh -c 'until echo "$CONF" | CNI_COMMAND=ADD sh "$FOLDER/denim"; do :; done'
ip netns exec pod ip -o -4 addr show dev eth0
ls "$FOLDER/state/networks/testnet" | sort
kill $agent
`;

rootTest("an agent with other mounts than the node's attaches pods in the node's", () => {
  using temp = new TempFolder();
  const state = `${temp.path}/state`, calls = `${state}/calls`;
  Deno.mkdirSync(state);
  // Fails where the agent does not do the work.
  const script = pluginScript({ plugin: "false", revision: undefined, calls });
  Deno.writeTextFileSync(`${temp.path}/denim`, script);
  const { code, stdout, stderr } = new Deno.Command("unshare", {
    args: ["-m", "-n", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT],
    env: {
      FOLDER: temp.path,
      AGENT: programOf("../support/cni_agent.ts", calls).join(" "),
      CONF: JSON.stringify({
        cniVersion: "1.0.0",
        name: "testnet",
        type: "denim",
        subnetFile: `${state}/subnet.env`,
        dataDir: `${state}/flannel`,
        ipam: { dataDir: `${state}/networks` },
      }),
    },
    stdin: "null",
  }).outputSync();
  const decoder = new TextDecoder();
  const output = decoder.decode(stdout);
  assert.equal(code, 0, output + decoder.decode(stderr));
  assert.match(output, /inet 10\.231\.7\.2\/24/);
  assert.match(output, /^10\.231\.7\.2$/m);
});
