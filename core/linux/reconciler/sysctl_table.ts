/**
 * Kernel settings as a table of the kernel's: written under `/proc/sys`, listed and reported by rtnetlink.
 *
 * @module
 */

import { ALL_DEVICES, type Forwarding } from "../../kernel_state.ts";
import type { Monitor } from "../netlink/monitor.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import {
  FORWARDING_MESSAGES,
  forwardingKey,
  type FoundForwarding,
  listForwarding,
  parseForwarding,
  switchOn,
} from "../objects/forwarding.ts";
import { deviceKey, type KernelContext } from "../objects/object_kind.ts";
import {
  applyEach,
  type KernelTable,
  type Step,
  type StepFailure,
  type TableListener,
} from "./kernel_table.ts";

/** What a {@link SysctlTable} works with. */
export interface SysctlTableOptions {
  /** For requests. */
  readonly socket: NetlinkSocket;
  /** Events of {@link FORWARDING_MESSAGES}. */
  readonly monitor: Monitor;
  /** The namespace. */
  readonly context: KernelContext;
}

/** Forwarding switches. Settings: denim switches none off, for others may rely on it by then. */
export class SysctlTable implements KernelTable<Forwarding, FoundForwarding> {
  readonly #options: SysctlTableOptions;

  /** A table of the switches of the thread's namespace. */
  constructor(options: SysctlTableOptions) {
    this.#options = options;
  }

  /** See {@link KernelTable.key}. */
  key(object: FoundForwarding): string {
    return forwardingKey(object);
  }

  /** See {@link KernelTable.equal}. */
  equal(_wanted: Forwarding, { on }: FoundForwarding): boolean {
    return on !== false;
  }

  /** See {@link KernelTable.ours}. */
  ours(): boolean {
    return false;
  }

  /** See {@link KernelTable.hasPlace}. */
  hasPlace({ device }: Forwarding): boolean {
    return device === ALL_DEVICES || this.#options.context.has(device);
  }

  /** See {@link KernelTable.carrier}. */
  carrier({ device }: Forwarding): string | undefined {
    return device === ALL_DEVICES ? undefined : deviceKey(device);
  }

  /** See {@link KernelTable.dump}. */
  dump(): FoundForwarding[] {
    return listForwarding(this.#options.socket, this.#options.context);
  }

  /** See {@link KernelTable.apply}. */
  apply(
    steps: readonly Step<Forwarding, FoundForwarding>[],
  ): readonly StepFailure<Forwarding, FoundForwarding>[] {
    return applyEach(steps, ({ object }) => switchOn(object));
  }

  /** See {@link KernelTable.listen}. */
  listen(listener: TableListener<FoundForwarding>, signal: AbortSignal): Promise<void> {
    const { monitor, context } = this.#options;
    return monitor.listen({
      onMessage: (reader) => {
        const { type } = reader;
        if (type !== FORWARDING_MESSAGES.new && type !== FORWARDING_MESSAGES.del) return;
        const object = parseForwarding(reader, context);
        if (object === undefined) return;
        if (type === FORWARDING_MESSAGES.del) listener.gone(object);
        else listener.found(object);
      },
      onLost: () => listener.lost(),
    }, signal);
  }
}
