/** What the reconciler does with any table: the contract of `KernelTable`, on tables in memory. */

import assert from "node:assert/strict";
import { MemoryKernel, type Thing } from "../../../tests/support/memory_table.ts";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { RuntimeError } from "../../errors.ts";
import { MetricsRegistry } from "../../metrics.ts";
import { Reconciler } from "./reconciler.ts";

/** A reconciler of tables in memory, on a clock that stands still unless a test moves it. */
class House implements AsyncDisposable {
  readonly kernel = new MemoryKernel();
  readonly log = new RecordingLog();
  readonly metrics = new MetricsRegistry();
  nowMs = 1_000_000;
  readonly reconciler = new Reconciler<Thing>({
    log: this.log,
    metrics: this.metrics,
    open: () => this.kernel,
    now: () => this.nowMs,
  });
  readonly #stop = new AbortController();
  running: Promise<unknown> = Promise.resolve();

  /** A house with a shelf and two books on it, kept from now on. */
  static keep(): House {
    const house = new House();
    house.reconciler.set("node", [shelf("a")]);
    house.reconciler.set("peer", [book("x"), book("y")]);
    assert.deepEqual(house.reconciler.check().failures, []);
    house.kernel.takeJournal();
    house.run();
    return house;
  }

  run(): void {
    this.running = this.reconciler.run(this.#stop.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.running;
    this.reconciler[Symbol.dispose]();
  }
}

function shelf(name: string, value = ""): Thing {
  return { kind: "shelf", name, value };
}

function mark(name: string, on: string): Thing {
  return { kind: "mark", name, value: "", on };
}

function book(name: string, value = "", on = "shelf:a"): Thing {
  return { kind: "book", name, value, on };
}

Deno.test("puts go from the first table to the last, removals the other way, after all puts", async () => {
  await using house = new House();
  const { reconciler, kernel } = house;
  reconciler.set("peer", [mark("x", "book:x"), book("x"), shelf("a")]);
  assert.deepEqual(reconciler.apply(), { changes: 3, failures: [] });
  assert.deepEqual(kernel.takeJournal(), ["put shelf:a", "put book:x", "put mark:x"]);
  reconciler.set("peer", [mark("y", "book:y"), book("y", "", "shelf:b"), shelf("b")]);
  reconciler.apply();
  assert.deepEqual(kernel.takeJournal(), [
    "put shelf:b",
    "put book:y",
    "put mark:y",
    "remove mark:x",
    "remove book:x",
    "remove shelf:a",
  ]);
});

Deno.test("apply looks at what was set alone, and takes no step for what is right", async () => {
  await using house = new House();
  const { reconciler, kernel } = house;
  kernel.books.things.set("book:z", book("z"));
  reconciler.set("node", [shelf("a")]);
  reconciler.set("peer", [book("x")]);
  reconciler.apply();
  assert.deepEqual(kernel.takeJournal(), ["put shelf:a", "put book:x"]);
  reconciler.set("peer", [book("x")]);
  assert.deepEqual(reconciler.apply(), { changes: 0, failures: [] });
  assert.deepEqual(kernel.takeJournal(), []);
  assert.ok(kernel.books.things.has("book:z"), "an earlier run's, while owners are still heard");
});

Deno.test("check removes what is denim's and wanted by nobody, and leaves others' things", async () => {
  await using house = new House();
  const { reconciler, kernel } = house;
  kernel.books.things.set("book:old", book("old"));
  kernel.books.things.set("book:theirs", { ...book("theirs"), by: "somebody" });
  kernel.books.things.set("book:x", { ...book("x"), by: "somebody" });
  reconciler.set("node", [shelf("a")]);
  reconciler.set("peer", [book("x"), book("y")]);
  assert.deepEqual(reconciler.check(), { changes: 3, failures: [] });
  assert.deepEqual([...kernel.books.things.keys()].toSorted(), ["book:theirs", "book:x", "book:y"]);
  assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });
});

Deno.test("what others change is repaired by its event, without a dump", async () => {
  await using house = House.keep();
  const { kernel, log, metrics } = house;
  const repaired = async (key: string, value: string, steps: readonly string[]) => {
    await eventually(key, () => kernel.books.things.get(key)?.value === value);
    assert.deepEqual(kernel.takeJournal(), steps);
  };
  kernel.books.change(book("x", "torn"));
  await repaired("book:x", "", ["put book:x"]);
  kernel.books.lose("book:y");
  await repaired("book:y", "", ["put book:y"]);
  kernel.books.change(book("stray"));
  await eventually("the stray book's removal", () => !kernel.books.things.has("book:stray"));
  assert.deepEqual(kernel.takeJournal(), ["remove book:stray"]);
  kernel.books.change({ ...book("theirs"), by: "somebody" });
  assert.deepEqual(kernel.foreign, ["book:theirs"]);
  assert.equal(log.of("drift-repaired").length, 3);
  const value = (name: string, labels = {}) => metrics.value(`denim_reconciler_${name}`, labels);
  assert.equal(value("repairs_total", { kind: "book" }), 3);
  assert.equal(value("steps_total", { kind: "book", action: "put" }), 4);
  assert.equal(value("steps_total", { kind: "book", action: "remove" }), 1);
  const passes = metrics.samples().find(({ name }) => name === "denim_reconciler_pass_seconds");
  assert.ok(passes!.buckets!.at(-1)![1] >= 4);
  assert.equal(value("failed_passes_total"), 0);
});

Deno.test("lost events cost a dump of their table, and what they would have said is repaired", async () => {
  await using house = House.keep();
  const { kernel } = house;
  kernel.books.lose("book:x", { unheard: true });
  kernel.books.change({ ...book("y", "torn"), by: "somebody" }, { unheard: true });
  kernel.books.reportLost();
  await eventually("the repair", () => kernel.books.things.size === 2);
  assert.deepEqual(kernel.takeJournal(), ["dump books", "put book:x", "put book:y"]);
});

Deno.test("what a carrier may have cost is looked up when the carrier is made or restored", async () => {
  await using house = House.keep();
  const { kernel, reconciler, log } = house;
  kernel.books.lose("book:x", { unheard: true });
  kernel.shelves.lose("shelf:a");
  await eventually("the repair", () => kernel.books.things.has("book:x"));
  assert.deepEqual(kernel.takeJournal(), ["put shelf:a", "dump books", "put book:x", "dump marks"]);
  assert.match(log.of("drift-repaired")[0]!.message, /put shelf:a$/, "one cause, one line");

  kernel.books.lose("book:y", { unheard: true });
  kernel.shelves.reportRestored("shelf:elsewhere");
  kernel.books.change(book("x", "torn"));
  await eventually("the repair", () => kernel.books.things.get("book:x")!.value === "");
  assert.deepEqual(kernel.takeJournal(), ["put book:x"], "nothing stands on that shelf");
  kernel.shelves.reportRestored("shelf:a");
  await eventually("the repair", () => kernel.books.things.has("book:y"));
  assert.deepEqual(kernel.takeJournal(), [
    "dump shelves",
    "dump books",
    "put book:y",
    "dump marks",
  ]);
  assert.equal(reconciler.check().changes, 0);
});

Deno.test("what needs an object that is gone is put again with it", async () => {
  await using house = House.keep();
  const { kernel, reconciler } = house;
  reconciler.set("reader", [book("one"), book("two", "", "book:one")]);
  reconciler.apply();
  kernel.takeJournal();
  kernel.books.lose("book:two", { unheard: true });
  kernel.books.lose("book:one");
  await eventually("the repair", () => kernel.books.things.has("book:two"));
  assert.deepEqual(kernel.takeJournal(), ["put book:one", "put book:two"]);
});

Deno.test("a step that fails is reported, fails alone, and is tried again until it succeeds", async () => {
  await using house = House.keep();
  const { kernel, reconciler, log, metrics } = house;
  kernel.books.refused.set("book:z", new RuntimeError("book:z: the shelf is full"));
  reconciler.set("other", [book("z"), book("w")]);
  assert.deepEqual(reconciler.apply(), { changes: 1, failures: ["book:z: the shelf is full"] });
  await eventually("the complaint", () => log.of("reconcile-failed").length > 0);
  assert.ok(metrics.value("denim_reconciler_failed_passes_total")! > 0);
  kernel.books.refused.clear();
  kernel.books.change(book("w")); // an event: no need to wait for the next attempt
  await eventually("the step", () => kernel.books.things.has("book:z"));
  assert.equal(log.of("reconcile-failed").length, 1, "said once");
  assert.deepEqual(
    log.of("drift-repaired"),
    [],
    "what an owner asks for is no repair, however late",
  );
});

Deno.test("another's object in the way stays, until it goes", async () => {
  await using house = House.keep();
  const { kernel, reconciler } = house;
  kernel.books.change({ ...book("z", "theirs"), by: "somebody" });
  reconciler.set("other", [book("z")]);
  assert.deepEqual(reconciler.apply().failures, ["book:z is somebody's"]);
  assert.equal(kernel.books.things.get("book:z")?.value, "theirs");
  kernel.books.lose("book:z");
  await eventually("denim's own", () => kernel.books.things.get("book:z")?.value === "");
});

Deno.test("repairs of one object slow down, and with it of what needs it; all others are at once", async () => {
  await using house = House.keep();
  const { kernel, reconciler, log } = house;
  const tear = () => kernel.books.change(book("x", "torn"));
  reconciler.set("reader", [book("notes", "", "book:x")]);
  reconciler.apply();
  for (let count = 0; count < 10; count++) {
    tear();
    await eventually("the repair", () => kernel.books.things.get("book:x")!.value === "");
  }
  tear();
  kernel.books.lose("book:notes");
  kernel.books.lose("book:y");
  await eventually("another's repair", () => kernel.books.things.has("book:y"));
  const waits = () =>
    kernel.books.things.get("book:x")!.value === "torn" && !kernel.books.things.has("book:notes");
  assert.ok(waits());
  reconciler.check();
  assert.ok(waits(), "a check lifts no delay");
  assert.equal(log.of("drift-contested").length, 1);
  house.nowMs += 19;
  reconciler.check();
  assert.ok(waits(), "20 ms");
  house.nowMs++;
  reconciler.check();
  assert.equal(kernel.books.things.get("book:x")!.value, "");
  assert.ok(kernel.books.things.has("book:notes"));
  // What an owner asks for does not wait.
  tear();
  reconciler.set("peer", [book("x", "new"), book("y")]);
  reconciler.apply();
  assert.equal(kernel.books.things.get("book:x")!.value, "new");
});

Deno.test("a carrier that comes and goes all the time is no cause for dump after dump", async () => {
  await using house = House.keep();
  const { kernel, log } = house;
  for (let count = 0; count < 10; count++) {
    kernel.shelves.reportRestored("shelf:a");
    await eventually("the dump", () => kernel.takeJournal().includes("dump books"));
  }
  kernel.shelves.reportRestored("shelf:a");
  kernel.books.lose("book:y");
  await eventually("another's repair", () => kernel.books.things.has("book:y"));
  assert.deepEqual(kernel.takeJournal(), ["put book:y"]);
  assert.match(log.of("drift-contested")[0]!.message, /the state of shelf:a/);
});

Deno.test("a defect in a table ends the run, and is thrown out of apply", async () => {
  await using house = House.keep();
  const { kernel, reconciler, running } = house;
  let end: unknown;
  house.running = running.catch((error) => end = error);
  kernel.books.dump = () => {
    throw new TypeError("a defect");
  };
  assert.throws(() => reconciler.check(), TypeError);
  kernel.books.reportLost();
  await eventually("its end", () => end instanceof TypeError);
});

Deno.test("an expected error of a dump is a failure, and the dump is tried again", async () => {
  await using house = House.keep();
  const { kernel, log } = house;
  const { dump } = kernel.books;
  kernel.books.dump = () => {
    throw new RuntimeError("out of memory");
  };
  kernel.books.lose("book:x", { unheard: true });
  kernel.books.reportLost();
  await eventually("the complaint", () => log.of("reconcile-failed").length > 0);
  kernel.books.dump = dump;
  kernel.books.change(book("y"));
  kernel.books.reportLost();
  await eventually("the repair", () => kernel.books.things.has("book:x"));
});

Deno.test("an object of a kind that no table keeps is a defect", async () => {
  await using house = new House();
  assert.throws(() => house.reconciler.set("node", [{ kind: "lamp", name: "a", value: "" }]), {
    name: "TypeError",
    message: 'no table keeps objects of the kind "lamp"',
  });
});
