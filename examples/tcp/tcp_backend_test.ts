/** The example keeps the contract for backends, and carries what pods send. */

import { backendContract, Lab, rootTest } from "@denim/tests";
import assert from "node:assert/strict";

const MAIN = new URL("./main.ts", import.meta.url).pathname;
const agentProgram = [Deno.execPath(), "run", "-A", MAIN] as const;
const backend = { Type: "tcp", Port: 8478 };

backendContract("tcp", { backend, agentProgram, outlivesAgent: false });

rootTest("tcp carries 10 MiB from pod to pod, whole, in TCP connections", async () => {
  await using lab = await Lab.create({
    nodes: 2,
    netConf: { Network: "10.5.0.0/16", Backend: backend },
    agentProgram,
  });
  await lab.startAgents(new AbortController().signal);
  const [a, b] = await Promise.all(lab.nodes.map((node, index) => node.addPod(`pod${index + 1}`)));
  const { port } = await b!.listen();
  const startMs = performance.now();
  const bytes = 10 * 1024 * 1024;
  const sent = await a!.send(b!.address, port, bytes);
  assert.deepEqual(await b!.received(), { sha256: sent.sha256, bytes });
  console.log(`10 MiB in ${(performance.now() - startMs).toFixed()} ms`);
  const { stdout } = new Deno.Command("ip", {
    args: ["netns", "exec", lab.nodes[0]!.namespaceName, "ss", "-tnH", "dport", "=", ":8478"],
  }).outputSync();
  const connections = new TextDecoder().decode(stdout);
  assert.match(connections, /10\.99\.0\.1:\d+ +10\.99\.0\.2:8478/, "the way that it came");
});
