/** Many connections out of one node cost the agent nothing, and leave its rules as they are. */

import { FAMILIES, RuntimeError } from "@denim/core";
import type { NetworkNamespace } from "@denim/core/linux";
import type { LabNode } from "@denim/agent/lab";
import assert from "node:assert/strict";
import { addOutside, OUTSIDE } from "./support/outside.ts";
import { labTest } from "./support/lab_test.ts";
import { report } from "./support/report.ts";
import { shIn } from "./support/sh.ts";
import { NEVER } from "./support/wait.ts";

/** How many: 100,000 take a minute or two, and are for those who ask. */
const CONNECTIONS = Number(Deno.env.get("DENIM_CONNECTIONS") ?? 1000);
const ADDRESSES = FAMILIES.map((family) => OUTSIDE[family]);
const PROGRAM = new URL("support/many_connections.ts", import.meta.url).pathname;
/** How long an agent that has nothing to do is watched, for comparison, if many connections are asked for. */
const IDLE_SECONDS = CONNECTIONS < 100_000 ? 0 : 30;
/** The kernel counts a process's time in ticks of a hundredth of a second (proc_pid_stat(5)). */
const TICKS_A_SECOND = 100;

function start(place: NetworkNamespace, ...args: string[]): Deno.ChildProcess {
  return place.run(() =>
    new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", PROGRAM, ...args],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn()
  );
}

/** The processor time that the node's agent has used, in seconds. */
function cpuSeconds({ agentPid }: LabNode): number {
  const fields = Deno.readTextFileSync(`/proc/${agentPid}/stat`).split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
}

/** Every rule on the node, with its number: those of nftables, and those of iptables-legacy. */
const rules = (node: LabNode) => shIn(node, "nft -s -a list ruleset");

for (const [engine, EnableNFTables] of [["nftables", true], ["iptables", false]] as const) {
  labTest(`${CONNECTIONS} connections out of one node: the same rules, by ${engine}`, {
    nodes: 1,
    netConf: {
      Network: "10.5.0.0/16",
      EnableIPv6: true,
      IPv6Network: "fc00:5::/48",
      EnableNFTables,
      Backend: { Type: "vxlan" },
    },
  }, async (lab) => {
    const [node] = lab.nodes as [LabNode];
    using outside = addOutside(lab);
    await node.startAgent(NEVER, ["--ip-masq"]);
    const pod = await node.addPod("a");
    using inside = pod.open();
    const server = start(outside, "serve", ...ADDRESSES);
    const lines = server.stdout.pipeThrough(new TextDecoderStream()).getReader();
    if ((await lines.read()).value !== "ready\n") {
      throw new RuntimeError("the server did not start");
    }

    const cpuIdle = cpuSeconds(node);
    await new Promise((resolve) => setTimeout(resolve, IDLE_SECONDS * 1000));
    const idle = cpuSeconds(node) - cpuIdle;
    const before = rules(node), cpuBefore = cpuSeconds(node), startMs = performance.now();
    const client = start(inside, "connect", `${CONNECTIONS}`, ...ADDRESSES);
    await client.stdin.close();
    assert.equal((await client.output()).code, 0);
    const seconds = (performance.now() - startMs) / 1000;
    const used = cpuSeconds(node) - cpuBefore;
    assert.equal(rules(node), before);
    const known = shIn(node, "cat /proc/sys/net/netfilter/nf_conntrack_count").trim();
    report(
      `${CONNECTIONS} connections out of one node in ${
        seconds.toFixed(1)
      } s, by ${engine}: the agent used ` +
        `${used.toFixed(2)} s of processor time, and ${
          idle.toFixed(2)
        } s in the ${IDLE_SECONDS} s before; ` +
        `the kernel knows ${known} of them; ${before.length} octets of rules, the same as before`,
    );

    await server.stdin.close();
    const seen = JSON.parse((await lines.read()).value!);
    assert.deepEqual(seen, { "10.99.0.1": CONNECTIONS / 2, "fd99::1": CONNECTIONS / 2 });
    assert.equal((await server.status).code, 0);
    await lines.cancel();
  });
}
