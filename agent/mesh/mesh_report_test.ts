import assert from "node:assert/strict";
import { formatReport, meshReport } from "./mesh_report.ts";
import type { Health } from "./peer_health.ts";

const key = (number: number) => `10.5.${number}.0-24`;
const subnet = (number: number) => `10.5.${number}.0/24`;

/** Notes of nodes by number, each with the peers that it finds so, since a second of 1970. */
function notes(
  told: Readonly<Record<number, readonly (readonly [number, Health, number])[]>>,
  nodes = 6,
) {
  return new Map(
    Object.entries(told).map(([from, found]) => {
      const troubles = found.map(([number, health, since]) => (
        { subnet: subnet(number), health, sinceMs: since * 1000 }
      ));
      return [key(Number(from)), formatReport(troubles, nodes, 9000)];
    }),
  );
}

Deno.test("mesh report: who answers nobody and is silent is down; else the underlay is cut", () => {
  const told = notes({
    1: [[3, "no-answer", 5], [4, "no-answer", 5]],
    2: [[3, "no-answer", 4], [5, "mtu", 6]],
    4: [[1, "no-answer", 5]],
  });
  const { troubles } = meshReport(told, 6, true);
  assert.deepEqual(
    troubles.map((
      { subnet, health, from, conclusion },
    ) => [subnet, health, from.length, conclusion]),
    [
      [subnet(3), "no-answer", 2, "underlay-cut"],
      [subnet(4), "no-answer", 1, "underlay-cut"],
      [subnet(5), "mtu", 1, null],
      [subnet(1), "no-answer", 1, "underlay-cut"],
    ],
    "two of five are fewer than half",
  );
  assert.equal(troubles[0]!.since, "1970-01-01T00:00:04.000Z");
  assert.equal(meshReport(told, 5, true).troubles[0]!.conclusion, "node-down");
  assert.equal(meshReport(told, 5, false).troubles[0]!.conclusion, null, "one node's view alone");
});

Deno.test("mesh report: a note names some of many peers; one that makes no sense is left out", () => {
  const many = Array.from({ length: 200 }, (_, number) => [number, "blocked", 1] as const);
  const told = new Map([...notes({ 1: many }, 201), [key(2), "{"], [key(3), '{"at":"now"}']]);
  const { troubles, overflowing } = meshReport(told, 201, true);
  assert.equal(troubles.length, 50);
  assert.deepEqual(overflowing, [{ from: key(1), peers: 200 }]);
  const named = (peers: number, nodes: number) =>
    meshReport(notes({ 1: many.slice(0, peers) }, nodes), nodes, true).troubles.length;
  assert.equal(named(200, 2_000), 25, "where many may have as much to tell each tells less");
  assert.equal(named(200, 20_000), 10);
  assert.equal(named(50, 20_000), 50, "as long as it is not too much, all");
});
