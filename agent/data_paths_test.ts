import { type Lease, type LeaseEvent, parseNetworkConfig, PeerTable } from "@denim/core";
import assert from "node:assert/strict";
import * as z from "zod";
import { lease } from "../tests/support/fake_data_paths.ts";
import { RecordingLog } from "../tests/support/recording_log.ts";
import type { AnyBackend } from "./net_conf.ts";
import { type AssignablePath, DataPaths, HOLD_MS } from "./data_paths.ts";

const CONFIG = parseNetworkConfig('{"Network":"10.5.0.0/16"}');
const OWN = "10.5.9.0-24";

function path(type: string): AssignablePath {
  const backend = { type, leaseType: type, peerData: z.unknown() } as unknown as AnyBackend;
  const peers = new PeerTable<unknown>(backend, CONFIG, new RecordingLog());
  peers.ownKey = OWN;
  return { backend, peers };
}

const snapshot = (...leases: Lease[]): LeaseEvent => ({ kind: "snapshot", leases });
const put = (...leases: Lease[]): LeaseEvent => ({ kind: "changes", put: leases, removed: [] });

/** Two data paths and what happens to their peers, as `a+10.5.1.0-24`. */
class PathsStory {
  readonly a = path("a");
  readonly b = path("b");
  holds = 0;
  readonly paths: DataPaths<AssignablePath> = new DataPaths(this.a, () => this.holds++);

  apply(event: LeaseEvent, nowMs = 0): string[] {
    return [...this.paths.apply(event, nowMs)].flatMap(([{ backend }, { put, removed }]) => [
      ...put.map(({ key }) => `${backend.type}+${key}`),
      ...removed.map((key) => `${backend.type}-${key}`),
    ]);
  }
}

Deno.test("peers follow the cluster's change from one data path to the other, and back", () => {
  const story = new PathsStory();
  const all = (one: string, two: string) => [lease(1, one), lease(2, two), lease(9, "a")];
  assert.deepEqual(story.apply(snapshot(...all("a", "a"))), ["a+10.5.1.0-24", "a+10.5.2.0-24"]);
  story.paths.change(story.b);
  assert.deepEqual(
    story.apply(snapshot(...all("a", "a"))),
    [],
    "a peer that has not changed stays",
  );
  assert.deepEqual(story.apply(put(lease(1, "b"))), ["b+10.5.1.0-24", "a-10.5.1.0-24"]);
  assert.deepEqual(story.apply(put(lease(9, "b"))), [], "the node's own lease is not a peer");
  assert.deepEqual(story.apply(snapshot(...all("b", "b"))), ["b+10.5.2.0-24", "a-10.5.2.0-24"]);
  assert.equal(story.a.peers.size, 0);
  story.paths.change(story.a);
  assert.deepEqual(story.paths.all, [story.a, story.b]);
  assert.deepEqual(story.apply(put(lease(1, "a"))), ["a+10.5.1.0-24", "b-10.5.1.0-24"]);
  story.paths.delete(story.b);
  assert.deepEqual(story.paths.all, [story.a]);
});

Deno.test("a peer that changed first is held until this node changes too", () => {
  const story = new PathsStory();
  story.apply(snapshot(lease(1, "a"), lease(2, "a")));
  assert.deepEqual(story.apply(put(lease(1, "b"))), []);
  assert.deepEqual(story.apply(snapshot(lease(1, "b"), lease(2, "a")), HOLD_MS - 1), []);
  assert.equal(story.holds, 1);
  story.paths.change(story.b);
  assert.deepEqual(story.apply(snapshot(lease(1, "b"), lease(2, "a"))), [
    "b+10.5.1.0-24",
    "a-10.5.1.0-24",
  ]);
});

Deno.test("a peer is held for a while, and while it has a lease; a new one is not held", () => {
  const story = new PathsStory();
  story.apply(snapshot(lease(1, "a"), lease(2, "a"), lease(3, "c")));
  assert.equal(story.holds, 0);
  story.apply(put(lease(1, "b"), lease(2, "b")));
  const gone: LeaseEvent = { kind: "changes", put: [], removed: ["10.5.2.0-24"] };
  assert.deepEqual(story.apply(gone), ["a-10.5.2.0-24"]);
  assert.deepEqual(story.apply(snapshot(lease(1, "b")), HOLD_MS), ["a-10.5.1.0-24"]);
  assert.equal(story.a.peers.size, 0);
});
