/**
 * Kinds of rtnetlink objects as a table of the kernel's. What differs from kind to kind is in `objects/`.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import type { Monitor } from "../netlink/monitor.ts";
import { type MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import {
  deviceKey,
  type KernelContext,
  type ObjectKind,
  type RtnetlinkObject,
} from "../objects/object_kind.ts";
import { EADDRNOTAVAIL, EEXIST, ENODEV, ENOENT, ESRCH, LinuxError } from "../sys/linux_error.ts";
import type {
  KernelTable,
  PutStep,
  RemoveStep,
  Step,
  StepFailure,
  TableListener,
} from "./kernel_table.ts";

/** A batch's size in bytes: about 60 KB a system call was the fastest when measured. */
const BATCH_BYTES = 60_000;

/** About as many steps as fill a batch. */
const BATCH_STEPS = 1_000;

/** The kernel's errors for the removal of an object that is not there. */
const GONE: ReadonlySet<number> = new Set([ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL]);

/** The kinds of a table, in the order in which their objects are made. A kind that is left out does not type-check. */
export type KindsOf<Want extends RtnetlinkObject> = {
  readonly [Kind in Want["kind"]]: ObjectKind<Extract<Want, { kind: Kind }>, RtnetlinkObject>;
};

type AnyKind = ObjectKind<RtnetlinkObject, RtnetlinkObject>;

/** What an {@link RtnetlinkTable} works with. */
export interface RtnetlinkTableOptions {
  /** For requests. */
  readonly socket: NetlinkSocket;
  /** Events of the kinds' messages. */
  readonly monitor: Monitor;
  /** The namespace. */
  readonly context: KernelContext;
}

/** Objects that lie on devices. Steps go to the kernel in batches: many messages in one system call. */
export class RtnetlinkTable<Want extends RtnetlinkObject>
  implements KernelTable<Want, RtnetlinkObject> {
  /** See {@link KernelTable.stepsAtOnce}. */
  readonly stepsAtOnce = BATCH_STEPS;
  readonly #kinds: Readonly<Record<string, AnyKind>>;
  /** Which kinds a message may be about. */
  readonly #messages = new Map<number, { readonly gone: boolean; readonly kinds: AnyKind[] }>();
  readonly #socket: NetlinkSocket;
  readonly #monitor: Monitor;
  readonly #context: KernelContext;
  readonly #writer = new MessageWriter();
  /** Keys of devices by name: made once rather than for each of many objects. */
  readonly #deviceKeys = new Map<string, string>();

  /** A table of these kinds. */
  constructor(kinds: KindsOf<Want>, { socket, monitor, context }: RtnetlinkTableOptions) {
    this.#kinds = kinds;
    this.#socket = socket;
    this.#monitor = monitor;
    this.#context = context;
    for (const kind of Object.values(this.#kinds)) {
      for (const [type, gone] of [[kind.messages.new, false], [kind.messages.del, true]] as const) {
        const known = this.#messages.get(type);
        if (known === undefined) this.#messages.set(type, { gone, kinds: [kind] });
        else known.kinds.push(kind);
      }
    }
  }

  /** This table under the name of each of its kinds. */
  byKind(): Readonly<Record<Want["kind"], RtnetlinkTable<Want>>> {
    const tables = {} as Record<Want["kind"], RtnetlinkTable<Want>>;
    for (const kind of Object.keys(this.#kinds) as Want["kind"][]) tables[kind] = this;
    return tables;
  }

  #kind({ kind }: RtnetlinkObject): AnyKind {
    return this.#kinds[kind]!;
  }

  /** See {@link KernelTable.key}. */
  key(object: RtnetlinkObject): string {
    return this.#kind(object).key(object);
  }

  /** See {@link KernelTable.equal}. */
  equal(wanted: Want, found: RtnetlinkObject): boolean {
    return this.#kind(wanted).equal(wanted, found);
  }

  /** See {@link KernelTable.ours}. What can't be removed is a setting. */
  ours(found: RtnetlinkObject, known: boolean): boolean {
    const kind = this.#kind(found);
    return kind.remove !== undefined && kind.ours(found, this.#context, known);
  }

  /** See {@link KernelTable.needs}. */
  needs(object: Want): readonly string[] {
    const needs = this.#kind(object).needs?.(object) ?? [];
    const { device } = object;
    return device === undefined || this.#context.isUp(device)
      ? needs
      : [...needs, deviceKey(device)];
  }

  /** See {@link KernelTable.carrier}. */
  carrier({ device }: Want): string | undefined {
    if (device === undefined) return undefined;
    let key = this.#deviceKeys.get(device);
    if (key === undefined) this.#deviceKeys.set(device, key = deviceKey(device));
    return key;
  }

  /** See {@link KernelTable.carries}. */
  carries(object: Want): boolean {
    return this.#kind(object).carries?.(object, this.#context) ?? false;
  }

  /** See {@link KernelTable.dump}. One kind after the other: there may be hundreds of thousands of objects. */
  *dump(): Generator<RtnetlinkObject> {
    for (const kind of Object.values(this.#kinds)) yield* kind.dump(this.#socket, this.#context);
  }

  /**
   * Removals with which the kernel removes wanted objects too come first, and then those objects are put again; see
   * {@link ObjectKind.removesToo}.
   */
  arrange(
    steps: readonly Step<Want, RtnetlinkObject>[],
    wanted: Iterable<Want>,
  ): readonly Step<Want, RtnetlinkObject>[] {
    const removals = steps.filter((step) =>
      step.action === "remove" && this.#kind(step.object).removesToo !== undefined
    );
    if (removals.length === 0) return steps;
    const first = new Set<Step<Want, RtnetlinkObject>>();
    const again = new Map<string, PutStep<Want>>();
    for (const object of wanted) {
      const { removesToo } = this.#kind(object);
      for (const removal of removals) {
        if (removal.object.kind !== object.kind || !removesToo!(removal.object, object)) continue;
        first.add(removal);
        const key = this.key(object);
        again.set(key, { action: "put", object, key, mayReplace: true, restores: true });
      }
    }
    const rest = steps.filter((step) => !first.has(step) && !again.has(step.key));
    return [...first, ...again.values(), ...rest];
  }

  /** See {@link KernelTable.apply}. */
  apply(
    steps: readonly Step<Want, RtnetlinkObject>[],
  ): readonly StepFailure<Want, RtnetlinkObject>[] {
    const failures: StepFailure<Want, RtnetlinkObject>[] = [];
    const writer = this.#writer;
    writer.clear();
    let batch: Step<Want, RtnetlinkObject>[] = [];
    const flush = () => {
      for (const { index, error } of this.#socket.send(writer)) {
        const step = batch[index]!;
        if (!this.#settle(step, error)) failures.push({ step, error: explain(step, error) });
      }
      writer.clear();
      batch = [];
    };
    for (const step of steps) {
      const kind = this.#kind(step.object);
      try {
        if (step.action === "remove") kind.remove?.(writer, step.object, this.#context);
        else kind.put(writer, step.object, this.#context, step.mayReplace);
        batch.push(step);
      } catch (error) {
        throwDefect(error);
        writer.abandon();
        // Nothing is left on a device that is gone.
        if (step.action === "put") failures.push({ step, error: explain(step, error as Error) });
      }
      if (writer.length > BATCH_BYTES) flush();
    }
    flush();
    return failures;
  }

  /** Whether a step that the kernel refused reached its aim all the same, or can be made to. */
  #settle(step: Step<Want, RtnetlinkObject>, error: LinuxError): boolean {
    if (step.action === "remove") return GONE.has(error.errno);
    const kind = this.#kind(step.object);
    if (kind.recover?.(error, step.object, this.#socket, this.#context) !== true) return false;
    try {
      this.#socket.request(
        `put ${step.key}`,
        (writer) => kind.put(writer, step.object, this.#context, true),
      );
      return true;
    } catch (error) {
      throwDefect(error);
      return false;
    }
  }

  /** See {@link KernelTable.listen}. */
  listen(listener: TableListener<RtnetlinkObject>, signal: AbortSignal): Promise<void> {
    const onMessage = (reader: MessageReader) => {
      const about = this.#messages.get(reader.type);
      for (const kind of about?.kinds ?? []) {
        const object = kind.parse(reader, this.#context);
        if (object === undefined) continue;
        if (about!.gone) listener.gone(object);
        else listener.found(object);
      }
    };
    return this.#monitor.listen({ onMessage, onLost: () => listener.lost() }, signal);
  }
}

/** The error of a step, with the step's name and what an operator can do. */
function explain<Want>(step: PutStep<Want> | RemoveStep<unknown>, error: Error): Error {
  if (!(error instanceof LinuxError)) return error;
  const hint = error.errno === EEXIST && step.action === "put"
    ? "another program's stands in the way; remove it, or change net-conf's Network"
    : error.detail;
  const explained = new LinuxError(error.errno, `${step.action} ${step.key}`, hint);
  explained.cause = error;
  return explained;
}
