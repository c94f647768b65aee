/**
 * `denim peers`: the other nodes, and how each is reached.
 *
 * @module
 */

import { askAgent } from "./agent_client.ts";
import { formatColumns } from "./columns.ts";
import type { Screen } from "./screen.ts";
import type { PeersReport } from "./status_report.ts";

const HELP = `Usage: denim peers [flags]

Lists the other nodes, as this node's agent knows them: how each is reached, and since when.
`;

/** Runs `denim peers`, and resolves to the exit code: 0 fine, 1 if no agent answers, 2 wrong usage. */
export function runPeers(args: readonly string[]): Promise<number> {
  return askAgent<PeersReport>(
    { name: "denim peers", help: HELP, path: "/peers", format: formatPeers },
    args,
  );
}

/** The report as people read it. */
export function formatPeers({ peers, refused }: PeersReport, screen: Screen): string {
  const rows = peers.map(({ subnet, publicIp, backend, device, direct, changedAt }) => [
    subnet,
    publicIp,
    [backend, ...device === null ? [] : [direct ? `direct by ${device}` : `by ${device}`]].join(
      " ",
    ),
    changedAt.replace(/\.\d+Z$/, "Z"),
  ]);
  const tables = [formatColumns([["SUBNET", "PUBLIC IP", "REACHED", "SINCE"], ...rows])];
  if (refused.length > 0) {
    tables.push(formatColumns([
      ["NOT FOLLOWED", "WHY"],
      ...refused.map(({ key, reason }) => [key, screen.paint("doubtful", reason)]),
    ]));
  }
  return tables.join("\n\n");
}
