/**
 * What nodes tell each other of peers in trouble, and what follows from it all.
 *
 * @module
 */

import * as z from "zod";
import type { Health } from "./peer_health.ts";

/** So many peers are named in one note; of more, the number is told, and some are named. */
const MAX_NAMED = 50;
/** Of more, so many are named in all notes together, if every node has as much to tell: who reads them reads 85 bytes for each … */
const MAX_NAMED_IN_ALL = 50_000;
/** … but in each note this many. */
const MIN_NAMED = 10;

/** A peer that a node finds in trouble. */
export interface Trouble {
  /** The subnet of the peer's pods. */
  readonly subnet: string;
  /** How it is; `clone` if two machines are there for it, or it is another's clone. */
  readonly health: Health | "clone";
  /** Since when, in milliseconds since 1970. */
  readonly sinceMs: number;
}

const note = z.object({
  at: z.iso.datetime(),
  count: z.int(),
  peers: z.array(z.object({ subnet: z.string(), health: z.string(), since: z.iso.datetime() })),
});

/**
 * A node's note for the others, as JSON: the worst that there is of it is 50 peers and a number.
 *
 * @param nodes how many nodes there are
 */
export function formatReport(troubles: readonly Trouble[], nodes: number, nowMs: number): string {
  const some = Math.max(MIN_NAMED, Math.min(Math.floor(MAX_NAMED_IN_ALL / nodes), MAX_NAMED));
  const named = troubles.length <= MAX_NAMED ? MAX_NAMED : some;
  const peers = troubles.slice(0, named).map(({ subnet, health, sinceMs }) => (
    { subnet, health, since: new Date(sinceMs).toISOString() }
  ));
  const report: z.infer<typeof note> = {
    at: new Date(nowMs).toISOString(),
    count: troubles.length,
    peers,
  };
  return JSON.stringify(report);
}

/** `/mesh`: all the trouble between nodes, as they have told each other. */
export interface MeshReport {
  /** How many nodes there are, as far as this one knows. */
  readonly nodes: number;
  /** Whether the store takes such notes; if not, this is what this node alone finds. */
  readonly shared: boolean;
  /** Each subnet in trouble with each kind of trouble, what most nodes find first. */
  readonly troubles: readonly {
    /** The subnet of the node in trouble. */
    readonly subnet: string;
    /** How it is found. */
    readonly health: string;
    /** Since when, by the node that found it first. */
    readonly since: string;
    /** The keys of the leases of those who find it so. */
    readonly from: readonly string[];
    /** What follows from all notes together: `node-down`, `underlay-cut`; `null` if no more than the health says. */
    readonly conclusion: "node-down" | "underlay-cut" | null;
  }[];
  /** Nodes that have more trouble than their note has room for, and with how many peers. */
  readonly overflowing: readonly { readonly from: string; readonly peers: number }[];
}

/**
 * Puts notes together. One that cannot be read is left out. A node that does not answer is down if at least half of the
 * others say so and it has said nothing itself; otherwise the underlay is cut between it and those who say so.
 *
 * @param notes by the keys of leases
 * @param nodes how many nodes there are
 */
export function meshReport(
  notes: ReadonlyMap<string, string>,
  nodes: number,
  shared: boolean,
): MeshReport {
  const reports = [...notes].flatMap(([from, text]) => {
    const report = note.safeParse(parseJson(text)).data;
    return report === undefined ? [] : [{ from, report }];
  });
  const alive = new Set([...notes.keys()].flatMap((key) => key.split("&")));
  const found = reports.flatMap(({ from, report: { peers } }) =>
    peers.map(({ subnet, health, since }) => ({ from, subnet, health, since }))
  );
  const troubles = [...Map.groupBy(found, ({ subnet, health }) => `${health} ${subnet}`).values()]
    .map((same) => {
      const { subnet, health } = same[0]!;
      const from = same.map(({ from }) => from);
      const isAlive = alive.has(subnet.replace("/", "-"));
      const isDown = shared && !isAlive && 2 * from.length >= nodes - 1;
      return {
        subnet,
        health,
        since: same.map(({ since }) => since).sort()[0]!,
        from,
        conclusion: health !== "no-answer" || !shared
          ? null
          : isDown
          ? "node-down" as const
          : "underlay-cut" as const,
      };
    })
    .sort((a, b) => b.from.length - a.from.length);
  const overflowing = reports.filter(({ report: { count, peers } }) => count > peers.length)
    .map(({ from, report: { count } }) => ({ from, peers: count }));
  return { nodes, shared, troubles, overflowing };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
