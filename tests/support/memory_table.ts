/**
 * A kernel for the reconciler that is a few maps in memory: a fake, so that tests can lose its events, have its steps
 * fail, and change its objects like another program does, all at will and without root.
 *
 * @module
 */

import { RuntimeError } from "@denim/core";
import type {
  KernelTable,
  KernelTables,
  Step,
  StepFailure,
  TableListener,
} from "@denim/core/linux/kernel-table";

/** What an owner may want of a {@link MemoryTable}. */
export interface Thing {
  /** Tells the kinds of object apart. */
  readonly kind: string;
  /** What tells things of a kind apart. */
  readonly name: string;
  /** What a thing should be like. */
  readonly value: string;
  /** The key of a thing without which the table refuses this one. */
  readonly on?: string;
}

/** A thing as the table has it. */
export interface FoundThing extends Thing {
  /** Who made it; denim unless given. */
  readonly by?: string;
}

/** All that happened to the tables of one kernel, in order: "put a:1", "remove a:1", "dump shelf". */
export type Journal = string[];

/** Things by key. */
export class MemoryTable implements KernelTable<Thing, FoundThing> {
  /** What is there. Whoever changes it directly does so without an event. */
  readonly things = new Map<string, FoundThing>();
  /** Keys at which each step fails, and why. */
  readonly refused = new Map<string, Error>();
  readonly #name: string;
  readonly #journal: Journal;
  readonly #carries: boolean;
  #listener: TableListener<FoundThing> | undefined;

  /** An empty table. With `carries`, what needs a thing is lost when the thing is made again. */
  constructor(name: string, journal: Journal, { carries = false } = {}) {
    this.#name = name;
    this.#journal = journal;
    this.#carries = carries;
  }

  key({ kind, name }: FoundThing): string {
    return `${kind}:${name}`;
  }

  equal(wanted: Thing, found: FoundThing): boolean {
    return wanted.value === found.value;
  }

  ours({ by }: FoundThing, known: boolean): boolean {
    return known || by === undefined;
  }

  dump(): FoundThing[] {
    this.#journal.push(`dump ${this.#name}`);
    return [...this.things.values()];
  }

  apply(steps: readonly Step<Thing, FoundThing>[]): readonly StepFailure<Thing, FoundThing>[] {
    return steps.flatMap((step) => {
      const error = this.refused.get(step.key) ?? this.#refusal(step);
      if (error !== undefined) return [{ step, error }];
      this.#journal.push(`${step.action} ${step.key}`);
      if (step.action === "remove") this.things.delete(step.key);
      else this.things.set(step.key, step.object);
      return [];
    });
  }

  #refusal(step: Step<Thing, FoundThing>): Error | undefined {
    const there = this.things.get(step.key);
    if (step.action === "remove" || step.mayReplace || there?.by === undefined) return undefined;
    return new RuntimeError(`${step.key} is ${there.by}'s`);
  }

  async listen(listener: TableListener<FoundThing>, signal: AbortSignal): Promise<void> {
    this.#listener = listener;
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
    this.#listener = undefined;
  }

  needs({ on }: Thing): readonly string[] {
    return on === undefined ? [] : [on];
  }

  carrier({ on }: Thing): string | undefined {
    return on;
  }

  carries(): boolean {
    return this.#carries;
  }

  /** Another program makes or changes a thing. With `unheard` the event is lost, and nobody knows. */
  change(thing: FoundThing, { unheard = false } = {}): void {
    this.things.set(this.key(thing), thing);
    if (!unheard) this.#listener!.found(thing);
  }

  /** Another program removes a thing. With `unheard` the event is lost, and nobody knows. */
  lose(key: string, { unheard = false } = {}): void {
    const thing = this.things.get(key)!;
    this.things.delete(key);
    if (!unheard) this.#listener!.gone(thing);
  }

  /** The table reports that events were lost. */
  reportLost(): void {
    this.#listener!.lost();
  }

  /** The table reports that a thing is usable again. */
  reportRestored(key: string): void {
    this.#listener!.restored(key);
  }
}

/** Three tables: a "book" stands on a "shelf", and a "mark" is in a book. */
export class MemoryKernel implements KernelTables {
  /** What happened, in order. */
  readonly journal: Journal = [];
  /** The first table. */
  readonly shelves = new MemoryTable("shelves", this.journal, { carries: true });
  /** The second one. */
  readonly books = new MemoryTable("books", this.journal);
  /** The last one. */
  readonly marks = new MemoryTable("marks", this.journal);
  readonly tables = { shelf: this.shelves, book: this.books, mark: this.marks };
  /** What was reported of things that are not denim's. */
  readonly foreign: string[] = [];

  onForeign(object: FoundThing): void {
    this.foreign.push(`${object.kind}:${object.name}`);
  }

  /** What happened since the last call. */
  takeJournal(): string[] {
    return this.journal.splice(0);
  }

  [Symbol.dispose](): void {}
}
