import type { LeaseEvent } from "@denim/core";
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

Deno.test("leases are read again on demand, and whoever asked waits until each was handed on", async () => {
  const store = new FakeWatchedStore(), stopping = new AbortController();
  const watch = new LeaseWatch(store, stopping.signal);
  let events = 0, read = false;
  const running = watch.run(() => Promise.resolve(void events++));
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
  const defect = () => Promise.reject(new TypeError("undefined is not a function"));
  await assert.rejects(new LeaseWatch(new FakeWatchedStore(), signal).run(defect), TypeError);
  const store = new FakeWatchedStore();
  store.reachable = Promise.reject(new TypeError("undefined is not iterable"));
  await assert.rejects(new LeaseWatch(store, signal).run(() => Promise.resolve()), TypeError);
});
