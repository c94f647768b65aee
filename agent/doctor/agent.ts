/**
 * What the agent says of itself.
 *
 * @module
 */

import { messageOf, throwDefect } from "@denim/core";
import { AgentConnection } from "../agent_client.ts";
import type { PeersReport, StatusReport } from "../status_report.ts";
import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

const TIMEOUT_MS = 5_000;

/**
 * `agent-silent`: this host is a node, and no agent answers. `agent-unready`: it says that pods cannot be attached.
 * `store-unreachable`: it cannot use its store. `peers-troubled`: probes find peers in trouble.
 */
export async function agent(host: Host): Promise<readonly Finding[]> {
  const { apiSocket, subnetFile } = host.paths;
  using connection = new AgentConnection(apiSocket);
  const ask = async (route: string) =>
    JSON.parse(await connection.ask(route, AbortSignal.timeout(TIMEOUT_MS)));
  let status: StatusReport, peers: PeersReport;
  try {
    [status, peers] = [await ask("/status"), await ask("/peers")];
  } catch (error) {
    throwDefect(error);
    // Without subnet.env this host is no node yet, and need not have an agent.
    return host.subnetEnv === undefined ? [] : [{
      name: "agent-silent",
      evidence: `there is ${subnetFile}, and ${messageOf(error)}`,
      remedy: "start the agent, and see in its log why it ended",
    }];
  }
  const found: Finding[] = [];
  if (!status.ready) {
    found.push({
      name: "agent-unready",
      evidence: `the agent is not ready: ${status.unready}`,
      remedy: "denim status and the agent's log say more",
    });
  }
  if (!status.store.reachable) {
    found.push({
      name: "store-unreachable",
      evidence: `${status.store.description} is out of reach for ${
        Math.round(status.store.outageSeconds)
      } s`,
      remedy: "the agent's log says why (event=outage)",
    });
  }
  const ill = peers.peers.filter(({ health }) => ![null, "ok", "unknown"].includes(health));
  if (ill.length > 0) {
    const { subnet, publicIp, health } = ill[0]!;
    found.push({
      name: "peers-troubled",
      evidence:
        `${ill.length} of ${peers.peers.length} peers are in trouble, such as ${subnet} (${publicIp}): ${health}`,
      remedy: "denim peers lists them, denim peers --help says what each trouble is",
    });
  }
  return found;
}
