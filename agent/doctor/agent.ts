/**
 * What the agent says of itself.
 *
 * @module
 */

import { messageOf, throwDefect } from "@denim/core";
import { AgentConnection } from "../agent_client.ts";
import type { MeshReport } from "../mesh/mesh_report.ts";
import type { ClockReport, PeersReport, StatusReport } from "../status_report.ts";
import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

const TIMEOUT_MS = 5_000;
/** Clocks that are as far apart as this make certificates and tokens fail, and times of logs misleading, in seconds. */
const SKEW_S = 5;
/** So much of the files that the agent may have open may be. */
const MOST_FILES = 0.8;

/** Asks the agent for a route's JSON. */
type Ask = (route: string) => Promise<unknown>;

/**
 * `agent-silent`: this host is a node, and no agent answers. `agent-unready`: it says that pods cannot be attached.
 * `store-unreachable`: it cannot use its store. `clock-skewed`: this host's clock is not the store's.
 * `path-mtu-too-small`: the path to some peers is too narrow for pods' largest packets. `peers-troubled`: probes find peers
 * in other trouble. `clone-seen`: two machines have what only one may have. `agent-files-short`: the agent has nearly as
 * many files open as it may.
 */
export async function agent(host: Host): Promise<readonly Finding[]> {
  const { apiSocket, subnetFile } = host.paths;
  using connection = new AgentConnection(apiSocket);
  const ask: Ask = async (route) =>
    JSON.parse(await connection.ask(route, AbortSignal.timeout(TIMEOUT_MS)));
  let status: StatusReport, peers: PeersReport, metrics: string;
  try {
    status = await ask("/status") as StatusReport;
    peers = await ask("/peers") as PeersReport;
    metrics = await connection.ask("/metrics", AbortSignal.timeout(TIMEOUT_MS));
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
  return [
    ...found,
    ...await clockFindings(ask, status),
    ...peerFindings(peers),
    ...await cloneFindings(ask),
    ...fileFindings(metrics),
  ];
}

/** What a route says; `undefined` if the store does not answer, which is told already. */
async function askStore<Answer>(ask: Ask, route: string): Promise<Answer | undefined> {
  try {
    return await ask(route) as Answer;
  } catch (error) {
    throwDefect(error);
    return undefined;
  }
}

async function clockFindings(
  ask: Ask,
  { store: { description } }: StatusReport,
): Promise<Finding[]> {
  const aheadSeconds = (await askStore<ClockReport>(ask, "/clock"))?.aheadSeconds ?? 0;
  if (Math.abs(aheadSeconds) <= SKEW_S) return [];
  const [seconds, way] = [Math.abs(aheadSeconds), aheadSeconds > 0 ? "ahead of" : "behind"];
  return [{
    name: "clock-skewed",
    evidence: `this host's clock is ${Math.round(seconds)} s ${way} that of ${description}`,
    remedy: "have both follow one time (systemd-timesyncd, chrony)",
  }];
}

function peerFindings({ peers }: PeersReport): Finding[] {
  const found: Finding[] = [];
  const narrow = peers.filter(({ health }) => health === "mtu");
  if (narrow.length > 0) {
    const { subnet, publicIp, pathMtuBytes } = narrow[0]!;
    const largest = pathMtuBytes === null ? "" : `: packets of ${pathMtuBytes} bytes still do`;
    found.push({
      name: "path-mtu-too-small",
      evidence:
        `pods' largest packets do not reach ${narrow.length} of ${peers.length} peers, such as ` +
        `${subnet} (${publicIp})${largest}`,
      remedy:
        "lower net-conf's Backend.MTU to what passes, or let the underlay carry larger packets",
    });
  }
  const ill = peers.filter(({ health }) => ![null, "ok", "unknown", "mtu"].includes(health));
  if (ill.length > 0) {
    const { subnet, publicIp, health } = ill[0]!;
    found.push({
      name: "peers-troubled",
      evidence:
        `${ill.length} of ${peers.length} peers are in trouble, such as ${subnet} (${publicIp}): ${health}`,
      remedy: "denim peers lists them, denim peers --help says what each trouble is",
    });
  }
  return found;
}

async function cloneFindings(ask: Ask): Promise<Finding[]> {
  const { troubles = [] } = await askStore<MeshReport>(ask, "/mesh") ?? {};
  const clones = troubles.filter(({ health }) => health === "clone");
  return clones.length === 0 ? [] : [{
    name: "clone-seen",
    evidence: `two machines are there for ${clones.map(({ subnet }) => subnet).join(", ")}, as ${
      clones[0]!.from.join(" and ")
    } says`,
    remedy:
      "find the copy by its agent's log, which says what the two have in common, and remove that from it",
  }];
}

function fileFindings(metrics: string): Finding[] {
  const value = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, "m").exec(metrics)?.[1]);
  const [open, limit] = [value("process_open_fds"), value("process_max_fds")];
  return !(open > MOST_FILES * limit) ? [] : [{
    name: "agent-files-short",
    evidence: `the agent has ${open} files open, of ${limit} that it may`,
    remedy:
      "raise LimitNOFILE of denim's unit, or the container's limit, and report what it has open",
  }];
}
