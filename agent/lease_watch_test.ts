import type { LeaseEvent } from "@denim/core";
import { OWN } from "../tests/support/fake_data_paths.ts";
import assert from "node:assert/strict";
import { settled } from "../tests/support/fake_clock.ts";
import { LeaseWatch } from "./lease_watch.ts";

/** A fake of a store whose watch says a snapshot, and then nothing until it ends. */
class FakeWatchedStore {
  watches = 0;
  reachable: Promise<void> = Promise.resolve();

  async *watch(signal: AbortSignal): AsyncGenerator<LeaseEvent> {
    this.watches++;
    await this.reachable;
    yield { kind: "snapshot", leases: [] };
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener("abort", resolve));
  }
}

function watchOf(store: FakeWatchedStore, signal: AbortSignal, needed = () => true): LeaseWatch {
  return new LeaseWatch({ store, needed, own: () => OWN, signal });
}

Deno.test("leases are read again on demand, and whoever asked waits until each was handed on", async () => {
  const store = new FakeWatchedStore(), stopping = new AbortController();
  const watch = watchOf(store, stopping.signal);
  let events = 0, read = false;
  const running = watch.run(() => void events++);
  await settled();
  assert.deepEqual([store.watches, events], [1, 1]);
  const reach = Promise.withResolvers<void>();
  store.reachable = reach.promise;
  const rereading = watch.reread().then(() => read = true);
  await settled();
  assert.deepEqual([store.watches, read], [2, false]);
  reach.resolve();
  await rereading;
  assert.deepEqual([store.watches, events], [2, 2]);
  const last = watch.reread();
  stopping.abort();
  await Promise.all([last, running, watch.reread()]);
});

Deno.test("a watch that fails, and an event that cannot be handled, end it", async () => {
  const signal = new AbortController().signal;
  const defect = () => {
    throw new TypeError("undefined is not a function");
  };
  await assert.rejects(watchOf(new FakeWatchedStore(), signal).run(defect), TypeError);
  const store = new FakeWatchedStore();
  store.reachable = Promise.reject(new TypeError("undefined is not iterable"));
  await assert.rejects(watchOf(store, signal).run(() => {}), TypeError);
});

Deno.test("a store is watched only while somebody has to know of other nodes", async () => {
  const store = new FakeWatchedStore(), stopping = new AbortController();
  let needed = false;
  const watch = watchOf(store, stopping.signal, () => needed);
  const events: LeaseEvent[] = [];
  const running = watch.run((event) => void events.push(event));
  await settled();
  assert.deepEqual([store.watches, events], [0, [{ kind: "snapshot", leases: [OWN] }]]);
  for (const [now, watches] of [[true, 1], [false, 1], [true, 2]] as const) {
    needed = now;
    events.length = 0;
    await watch.reread();
    assert.deepEqual([store.watches, events.length], [watches, 1]);
  }
  stopping.abort();
  await running;
});
