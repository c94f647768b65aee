/**
 * `denim status`: how this node is.
 *
 * @module
 */

import { askAgent } from "./agent_client.ts";
import { formatColumns } from "./columns.ts";
import { type Screen, shortTime } from "./screen.ts";
import type { NodeReport, StatusReport } from "./status_report.ts";

const HELP = `Usage: denim status [flags]

Shows how this node is, as its agent says: whether pods can be attached, its backend, subnet and outer
interface, the store, the number of peers, and what went wrong or was mended lately.
`;

/** Runs `denim status`, and resolves to the exit code: 0 fine, 1 if no agent answers, 2 wrong usage. */
export function runStatus(args: readonly string[]): Promise<number> {
  return askAgent<StatusReport>(
    { name: "denim status", help: HELP, path: "/status", format: formatStatus },
    args,
  );
}

/** The report as people read it. */
function formatStatus(report: StatusReport, screen: Screen): string {
  const { ready, unready, store, node, lately, version, startedAt } = report;
  const rows = [
    ["node", ready ? screen.paint("good", "ready") : screen.paint("bad", `not ready: ${unready}`)],
    ...node === null ? [] : nodeRows(node, screen),
    ["store", storeText(store, screen)],
    ["agent", `denim ${version}, since ${shortTime(startedAt)}`],
  ];
  const said = lately.map(({ at, level, event, message, times }) => [
    shortTime(at),
    screen.paint(level === "error" ? "bad" : "doubtful", level),
    event,
    times === 1 ? message : `${message} (${times} times)`,
  ]);
  return [formatColumns(rows), ...said.length === 0 ? [] : ["", formatColumns(said)]].join("\n");
}

function nodeRows(node: NodeReport, screen: Screen): string[][] {
  const { backend, formerBackends, devices, mtuBytes, networks, subnets, outer, peers } = node;
  const wireguard = node.wireguard.map(({ device, by, listenPort }) =>
    `${device} by ${by === "kernel" ? "the kernel" : by}, UDP port ${listenPort}`
  );
  const former = formerBackends.length === 0 ? "" : `, changing from ${formerBackends.join(" ")}`;
  const by = devices.length === 0 ? "" : ` by ${devices.join(" ")}`;
  const until = node.leaseEndsAt === null ? "" : ` until ${shortTime(node.leaseEndsAt)}`;
  const refused = peers.refused === 0 ? "" : `, ${peers.refused} refused`;
  const troubled = peers.troubled === 0
    ? ""
    : `, ${screen.paint("bad", `${peers.troubled} in trouble (denim peers)`)}`;
  const mended = Object.entries(node.repairs).map(([kind, times]) => `${kind} ${times}`);
  return [
    ["backend", `${backend}${by}, MTU ${mtuBytes}${former}`],
    ...wireguard.length === 0 ? [] : [["wireguard", wireguard.join("; ")]],
    ["network", networks.join(" ")],
    ["subnet", `${subnets.join(" ")}${until}`],
    ["outer", `${outer.name} ${outer.publicIps.join(" ")}, MTU ${outer.mtuBytes}`],
    ["peers", `${peers.followed}${refused}${troubled}`],
    ["mended", mended.length === 0 ? "nothing" : mended.join(", ")],
  ];
}

function storeText(
  { description, reachable, outageSeconds }: StatusReport["store"],
  screen: Screen,
): string {
  const name = description ?? "being opened";
  return reachable
    ? name
    : `${name}, ${screen.paint("bad", `out of reach for ${Math.round(outageSeconds)} s`)}`;
}
