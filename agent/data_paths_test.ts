import {
  type Lease,
  type LeaseEvent,
  parseLease,
  parseNetworkConfig,
  PeerTable,
} from "@denim/core";
import assert from "node:assert/strict";
import { z } from "zod";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { type AnyBackend, type DataPath, DataPaths, HOLD_MS } from "./data_paths.ts";

const CONFIG = parseNetworkConfig('{"Network":"10.5.0.0/16"}');
const OWN = "10.5.9.0-24";

function path(type: string): DataPath {
  const backend = { type, leaseType: type, peerData: z.unknown() } as unknown as AnyBackend;
  const peers = new PeerTable<unknown>(backend, CONFIG, new RecordingLog());
  peers.ownKey = OWN;
  return { owner: type, settings: type, backend, session: undefined!, peers };
}

function lease(number: number, type: string): Lease {
  const value = `{"PublicIP":"10.99.0.${number}","BackendType":"${type}"}`;
  return parseLease(`10.5.${number}.0-24`, value, undefined);
}

const snapshot = (...leases: Lease[]): LeaseEvent => ({ kind: "snapshot", leases });
const put = (...leases: Lease[]): LeaseEvent => ({ kind: "changes", put: leases, removed: [] });

/** The paths and what was told, as `a+10.5.1.0-24`. */
class Story {
  readonly a = path("a");
  readonly b = path("b");
  holds = 0;
  readonly paths = new DataPaths(this.a, () => this.holds++);

  take(event: LeaseEvent, nowMs = 0): string[] {
    return [...this.paths.take(event, nowMs)].flatMap(([{ owner }, { put, removed }]) => [
      ...put.map(({ key }) => `${owner}+${key}`),
      ...removed.map((key) => `${owner}-${key}`),
    ]);
  }
}

Deno.test("peers follow the cluster's change from one data path to the other, and back", () => {
  const story = new Story();
  const all = (one: string, two: string) => [lease(1, one), lease(2, two), lease(9, "a")];
  assert.deepEqual(story.take(snapshot(...all("a", "a"))), ["a+10.5.1.0-24", "a+10.5.2.0-24"]);
  story.paths.change(story.b);
  assert.deepEqual(story.take(snapshot(...all("a", "a"))), [], "who has not changed stays");
  assert.deepEqual(story.take(put(lease(1, "b"))), ["b+10.5.1.0-24", "a-10.5.1.0-24"]);
  assert.deepEqual(story.take(put(lease(9, "b"))), [], "the own lease is nobody's peer");
  assert.deepEqual(story.take(snapshot(...all("b", "b"))), ["b+10.5.2.0-24", "a-10.5.2.0-24"]);
  assert.equal(story.a.peers.size, 0);
  story.paths.change(story.a);
  assert.deepEqual(story.paths.all, [story.a, story.b]);
  assert.deepEqual(story.take(put(lease(1, "a"))), ["a+10.5.1.0-24", "b-10.5.1.0-24"]);
  story.paths.delete(story.b);
  assert.deepEqual(story.paths.all, [story.a]);
});

Deno.test("a peer that changed first is held until this node changes too", () => {
  const story = new Story();
  story.take(snapshot(lease(1, "a"), lease(2, "a")));
  assert.deepEqual(story.take(put(lease(1, "b"))), []);
  assert.deepEqual(story.take(snapshot(lease(1, "b"), lease(2, "a")), HOLD_MS - 1), []);
  assert.equal(story.holds, 1);
  story.paths.change(story.b);
  assert.deepEqual(story.take(snapshot(lease(1, "b"), lease(2, "a"))), [
    "b+10.5.1.0-24",
    "a-10.5.1.0-24",
  ]);
});

Deno.test("a peer is not held for ever, nor once its lease is gone; a stranger never", () => {
  const story = new Story();
  story.take(snapshot(lease(1, "a"), lease(2, "a"), lease(3, "c")));
  assert.equal(story.holds, 0);
  story.take(put(lease(1, "b"), lease(2, "b")));
  const gone: LeaseEvent = { kind: "changes", put: [], removed: ["10.5.2.0-24"] };
  assert.deepEqual(story.take(gone), ["a-10.5.2.0-24"]);
  assert.deepEqual(story.take(snapshot(lease(1, "b")), HOLD_MS), ["a-10.5.1.0-24"]);
  assert.equal(story.a.peers.size, 0);
});
