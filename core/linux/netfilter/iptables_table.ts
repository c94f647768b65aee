/**
 * One of the two iptables as a place in the kernel that denim keeps as desired: a chain in each of flannel's places.
 * How that place is read and written is its {@link IptablesPort}'s to know.
 *
 * @module
 */

import { Complaints } from "../../complaints.ts";
import { messageOf, RuntimeError, throwDefect } from "../../errors.ts";
import type { Cidr, Family } from "../../ip.ts";
import type { Logger } from "../../log.ts";
import { msToTick, sleep } from "../../sleep.ts";
import {
  applyEach,
  type KernelTable,
  type Step,
  type StepFailure,
  type TableListener,
} from "../reconciler/kernel_table.ts";
import type { BaseChain } from "./nft_connection.ts";
import {
  type ChainContent,
  chainKey,
  type ChainPlace,
  type FoundIptablesChain,
  IPTABLES_KINDS,
  type IptablesChain,
  type IptablesVariant,
  isEmpty,
  PLACES,
} from "./iptables_chain.ts";

/** How chains of one iptables are read and written. All calls throw a LinuxError or a RuntimeError. */
export interface IptablesPort {
  /** What there is at a place. */
  read(place: ChainPlace): ChainContent;
  /** What {@link IptablesPort.read} says once the chain is put. */
  contentOf(chain: IptablesChain): Pick<ChainContent, "inParent" | "rules">;
  /** Puts a chain, with the parent's rule, in the place of what is denim's or flanneld's there: in one step. */
  put(chain: IptablesChain): void;
  /** Removes what is denim's or flanneld's at a place, in one step. */
  remove(place: ChainPlace): void;
  /** The policy of the chain FORWARD, `NF_DROP` or `NF_ACCEPT`; `undefined` if there is none. */
  forwardPolicy(family: Family): number | undefined;
  /** The chains that drop what is forwarded, whatever denim does, if they may be others than the last time. */
  foreignDrops(networks: readonly Cidr[]): readonly BaseChain[];
  /** Whether something may change of which {@link IptablesPort.listen} does not tell. */
  mayMiss(): boolean;
  /** Tells of changes at places, and of what drops what is forwarded, until the signal is aborted. */
  listen(onChange: (places: readonly ChainPlace[]) => void, signal: AbortSignal): Promise<void>;
}

/** What an {@link IptablesTable} knows of the reconciler's work. */
export interface IptablesTableOptions {
  /** Which iptables it is. */
  readonly variant: IptablesVariant;
  /** Whether a network lies in the cluster's. Rules that name none that does are a stranger's. */
  readonly inCluster: (network: Cidr) => boolean;
  /** Whether denim has taken flanneld's part in a table, so that flanneld's rules there go. */
  readonly replacesFlannel: (table: ChainPlace["table"]) => boolean;
  /** Throws a RuntimeError that begins with this name unless all rules by which denim is to masquerade are in place. */
  readonly requireInPlace: (stays: string) => void;
  /** Told when FORWARD's policy may be another. */
  readonly onForward: () => void;
  /** How often it is compared whether there was an event or not, where there may be none, in milliseconds. */
  readonly resyncMs: number;
  /** Takes what operators should know. */
  readonly log: Logger;
}

/** The chains of one iptables in the network namespace of its port. */
export class IptablesTable implements KernelTable<IptablesChain, FoundIptablesChain> {
  readonly #port: IptablesPort;
  readonly #options: IptablesTableOptions;
  readonly #complaints = new Complaints();

  /** Reads nothing yet. */
  constructor(port: IptablesPort, options: IptablesTableOptions) {
    this.#port = port;
    this.#options = options;
  }

  /** See {@link KernelTable.key}. */
  key(object: FoundIptablesChain): string {
    return chainKey(object);
  }

  /** See {@link KernelTable.equal}: to the last rule, and with one rule in the parent. */
  equal(wanted: IptablesChain, found: FoundIptablesChain): boolean {
    const expected = this.#port.contentOf(wanted);
    const { inParent, rules } = found.content ?? this.#port.contentOf(found as IptablesChain);
    return sameTexts(expected.inParent, inParent) && rules !== undefined &&
      sameTexts(expected.rules!, rules);
  }

  /** See {@link KernelTable.ours}. */
  ours(found: FoundIptablesChain, known: boolean): boolean {
    return known || this.#concernsCluster(found.content);
  }

  #concernsCluster(content: ChainContent | undefined): boolean {
    const networks = content?.networks ?? [];
    return networks.length === 0 || networks.some(this.#options.inCluster);
  }

  /**
   * See {@link KernelTable.dump}. flanneld's rules are among them once denim does in their place what they do. What
   * cannot be read, for want of a program, is named in the log: it hinders nothing else.
   */
  dump(): FoundIptablesChain[] {
    return PLACES.flatMap((place) => {
      try {
        return this.#find(place) ?? [];
      } catch (error) {
        throwDefect(error);
        this.#complain(place, error);
        return [];
      }
    });
  }

  #complain(place: ChainPlace, error: unknown): void {
    const { variant, log } = this.#options;
    const key = chainKey({ kind: IPTABLES_KINDS[variant], ...place });
    const message = `rules of flanneld's or denim's are left in ${key}, which cannot be read: ` +
      messageOf(error);
    if (this.#complaints.isNew(message)) log.warn("iptables-rules-left", message);
  }

  #find(place: ChainPlace): FoundIptablesChain | undefined {
    const content = this.#port.read(place);
    if (isEmpty(content)) return undefined;
    if (!content.isDenims && !this.#options.replacesFlannel(place.table)) return undefined;
    if (!this.#concernsCluster(content)) return undefined;
    return { kind: IPTABLES_KINDS[this.#options.variant], ...place, content };
  }

  /** Whether the chain is as it is wanted. Throws a LinuxError or a RuntimeError. */
  isInPlace(wanted: IptablesChain): boolean {
    return this.equal(wanted, { ...wanted, content: this.#port.read(wanted) });
  }

  /** See {@link KernelTable.apply}. */
  apply(
    steps: readonly Step<IptablesChain, FoundIptablesChain>[],
  ): readonly StepFailure<IptablesChain, FoundIptablesChain>[] {
    return applyEach(
      steps,
      (step) => this.#take(step),
      (error, { action, key }) =>
        new RuntimeError(`${action} ${key}: ${error.message}`, { cause: error }),
    );
  }

  #take(step: Step<IptablesChain, FoundIptablesChain>): void {
    const { action, object, key } = step;
    const content = this.#port.read(object);
    if (action === "remove") {
      if (isEmpty(content)) return;
      // Packets find rules at any time: those that take these ones' place come first.
      if (object.table === "nat") this.#options.requireInPlace(key);
      this.#port.remove(object);
      return;
    }
    if (this.equal(object, { ...object, content })) return;
    if (!step.mayReplace && !this.#concernsCluster(content)) {
      throw new RuntimeError(
        `it is another cluster's, of ${content.networks[0]}: of the agents in one network ` +
          "namespace only one can have its rules there; if there is no other agent, remove the chain",
      );
    }
    this.#port.put(object);
  }

  /** See {@link KernelTable.listen}. */
  async listen(listener: TableListener<FoundIptablesChain>, signal: AbortSignal): Promise<void> {
    const report = (places: readonly ChainPlace[]) => {
      this.#options.onForward();
      for (const place of places) this.#report(place, listener);
    };
    await Promise.all([this.#port.listen(report, signal), this.#resync(listener, signal)]);
  }

  async #resync(listener: TableListener<FoundIptablesChain>, signal: AbortSignal): Promise<void> {
    while (await sleep(msToTick(this.#options.resyncMs), signal)) {
      if (!this.#port.mayMiss()) continue;
      this.#options.onForward();
      listener.lost();
    }
  }

  #report(place: ChainPlace, listener: TableListener<FoundIptablesChain>): void {
    try {
      const found = this.#find(place);
      if (found !== undefined) listener.found(found);
      else listener.gone({ kind: IPTABLES_KINDS[this.#options.variant], ...place });
    } catch (error) {
      throwDefect(error);
      // The comparison that follows meets the same error, and is tried again.
      listener.lost();
    }
  }
}

function sameTexts(wanted: readonly string[], found: readonly string[]): boolean {
  return wanted.length === found.length && wanted.every((text, at) => text === found[at]);
}
