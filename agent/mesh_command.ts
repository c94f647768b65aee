/**
 * `denim mesh`: what all nodes together find wrong between them.
 *
 * @module
 */

import { askAgent } from "./agent_client.ts";
import { formatColumns } from "./columns.ts";
import type { MeshReport } from "./mesh/mesh_report.ts";
import { type Screen, shortTime } from "./screen.ts";

const HELP = `Usage: denim mesh [flags]

Lists the nodes that others find in trouble, as all nodes tell in the store: how each is found (denim
peers --help names the kinds), by which nodes, and what follows: a node that does not answer at least
half of the others, and says nothing itself, is down; otherwise the underlay between them is cut.
With Kubernetes as the store they tell it by Events of their nodes (kubectl describe node); where they may
write none, this node's own view is shown.
`;

/** So many of those who find something are named. */
const NAMED = 3;

/** Runs `denim mesh`, and resolves to the exit code: 0 fine, 1 if no agent answers, 2 wrong usage. */
export function runMesh(args: readonly string[]): Promise<number> {
  return askAgent<MeshReport>(
    { name: "denim mesh", help: HELP, path: "/mesh", format: formatMesh },
    args,
  );
}

/** The report as people read it. */
function formatMesh(
  { nodes, shared, troubles, overflowing }: MeshReport,
  screen: Screen,
): string {
  const who = shared ? `${nodes} nodes` : `this node, of ${nodes}`;
  if (troubles.length === 0) return screen.paint("good", `no trouble is known to ${who}`);
  const rows = troubles.map(({ subnet, health, since, from, conclusion }) => [
    subnet,
    health,
    shortTime(since),
    from.length > NAMED
      ? `${from.slice(0, NAMED).join(" ")} and ${from.length - NAMED} more`
      : from.join(" "),
    screen.paint("bad", conclusion ?? health),
  ]);
  return [
    formatColumns([["SUBNET", "HEALTH", "SINCE", "FOUND BY", "SO IT IS"], ...rows]),
    ...overflowing.map(({ from, peers }) => `${from} finds trouble with ${peers} nodes in all`),
  ].join("\n");
}
