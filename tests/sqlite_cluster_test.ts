/** Whole nodes whose store's file gets into trouble: real agents, pods that talk throughout. */

import { SqliteStore } from "@denim/core/stores/sqlite";
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { Lab, type LabNode } from "@denim/agent/lab";
import { FileGoneError } from "../core/stores/sqlite/database.ts";
import { RunningPing } from "./support/ping.ts";
import { reached } from "./support/reached.ts";
import { RecordingLog } from "./support/recording_log.ts";
import { rootTest } from "./support/root_test.ts";
import { sh } from "./support/sh.ts";
import { SmallDisk } from "./support/small_disk.ts";
import { eventually, NEVER } from "./support/wait.ts";

/** Three subnets to lease: the first of a network is never given. */
const NET_CONF = { Network: "10.5.0.0/25", SubnetLen: 27, Backend: { Type: "vxlan" } };
/** By then whoever did not come back into the file is taken for gone. */
const SETTLED_MS = 3_500;

/** A cluster of three, of which two run, on a file on a disk of its own. */
interface Place {
  readonly path: string;
  readonly disk: SmallDisk;
  /** The test's own view. */
  readonly store: SqliteStore;
  readonly nodes: readonly LabNode[];
  /** How long each agent's log was when the mishap began, in characters. */
  logged: readonly number[];
}

function logOf({ logFile }: LabNode): string {
  return Deno.readTextFileSync(logFile);
}

/** How often each agent has said something since the mishap began. */
function said({ nodes, logged }: Place, pattern: RegExp): number[] {
  return nodes.map((node, index) => [...logOf(node).slice(logged[index]).matchAll(pattern)].length);
}

async function allSaid(place: Place, pattern: RegExp): Promise<void> {
  await eventually(`all say ${pattern}`, () => said(place, pattern).every((times) => times === 1));
}

/** Waits until both agents are in the file. */
async function allAreIn({ path, store }: Place): Promise<void> {
  const areIn = async () => {
    try {
      return existsSync(path) && (await store.leases(NEVER)).length === 2;
    } catch (error) {
      // An agent that makes the file has not written into it yet.
      if (error instanceof FileGoneError) return false;
      throw error;
    }
  };
  await eventually("all are in it", areIn);
}

const AGAIN = /INFO +sqlite:.* can be used again, after/g;

/** What may happen to the file, and what mends it if the agents don't by themselves. */
const MISHAPS: Readonly<Record<string, (place: Place) => Promise<void>>> = {
  "deleted": async (place) => {
    Deno.removeSync(place.path);
    // One that is slow finds the other's new file.
    const isSaid = () => said(place, /WARN +waiting for sqlite:.*the file is gone/g).includes(1);
    assert.ok(await eventually("an agent says so", isSaid) < 1_000);
    await allAreIn(place);
  },
  "put back from an older copy": async (place) => {
    const { path } = place;
    // So nobody is in the middle of a write. Another process copies: this one would lose the lock by closing the file.
    using still = new DatabaseSync(path);
    still.exec("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE");
    sh('cp "$1" "$1-copy"', [path]);
    {
      using db = new DatabaseSync(`${path}-copy`);
      db.exec("DELETE FROM leases; UPDATE sqlite_sequence SET seq = seq - 10");
    }
    Deno.renameSync(`${path}-copy`, path);
    still.close();
    await allAreIn(place);
  },
  "damaged, and moved away": async (place) => {
    Deno.truncateSync(place.path, 10_000);
    await allSaid(place, /WARN +waiting for sqlite:.*it is damaged.*; move it away/g);
    Deno.removeSync(place.path);
    await allSaid(place, AGAIN);
  },
  "on a full disk": async (place) => {
    place.disk.fill();
    await allSaid(place, /WARN +waiting for sqlite:.*: make room on its file system/g);
    place.disk.empty();
    await allSaid(place, AGAIN);
  },
};

rootTest(
  "sqlite's file in trouble: no packet is lost, no agent ends, all get their subnets again",
  async (t) => {
    using disk = new SmallDisk();
    const path = `${disk.directory}/denim.db`;
    const storeFlags = ["--store", `sqlite:${path}`];
    const renews = new URL("./support/agent_that_renews.ts", import.meta.url).pathname;
    await using lab = await Lab.create({
      nodes: 3,
      netConf: NET_CONF,
      storeFlags,
      agentProgram: [Deno.execPath(), "run", "-A", renews],
    });
    await using store = SqliteStore.open(path, { log: new RecordingLog(), patient: false });
    await store.setNetworkConfig(JSON.stringify(NET_CONF), { ifAbsent: true }, NEVER);
    const [one, two, late] = lab.nodes as [LabNode, LabNode, LabNode];
    const nodes = [one, two];
    await Promise.all(nodes.map((node) => node.startAgent(NEVER)));
    const place: Place = { path, disk, store, nodes, logged: [] };
    const before = nodes.map((node) => `${node.subnet()} ${node.agentPid}`);
    const [a, b] = [await one.addPod("a"), await two.addPod("b")];
    await reached(a, b.address);
    for (const [what, happen] of Object.entries(MISHAPS)) {
      await t.step(what, async () => {
        using namespace = a.open();
        const pinging = new RunningPing(namespace, ["-i", "0.01", `${b.address}`]);
        place.logged = nodes.map((node) => logOf(node).length);
        const startMs = performance.now();
        await happen(place);
        const healedMs = performance.now() - startMs;
        const settledAtMs = performance.now() + SETTLED_MS;
        await eventually("all is settled", () => performance.now() > settledAtMs);
        const { sent, received } = await pinging.stop();
        assert.equal(received, sent);
        const leases = await store.leases(NEVER);
        assert.deepEqual(
          leases.map(({ halves }) => `${halves[0]!.subnet} ${halves[0]!.publicIp}`).sort(),
          nodes.map((node) => `${node.subnet()} ${node.publicIp}`).sort(),
        );
        assert.equal(await store.networkConfigText(NEVER), JSON.stringify(NET_CONF));
        assert.ok(nodes.every(({ agentPid }) => existsSync(`/proc/${agentPid}`)));
        assert.deepEqual(nodes.map((node) => `${node.subnet()} ${node.agentPid}`), before);
        assert.deepEqual(said(place, / ERROR /g), [0, 0]);
        console.log(
          `sqlite ${what}: ${received}/${sent} packets, healed ${healedMs.toFixed(0)} ms`,
        );
      });
    }
    await late.startAgent(NEVER);
    const c = await late.addPod("c");
    await reached(c, a.address);
    using namespace = c.open();
    const counts = await new RunningPing(namespace, ["-c", "2", "-i", "0.2", `${a.address}`])
      .finish();
    assert.deepEqual(counts, { sent: 2, received: 2 });
  },
);
