/**
 * The reconciler makes the kernel match what owners want, and keeps it so. Nothing else in denim changes the links,
 * addresses, neighbours, FDB entries, nexthops, routes and settings by which pods' packets travel.
 *
 * An owner (the node itself, or a peer) replaces its own objects as a whole. Work flows through these stations:
 *
 *  1. **set**. {@link Reconciler.set} stores an owner's objects by key in the desired state. Keys whose object is
 *     another than before become *dirty*. Nothing happens in the kernel yet.
 *  2. **pass**. {@link Reconciler.apply} and {@link Reconciler.check} make one pass over the tables, in the order in
 *     which their objects are made (see linux_tables.ts). Steps 3 to 6 are done table by table.
 *  3. **compare**. A table is compared at its dirty keys; or in full, if asked for or if it may have changed unnoticed,
 *     by a dump of the kernel's objects. diff.ts turns differences into steps: puts first, then removals.
 *  4. **delay**. A step that repairs what others changed, again and again, waits (repair_schedule.ts), and with it the
 *     steps of objects that need its object. What an owner asks for never waits.
 *  5. **apply**. The table takes the other steps, rtnetlink's in batches. Removals at the end of a table's steps are
 *     kept until all tables have made what is wanted, and are then taken in the opposite order of tables: at no time
 *     does a packet find neither the old way nor the new one.
 *  6. **settle**. What a successful step left is remembered as *there*. A device that was made or set up has lost what
 *     it carried: later tables are compared in full. A table in which a step failed is compared in full later.
 *
 * {@link Reconciler.run} keeps it so. Tables report what others change: that makes keys dirty or, if events were lost,
 * tables *stale*. The loop has four states:
 *
 *     idle ── event, end of a delay, time to retry or to check ──► settling ── 10 ms ──► pass ──┬──► idle
 *      ▲                                                                                        │
 *      └───────────────────────── growing wait (retry) ◄── a step failed ───────────────────────┘
 *
 * Until the first {@link Reconciler.check} not all owners have said what they want, so no table is compared in full: an
 * earlier run's objects must not go before it is known who wants them.
 *
 * @module
 */

import { Backoff } from "../../backoff.ts";
import { Complaints } from "../../complaints.ts";
import { messageOf, throwDefect } from "../../errors.ts";
import { EventCounter } from "../../event_counter.ts";
import type { KernelObject, PodNetwork } from "../../kernel_state.ts";
import type { Logger } from "../../log.ts";
import { type Metrics, NO_METRICS } from "../../metrics.ts";
import { sleep } from "../../sleep.ts";
import { DesiredState } from "./desired_state.ts";
import { diff, type Steps } from "./diff.ts";
import type { Comparison, KindObjects } from "./kind_objects.ts";
import type {
  AnyStep,
  AnyTable,
  Derivation,
  DesiredView,
  KernelItem,
  KernelTables,
  TableListener,
} from "./kernel_table.ts";
import { LinuxTables, type UnderlayNews } from "./linux_tables.ts";
import { RepairSchedule } from "./repair_schedule.ts";

/** The time between full checks, in case a change went unnoticed for whatever reason; with many peers it is longer. */
const CHECK_INTERVAL_MS = 60_000;
/** What all full checks may take of a core. */
const CHECK_SHARE = 1 / 5_000;
/** Events that belong together arrive together: the wait for the rest of them. */
const SETTLE_MS = 10;
/** The waits before what failed is tried again, unless there is an event before. */
const RETRY = { minMs: 50, maxMs: 10_000 };

/** Bounds for how long passes take: from one peer's to a full check of tens of thousands. */
const PASS_SECONDS = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5];

/** What a pass achieved. */
export interface ReconcileResult {
  /** The number of steps that were taken. */
  readonly changes: number;
  /** Why steps failed, as messages for operators. */
  readonly failures: readonly string[];
}

/** How a {@link Reconciler} is made. */
export interface ReconcilerOptions {
  /** Takes what operators should know: repairs and failures while {@link Reconciler.run} does. */
  readonly log: Logger;
  /** Takes the numbers of steps, repairs, failures and passes; dropped unless given. */
  readonly metrics?: Metrics;
  /** Told of changes to routes and devices that are not denim's, while {@link Reconciler.run} does. */
  readonly onUnderlay?: (news: UnderlayNews) => void;
  /** How often iptables' rules are compared in full, in milliseconds; 5 s unless given. */
  readonly iptablesResyncMs?: number;
  /** Opens the tables; those of the thread's network namespace unless given. */
  readonly open?: (desired: DesiredView) => KernelTables;
  /** A monotonic clock in milliseconds; `performance.now` unless given. */
  readonly now?: () => number;
}

/** One kind of object. */
interface KindState {
  readonly name: string;
  readonly table: TableState;
  /** What is wanted of it, what the kernel has, and where the two may differ. */
  readonly objects: KindObjects;
}

/** One table, and whether it has to be compared in full. */
interface TableState {
  readonly table: AnyTable;
  readonly kinds: KindState[];
  /** Changes may have gone unnoticed. */
  stale: boolean;
  /** A step failed. */
  failing: boolean;
}

/** One kind of object that stands for others. */
interface DerivationState {
  readonly name: string;
  readonly derivation: Derivation;
  /** The first table that keeps derived objects. */
  readonly first: TableState;
  /** Whether it may derive something else now. */
  due: boolean;
}

/** How a step ended: it put or removed an object, or failed. */
type StepEnd = AnyStep["action"] | "fail";

/** What is done in one pass. */
interface Pass {
  /** Tables to compare in full. */
  readonly full: Set<TableState>;
  changes: number;
  /** Whether carriers were made or set up, so that what is missing was lost with them. */
  lost: boolean;
  readonly failures: string[];
  readonly failedKeys: string[];
  /** Numbers of steps, by kind. */
  readonly steps: Map<string, Record<StepEnd, number>>;
}

/** Makes the objects of its tables, those of one network namespace unless others are given, match what owners want. */
export class Reconciler<Want extends KernelItem = KernelObject> implements Disposable {
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #metrics: ReturnType<typeof countersOf>;
  readonly #desired: DesiredState;
  readonly #kernel: KernelTables;
  readonly #tables: readonly TableState[];
  readonly #kinds: ReadonlyMap<string, KindState>;
  readonly #derivations: readonly DerivationState[];
  /** Keys of what carries wanted objects: of the many devices that come and go, those that matter. */
  readonly #carriers = new Set<string>();
  readonly #schedule: RepairSchedule;
  /** Counts the reasons for a pass. */
  readonly #work = new EventCounter();
  /** Whether all owners have said what they want, so that what no owner wants may go. */
  #loaded = false;
  #running = false;
  /** How long the last full check took, in milliseconds. */
  #checkTookMs = 0;

  /** Opens the tables; in a network namespace without CAP_NET_ADMIN that throws a LinuxError. */
  constructor(options: ReconcilerOptions) {
    const { log, metrics = NO_METRICS, onUnderlay = () => {}, now = () => performance.now() } =
      options;
    const { iptablesResyncMs } = options;
    const open = options.open ??
      ((desired) => new LinuxTables({ desired, log, onUnderlay, iptablesResyncMs }));
    this.#log = log;
    this.#now = now;
    this.#metrics = countersOf(metrics);
    this.#schedule = new RepairSchedule({ log, metrics, now });
    this.#desired = new DesiredState((object) => this.#keeper(object).key(object));
    this.#kernel = open(this.#desired);
    ({ tables: this.#tables, kinds: this.#kinds } = statesOf(this.#kernel.tables, this.#desired));
    this.#derivations = Object.entries(this.#kernel.derivations ?? {})
      .map(([name, derivation]) => {
        const own = derivation.kinds.map((kind) => this.#kinds.get(kind)!.table);
        const first = this.#tables.find((state) => own.includes(state))!;
        return { name, derivation, first, due: false };
      });
  }

  #keeper({ kind }: KernelItem): AnyTable | Derivation {
    const keeper = this.#kinds.get(kind)?.table.table ??
      this.#derivations.find(({ name }) => name === kind)?.derivation;
    if (keeper === undefined) throw new TypeError(`no table keeps objects of the kind "${kind}"`);
    return keeper;
  }

  /**
   * The cluster's networks; none until they are set. Routes to them, and those routes' nexthops, are denim's if they
   * bear its protocol number. Any other with that number is denim's only on denim's own devices, or if an owner wants
   * it: another cluster's agent may run in the same namespace.
   */
  set networks(networks: readonly PodNetwork[]) {
    this.#kernel.networks = networks;
  }

  /** Closes the tables. What is in the kernel stays. */
  [Symbol.dispose](): void {
    this.#kernel[Symbol.dispose]();
  }

  /** Replaces what an owner wants. Nothing happens in the kernel before {@link Reconciler.apply}. */
  set(owner: string, objects: readonly Want[]): void {
    this.#set(owner, objects);
  }

  /** Removes what an owner wants. */
  delete(owner: string): void {
    this.#set(owner, []);
  }

  /** What an owner wants. */
  wantedBy(owner: string): Want[] {
    return this.#desired.ofOwner(owner).map(({ object }) => object as Want);
  }

  #set(owner: string, objects: readonly KernelItem[]): void {
    this.#desired.set(owner, objects, (name, key, wanted, before, row) => {
      const kind = this.#kinds.get(name);
      if (kind === undefined) {
        this.#derivations.find((state) => state.name === name)!.due = true;
        return;
      }
      const { table } = kind.table;
      if (wanted === undefined || before === undefined || !table.equal(wanted, before)) {
        this.#schedule.request(key);
      }
      const carrier = wanted && table.carrier?.(wanted);
      if (carrier !== undefined) this.#carriers.add(carrier);
      if (this.#schedule.isDelayed(key)) return;
      if (wanted === undefined) kind.objects.mark(key);
      else kind.objects.markRow(row);
    });
  }

  /** Marks a key for comparison, unless its repair is already being delayed. */
  #mark({ objects }: KindState, key: string): void {
    if (!this.#schedule.isDelayed(key)) objects.mark(key);
  }

  /** Makes the kernel match what was set or deleted since the last time. Costs what those objects cost. */
  apply(): ReconcileResult {
    return this.#attempt([]);
  }

  /**
   * Compares all that is wanted with all that the kernel has, and removes every difference. What earlier runs, or
   * flanneld, left on denim's devices is taken over if it is right, and removed if no owner wants it.
   */
  check(): ReconcileResult {
    if (!this.#loaded) this.#kernel.begin?.();
    this.#loaded = true;
    return this.#attempt(this.#tables);
  }

  /** A device may go while a table is compared, and the kernel may be out of memory: then nothing is certain. */
  #attempt(full: readonly TableState[]): ReconcileResult {
    const startMs = this.#now();
    const pass: Pass = {
      full: new Set(full),
      changes: 0,
      lost: false,
      failures: [],
      failedKeys: [],
      steps: new Map(),
    };
    try {
      if (this.#kernel.inside === undefined) this.#pass(pass);
      else this.#kernel.inside(() => this.#pass(pass));
    } catch (error) {
      throwDefect(error);
      for (const state of this.#tables) state.failing = true;
      pass.failures.push(messageOf(error));
    }
    this.#schedule.passed(pass.failedKeys, this.#loaded);
    this.#schedule.report(!this.#running);
    const tookMs = this.#now() - startMs;
    if (full.length === this.#tables.length) this.#checkTookMs = tookMs;
    this.#count(pass, tookMs);
    const { changes, failures } = pass;
    if (failures.length > 0) this.#work.add();
    return { changes, failures };
  }

  #pass(pass: Pass): void {
    const removals: (readonly [TableState, readonly AnyStep[]])[] = [];
    const everything = pass.full.size === this.#tables.length;
    this.#tables.forEach((state, place) => {
      this.#derive(state, everything, pass.full);
      const steps = pass.full.has(state) ? this.#compareAll(state) : this.#compareDirty(state);
      let carried: boolean;
      if (state.table.stepsAtOnce !== undefined && steps.removals.length === 0) {
        carried = this.#takeInParts(state, steps.puts, state.table.stepsAtOnce, pass);
      } else {
        const due = this.#dueOf(state, [...steps.puts, ...steps.removals]);
        // The last table's removals need not wait for the others' puts.
        const kept = place === this.#tables.length - 1
          ? due.length
          : due.findLastIndex(({ action }) => action === "put") + 1;
        if (kept < due.length) removals.push([state, due.slice(kept)]);
        carried = this.#take(state, kept < due.length ? due.slice(0, kept) : due, pass);
      }
      if (!carried || !this.#loaded) return;
      pass.lost = true;
      for (const later of this.#tables.slice(place + 1)) pass.full.add(later);
    });
    for (const [state, steps] of removals.toReversed()) this.#take(state, steps, pass);
  }

  /** Replaces objects that stand for others by those, before the first table that keeps them is compared. */
  #derive(state: TableState, everything: boolean, full: Set<TableState>): void {
    for (const derived of this.#derivations) {
      const { name, derivation: { owner, kinds }, first } = derived;
      if (first !== state || !everything && !derived.due) continue;
      derived.due = false;
      const sources = [...this.#desired.of(name).values()].map(({ object }) => object);
      const { objects, compare } = derived.derivation.derive(sources);
      this.#set(owner, objects);
      if (!compare || !this.#loaded) continue;
      for (const kind of kinds) full.add(this.#kinds.get(kind)!.table);
    }
  }

  /** Those of a table's steps that are due. */
  #dueOf({ table, kinds }: TableState, steps: readonly AnyStep[]): readonly AnyStep[] {
    const due = steps.filter((step) => !this.#isDelayed(table, step));
    if (table.arrange === undefined || due.length === 0) return due;
    const arranged = table.arrange(due, this.#wantedOf(kinds));
    return arranged === due ? due : arranged.filter(({ key }) => !this.#schedule.isDelayed(key));
  }

  /** Takes the puts of a table that are due. What is done with one part is garbage before the next one is made. */
  #takeInParts(
    state: TableState,
    puts: Iterable<AnyStep>,
    stepsAtOnce: number,
    pass: Pass,
  ): boolean {
    let carried = false;
    let part: AnyStep[] = [];
    const take = () => {
      if (this.#take(state, part, pass)) carried = true;
      part = [];
    };
    for (const step of puts) {
      if (this.#isDelayed(state.table, step)) continue;
      part.push(step);
      if (part.length === stepsAtOnce) take();
    }
    take();
    return carried;
  }

  *#wantedOf(kinds: readonly KindState[]): Generator<KernelItem> {
    for (const { objects } of kinds) for (const { object } of objects.values()) yield object;
  }

  #isDelayed(table: AnyTable, step: AnyStep): boolean {
    const needs = step.action === "put" && !this.#schedule.isIdle ? table.needs?.(step.object) : [];
    return this.#schedule.delay(step, needs ?? []);
  }

  #compareDirty({ table, kinds }: TableState): Steps {
    if (!kinds.some(({ objects }) => objects.isMarked)) return NO_STEPS;
    const sections = kinds.map(({ objects }) => {
      const { rows, keys } = objects.takeMarks();
      const found = new Map<string, KernelItem>();
      for (const key of keys) {
        const there = objects.has(key) ? undefined : objects.others.get(key);
        if (there === undefined) continue;
        found.set(key, there);
        // A setting that no owner wants any more stays as it is.
        if (!table.ours(there, true)) objects.setGone(key);
      }
      const wanted = objects.compare(rows);
      return {
        wanted: table.find === undefined ? wanted : asFound(table, wanted),
        isWanted: () => false,
        found,
      };
    });
    return diff(table, sections);
  }

  #compareAll(state: TableState): Steps {
    const { table, kinds } = state;
    for (const { objects } of kinds) objects.startListing();
    // What is as wanted is listed by a mark: there may be hundreds of thousands.
    const found = new Map(kinds.map(({ name }) => [name, new Map<string, KernelItem>()]));
    const duplicates: AnyStep[] = [];
    for (const object of table.dump()) {
      const { name, objects } = this.#kinds.get(object.kind)!;
      const key = table.key(object);
      const wanted = objects.find(key);
      const others = found.get(name)!;
      if (wanted === undefined) {
        if (table.ours(object, objects.isThere(key))) others.set(key, object);
        continue;
      }
      const right = table.equal(wanted.value, object);
      const wasRight = objects.isListed(wanted.row);
      const before = wasRight ? wanted.value : others.get(key);
      if (before !== undefined && right !== wasRight) {
        // Two in one place, as the kernel allows of routes: the wrong one goes, if it is denim's.
        const wrong = right ? before : object;
        if (table.ours(wrong, false)) {
          duplicates.push({ action: "remove", object: wrong, key: `${key}, the second` });
        }
        others.delete(key);
        objects.list(wanted.row);
      } else if (right) objects.list(wanted.row);
      else others.set(key, object);
    }
    const sections = kinds.map(({ name, objects }) => {
      const others = found.get(name)!;
      for (const [key, had] of objects.others) {
        // The dump may not cover what is denim's no longer, such as a former pod bridge's addresses.
        if (objects.isMarkedUnwanted(key) && !objects.has(key) && !others.has(key)) {
          others.set(key, had);
        }
      }
      objects.takeMarks();
      this.#schedule.forgetDelays(name);
      return {
        wanted: objects.unlisted(others),
        isWanted: (key: string) => objects.has(key),
        found: others,
      };
    });
    state.stale = state.failing = false;
    const steps = diff(table, sections);
    for (const { name, objects } of kinds) objects.endListing(found.get(name)!);
    steps.removals.push(...duplicates);
    return steps;
  }

  /** Lets a table take steps. Returns whether one of them may have cost what its object carries. */
  #take(state: TableState, steps: readonly AnyStep[], pass: Pass): boolean {
    if (steps.length === 0) return false;
    const { table } = state;
    const errors = new Map(table.apply(steps).map(({ step, error }) => [step, error]));
    let carried = false;
    for (const step of steps) {
      const { action, object, key } = step;
      const error = errors.get(step);
      if (error !== undefined) {
        if (this.#isOutdated(step)) continue;
        state.failing = true;
        pass.failures.push(error.message);
        pass.failedKeys.push(key);
        countStep(pass, object.kind, "fail");
        continue;
      }
      const { objects } = this.#kinds.get(object.kind)!;
      if (action === "remove") objects.setGone(key);
      else {
        if (step.row === undefined) objects.setAsWanted(key);
        else objects.setRowAsWanted(step.row, key);
        carried ||= table.carries?.(object) ?? false;
      }
      pass.changes++;
      countStep(pass, object.kind, action);
      if (action === "remove" || !step.restores) this.#schedule.done(step, pass.lost);
    }
    return carried;
  }

  /** Whether a step failed because what it was derived from is gone: that is not a failure. */
  #isOutdated({ object, key }: AnyStep): boolean {
    const owner = this.#desired.get(object.kind, key)?.owner;
    const derived = this.#derivations.find(({ derivation }) => derivation.owner === owner);
    if (derived === undefined || !derived.derivation.isOutdated()) return false;
    derived.due = true;
    return true;
  }

  #count({ failures, steps }: Pass, tookMs: number): void {
    this.#metrics.seconds.observe(tookMs / 1000);
    if (failures.length > 0) this.#metrics.failed.add();
    for (const [kind, counts] of steps) {
      for (const [action, count] of Object.entries(counts)) {
        if (count > 0) this.#metrics.step(kind, action, count);
      }
    }
  }

  /**
   * Keeps the kernel as wanted until the signal is aborted: repairs what tables report that others changed, tries again
   * what failed, and checks everything from time to time. Start it after the first {@link Reconciler.check}. A defect
   * of denim's ends it: it throws whatever is not an expected error.
   */
  async run(signal: AbortSignal): Promise<void> {
    const ended = new AbortController();
    const both = AbortSignal.any([signal, ended.signal]);
    this.#running = true;
    try {
      const parts = [
        ...this.#tables.map((state) => state.table.listen(this.#listener(state), both)),
        ...this.#derivations.map((derived) =>
          derived.derivation.listen(() => {
            derived.due = true;
            this.#work.add();
          }, both)
        ),
        this.#keep(both),
      ];
      for (const part of parts) part.catch(() => ended.abort());
      const ends = await Promise.allSettled(parts);
      for (const end of ends) if (end.status === "rejected") throw end.reason;
    } finally {
      this.#running = false;
    }
  }

  #listener(state: TableState): TableListener<KernelItem> {
    const { table } = state;
    return {
      found: (object) => {
        const kind = this.#kinds.get(object.kind)!;
        const key = table.key(object);
        const { objects } = kind;
        const wanted = objects.find(key);
        const isKnown = objects.others.has(key) ||
          wanted !== undefined && objects.isRowAsWanted(wanted.row);
        if (isKnown || table.ours(object, false)) {
          // The kernel reports what denim itself made, too, of some kinds.
          if (wanted !== undefined && table.equal(wanted.value, object)) {
            objects.setRowAsWanted(wanted.row, key);
          } else {
            objects.setThere(key, object);
            this.#wake(kind, key);
          }
        } else {
          // If denim has nothing here yet, another program's object is in the way, and stays.
          if (wanted !== undefined) this.#wake(kind, key);
          this.#kernel.onForeign?.(object);
        }
      },
      gone: (object) => {
        const kind = this.#kinds.get(object.kind)!;
        const key = table.key(object);
        const wanted = kind.objects.get(key);
        const wasKnown = kind.objects.setGone(key);
        if (wanted === undefined) {
          if (!wasKnown && !table.ours(object, false)) this.#kernel.onForeign?.(object);
          return;
        }
        this.#wake(kind, key);
        this.#wakeDependents(wanted.owner, key);
      },
      restored: (carrier) => {
        if (!this.#carriers.has(carrier)) return;
        if (this.#schedule.isComparisonDue(carrier)) this.#distrust(state);
        this.#work.add();
      },
      lost: () => {
        state.stale = true;
        this.#work.add();
      },
    };
  }

  #wake(kind: KindState, key: string): void {
    this.#mark(kind, key);
    this.#work.add();
  }

  /** What needs an object that is gone may be gone too, without an event. The same owner wants it. */
  #wakeDependents(owner: string, gone: string): void {
    for (const { object, key } of this.#desired.ofOwner(owner)) {
      const kind = this.#kinds.get(object.kind);
      if (kind?.table.table.needs?.(object).includes(gone) !== true) continue;
      kind.objects.setGone(key);
      this.#mark(kind, key);
    }
  }

  /** Marks a table, and those after it, whose objects may lie on its objects: the next pass compares them in full. */
  #distrust(state: TableState): void {
    for (const later of this.#tables.slice(this.#tables.indexOf(state))) later.stale = true;
  }

  /** The loop; its states are described at the top of this file. */
  async #keep(signal: AbortSignal): Promise<void> {
    const retry = new Backoff(RETRY);
    const complaints = new Complaints();
    let checkAtMs = this.#nextCheckMs(), retryAtMs = Infinity;
    for (let seen = 0;;) {
      // Idle.
      const wakeAtMs = Math.min(checkAtMs, retryAtMs, this.#schedule.nextMs());
      await this.#work.after(seen, Math.max(0, wakeAtMs - this.#now()), signal);
      // Settling.
      if (!await sleep(SETTLE_MS, signal)) return;
      // Pass.
      const everything = this.#now() >= checkAtMs;
      this.#endDelays();
      const due = this.#tables.filter(({ stale, failing }) => everything || stale || failing);
      const { failures } = this.#attempt(due);
      seen = this.#work.count;
      if (everything) {
        checkAtMs = this.#nextCheckMs();
        this.#schedule.forgetCalm();
      }
      if (this.#tables.some(({ failing }) => failing)) retryAtMs = this.#now() + retry.next();
      else {
        retryAtMs = Infinity;
        retry.reset();
        complaints.resolve();
      }
      const [failure] = failures;
      if (failure !== undefined && complaints.isNew(failure)) {
        this.#log.error("reconcile-failed", `the kernel is not as wanted: ${failure}`, {
          failures: failures.length,
        });
      }
    }
  }

  #nextCheckMs(): number {
    return this.#now() + Math.max(CHECK_INTERVAL_MS, this.#checkTookMs / CHECK_SHARE);
  }

  #endDelays(): void {
    const { steps, carriers } = this.#schedule.takeDue();
    for (const { kind, key } of steps) this.#kinds.get(kind)!.objects.mark(key);
    for (const carrier of carriers) {
      if (this.#schedule.isComparisonDue(carrier)) this.#distrust(this.#tables[0]!);
    }
  }
}

function statesOf(
  tables: KernelTables["tables"],
  desired: DesiredState,
): { readonly tables: readonly TableState[]; readonly kinds: ReadonlyMap<string, KindState> } {
  const states = new Map<AnyTable, TableState>();
  const kinds = new Map<string, KindState>();
  for (const [name, table] of Object.entries(tables)) {
    const state = states.get(table) ?? { table, kinds: [], stale: false, failing: false };
    states.set(table, state);
    const kind: KindState = { name, table: state, objects: desired.of(name) };
    state.kinds.push(kind);
    kinds.set(name, kind);
  }
  return { tables: [...states.values()], kinds };
}

/** No step at all. */
const NO_STEPS: Steps = { puts: [], removals: [] };

/** The same, with what the table itself knows to be there now. */
function* asFound(
  table: AnyTable,
  comparisons: Iterable<Comparison>,
): Generator<Comparison, void, void> {
  for (const comparison of comparisons) {
    yield { ...comparison, there: table.find?.(comparison.object) ?? comparison.there };
  }
}

function countStep({ steps }: Pass, kind: string, end: StepEnd): void {
  let counts = steps.get(kind);
  if (counts === undefined) steps.set(kind, counts = { put: 0, remove: 0, fail: 0 });
  counts[end]++;
}

function countersOf(metrics: Metrics) {
  return {
    failed: metrics.counter(
      "denim_reconciler_failed_passes_total",
      "Passes in which a step failed.",
    ),
    seconds: metrics.histogram(
      "denim_reconciler_pass_seconds",
      "How long passes over the kernel's tables took, in seconds.",
      PASS_SECONDS,
    ),
    step: (kind: string, action: string, count: number) =>
      metrics.counter(
        "denim_reconciler_steps_total",
        "Steps by kind of object and action: put, remove, or fail.",
        { kind, action },
      ).add(count),
  };
}
