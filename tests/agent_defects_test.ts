/** What a node does when denim itself has a defect: it says so with a stack and ends, and its pods talk on. */

import { IpAddress } from "@denim/core";
import { SqliteStore } from "@denim/core/stores/sqlite";
import assert from "node:assert/strict";
import type { LabNode } from "@denim/agent/lab";
import { DEFECTS, FATAL_PEER, FATAL_VNI } from "./support/agent_that_breaks.ts";
import { ip } from "./support/ip.ts";
import { labTest } from "./support/lab_test.ts";
import { RunningPing } from "./support/ping.ts";
import { reached } from "./support/reached.ts";
import { RecordingLog } from "./support/recording_log.ts";
import { eventually, NEVER } from "./support/wait.ts";

const PROGRAM = new URL("./support/agent_that_breaks.ts", import.meta.url).pathname;

/** A node's log, as far as it goes. */
function logOf({ logFile }: LabNode): string {
  try {
    return Deno.readTextFileSync(logFile);
  } catch {
    return "";
  }
}

/** What carries a node's packets to others. */
function dataPath(node: LabNode): string {
  return ["-d link show flannel.1", "neigh show dev flannel.1", "route show"]
    .map((command) => ip(node, command)).join("");
}

for (const defect of DEFECTS) {
  labTest(`a TypeError in ${defect} ends the agent with its stack in the log; pods talk on`, {
    nodes: 2,
    netConf: { Network: "10.5.0.0/16", Backend: { Type: "vxlan" } },
  }, async (lab) => {
    const words = [Deno.execPath(), "run", "-A", PROGRAM, defect] as const;
    const agents = lab.nodes.map((node) =>
      node.spawn([...words, ...node.agentArguments], {
        stdin: "null",
        stdout: "null",
        logFile: node.logFile,
      })
    );
    try {
      await eventually(
        "every node is ready",
        () => lab.nodes.every((node) => / event=ready/.test(logOf(node))),
        20_000,
      );
      const [a, b] = await Promise.all(lab.nodes.map((node) => node.addPod(`${node.name}-pod`)));
      await reached(a!, b!.address);
      const before = lab.nodes.map(dataPath);
      using namespace = a!.open();
      const pinging = new RunningPing(namespace, ["-i", "0.01", `${b!.address}`]);

      await using store = SqliteStore.open(`${lab.directory}/denim.db`, {
        log: new RecordingLog(),
      });
      if (defect === "open") {
        const netConf = { Network: "10.5.0.0/16", Backend: { Type: "vxlan", VNI: FATAL_VNI } };
        await store.setNetworkConfig(JSON.stringify(netConf), { ifAbsent: false }, NEVER);
      } else {
        await store.acquire({
          publicIps: new Map([[4, IpAddress.parse(FATAL_PEER)]]),
          previousSubnets: [],
          backendType: "vxlan",
          backendData: new Map([[4, { VNI: 1, VtepMAC: "02:00:00:00:00:77" }]]),
        }, NEVER);
      }
      const ends = await Promise.all(agents.map(({ status }) => status));
      assert.deepEqual(ends.map(({ code }) => code), [1, 1]);

      const { sent, received } = await pinging.stop();
      // The last one may have been on its way.
      assert.ok(sent - received <= 1, `${sent - received} lost`);
      assert.equal((await b!.ping(a!.address)).timeMs !== undefined, true);
      assert.deepEqual(lab.nodes.map(dataPath), before);
      for (const log of lab.nodes.map(logOf)) {
        assert.match(
          log,
          new RegExp(
            `ERROR denim has a defect.*TypeError: a defect that a test put into ${defect}.*\\n +at `,
          ),
        );
        assert.equal(log.match(/ ERROR /g)?.length, 1, "it is said once");
      }
    } finally {
      for (const agent of agents) {
        try {
          agent.kill("SIGKILL");
        } catch {
          // It has ended.
        }
      }
      await Promise.all(agents.map(({ status }) => status));
    }
  });
}
