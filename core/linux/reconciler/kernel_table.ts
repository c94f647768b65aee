/**
 * The seam between the reconciler and the kernel: a table is one place in which the kernel keeps objects, such
 * as its devices or its routes, with a way to list, change and watch them. The reconciler knows tables only.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import type { PodNetwork } from "../../kernel_state.ts";

/** What every object of every table has. */
export interface KernelItem {
  /** Tells the kinds of object apart; each kind belongs to one table. */
  readonly kind: string;
}

/** A step that creates an object, or makes it right. */
export interface PutStep<Want> {
  /** Tells steps apart. */
  readonly action: "put";
  /** What should be there. */
  readonly object: Want;
  /** The object's key; see {@link KernelTable.key}. */
  readonly key: string;
  /** Whether the step may replace what stands there: it is denim's, or took the place of denim's. */
  readonly mayReplace: boolean;
  /** Whether the object was right, and is put again because an earlier step removes it too. */
  readonly restores?: boolean;
  /** The reconciler's number for the object. */
  readonly row?: number;
}

/** A step that removes an object. */
export interface RemoveStep<Found> {
  /** Tells steps apart. */
  readonly action: "remove";
  /** What has to go. */
  readonly object: Found;
  /** The object's key; see {@link KernelTable.key}. */
  readonly key: string;
}

/** A step from what the kernel has to what is wanted. */
export type Step<Want, Found> = PutStep<Want> | RemoveStep<Found>;

/** A step that did not reach its aim. */
export interface StepFailure<Want, Found> {
  /** The step, one of those that were given. */
  readonly step: Step<Want, Found>;
  /** Why; its message names the object and, if possible, what an operator can do. */
  readonly error: Error;
}

/** Takes a table's events. An event may repeat what is known already, and may come late. */
export interface TableListener<Found> {
  /** The kernel has this object now: somebody else made or changed it. */
  found(object: Found): void;
  /** Somebody else removed this object, or the kernel removed it with another. */
  gone(object: Found): void;
  /**
   * An object that carries others is usable again after it was not (a device came up). What it carries may have
   * been lost meanwhile without an event.
   */
  restored(key: string): void;
  /** Events were lost: anything in the table may have changed. */
  lost(): void;
}

/**
 * A place in which the kernel keeps objects.
 *
 * `Want` is what an owner asks for, `Found` what the kernel has. What was asked for must be a valid `Found` too,
 * for the reconciler remembers it as such once it is put: fields that only the kernel sets are optional there.
 *
 * Expected errors (`ExpectedError`, core/errors.ts) that {@link KernelTable.dump} throws or {@link KernelTable.apply}
 * returns are tried again later. Any other error is a defect of denim: a table lets it out.
 */
export interface KernelTable<Want extends Found, Found extends KernelItem> {
  /** Text that two objects share if the kernel takes them for the same one. Unique among all tables. */
  key(object: Found): string;
  /** Whether what the kernel has is as wanted. */
  equal(wanted: Want, found: Found): boolean;
  /**
   * Whether denim removes an object that no owner wants. Settings are nobody's: they stay as they are.
   *
   * @param known whether the reconciler put an object under this key, or took one for denim's, before
   */
  ours(found: Found, known: boolean): boolean;
  /**
   * Every object that is, or may be, denim's, as the kernel has it now; strangers' may be among them. The same
   * object may come twice.
   */
  dump(): Iterable<Found>;
  /**
   * Takes steps in the order given, as few system calls as may be, and returns those that failed. A step is
   * idempotent: it is not a failure to put what is there, or to remove what is gone.
   */
  apply(steps: readonly Step<Want, Found>[]): readonly StepFailure<Want, Found>[];
  /** How many steps are best taken with one call; all unless given. */
  readonly stepsAtOnce?: number;
  /** Reports what others change until the signal is aborted. */
  listen(listener: TableListener<Found>, signal: AbortSignal): Promise<void>;
  /**
   * Keys of objects of any table that are not usable as far as the table knows, and without which the kernel does
   * not take this one. While the repair of one of them is delayed, this object's is delayed too. If one of them is
   * gone, this object may be gone too.
   */
  needs?(object: Want): readonly string[];
  /** What the kernel has in the object's place now, if the table knows that without asking; `undefined` if it has nothing. */
  find?(object: Want): Found | undefined;
  /** The key of the object that carries this one, so that it is lost with it: the device of an address. */
  carrier?(object: Want): string | undefined;
  /** Whether a put of this object may cost what it carries. Then the reconciler compares all later tables. */
  carries?(object: Want): boolean;
  /** Whether the object can exist now. If not, nothing is missing: a setting of a device that is not there. */
  hasPlace?(object: Want): boolean;
  /**
   * Changes the order of a pass's steps (all puts, then all removals) or adds steps, if the kernel asks for that.
   *
   * @param wanted everything that is wanted of the table
   */
  arrange?(
    steps: readonly Step<Want, Found>[],
    wanted: Iterable<Want>,
  ): readonly Step<Want, Found>[];
}

/**
 * Takes steps one by one, each by itself, and returns those that failed: {@link KernelTable.apply} for what takes no
 * batch. Throws only defects.
 *
 * @param take takes one step, or throws why it can't
 * @param explain makes of that the error to return; the same unless given
 */
export function applyEach<Taken>(
  steps: readonly Taken[],
  take: (step: Taken) => void,
  explain: (error: Error, step: Taken) => Error = (error) => error,
): { readonly step: Taken; readonly error: Error }[] {
  return steps.flatMap((step) => {
    try {
      take(step);
      return [];
    } catch (error) {
      throwDefect(error);
      return [{ step, error: explain(error as Error, step) }];
    }
  });
}

/** A table of any objects, as the reconciler sees it. */
export type AnyTable = KernelTable<KernelItem, KernelItem>;
/** A step of any table. */
export type AnyStep = Step<KernelItem, KernelItem>;

/**
 * A kind of wanted object that stands for others, which depend on what the kernel has: an address of the pod bridge,
 * whichever bridge that is.
 */
export interface Derivation {
  /** On whose behalf the derived objects are wanted. */
  readonly owner: string;
  /** The kinds of the derived objects. */
  readonly kinds: readonly string[];
  /** Text that two objects share if the later one takes the earlier one's place. */
  key(object: KernelItem): string;
  /** What the objects stand for now. Called before the first table of its kinds is compared; throws a LinuxError. */
  derive(objects: readonly KernelItem[]): Derived;
  /** Whether the kernel has changed since {@link Derivation.derive} so that steps on its behalf are bound to fail. */
  isOutdated(): boolean;
  /** Calls `onChange` if the kernel may make {@link Derivation.derive} return something else. */
  listen(onChange: () => void, signal: AbortSignal): Promise<void>;
}

/** What {@link Derivation.derive} returns. */
export interface Derived {
  /** What is wanted now. */
  readonly objects: readonly KernelItem[];
  /** Whether the tables of its kinds have to be compared: they may have objects already that are wanted only now. */
  readonly compare: boolean;
}

/** A wanted object, and who wants it. */
export interface Wanted {
  /** Who wants it: the node itself, or a peer. */
  readonly owner: string;
  /** The object's key; see {@link KernelTable.key}. */
  readonly key: string;
  /** What should be there. */
  readonly object: KernelItem;
}

/** What is wanted of one kind, by key. An object that is read is equal to what was asked for, and may be another one. */
export interface WantedObjects {
  /** How many objects. */
  readonly size: number;
  /** What is wanted under a key. */
  get(key: string): Wanted | undefined;
  /** Whether anything is wanted under a key. */
  has(key: string): boolean;
  /** All of it, in no certain order. */
  values(): IteratorObject<Wanted>;
}

/** What is wanted, for those who only read it. */
export interface DesiredView {
  /** What is wanted of a kind under a key. */
  get(kind: string, key: string): Wanted | undefined;
  /** All that is wanted of a kind. */
  of(kind: string): WantedObjects;
}

/** All that one reconciler keeps. */
export interface KernelTables extends Disposable {
  /**
   * The table of each kind. The order is the order in which objects are made: a kind may need those before it. Kinds
   * of one table stand together.
   */
  readonly tables: Readonly<Record<string, AnyTable>>;
  /** Kinds that stand for others; none unless given. */
  readonly derivations?: Readonly<Record<string, Derivation>>;
  /** The cluster's networks, by which tables tell what is denim's. */
  networks?: readonly PodNetwork[];
  /** Called before all tables are compared for the first time: what is restored until then is compared with all else. */
  begin?(): void;
  /** Runs a function where the tables' kernel is, such as in their network namespace; in place unless given. */
  inside?<T>(pass: () => T extends Promise<unknown> ? never : T): T;
  /** Told of each event about an object that is neither wanted nor denim's. */
  onForeign?(object: KernelItem): void;
}
