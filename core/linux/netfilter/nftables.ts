/**
 * nftables (nft(8)), straight over netlink: one place in the kernel that denim keeps as desired. It holds two
 * objects, denim's table of each family. No `nft` program takes part. Of others' tables denim reads and removes
 * those that flanneld left; no other one is read or written.
 *
 * @module
 */

import { RuntimeError, throwDefect } from "../../errors.ts";
import { type Cidr, FAMILIES, type Family } from "../../ip.ts";
import { ENOENT, LinuxError } from "../sys/linux_error.ts";
import type { MessageReader } from "../netlink/netlink_codec.ts";
import {
  applyEach,
  type KernelTable,
  type Step,
  type StepFailure,
  type TableListener,
} from "../reconciler/kernel_table.ts";
import { addressFamily } from "../sys/address_family.ts";
import { NFGENMSG_LEN, NFNL_SUBSYS_NFTABLES } from "../uapi/nfnetlink.ts";
import { NFT_MSG_NEWGEN, NFTA_ANY_TABLE } from "../uapi/nf_tables.ts";
import { nftTableKey, tableWords } from "./nft_connection.ts";
import { WatchedNft } from "./watched_nft.ts";
import {
  type FoundNftTable,
  networksOf,
  NFT_TABLE_NAME,
  type NftTable,
  nftTableEqual,
  sameFrame,
  writeRemovedTable,
  writeTable,
  writeTableRules,
} from "./nft_table.ts";

/** flanneld's tables, by family (pkg/trafficmngr/nftables/nftables.go). It makes both, whatever the cluster has. */
const FLANNEL_TABLES: Readonly<Record<Family, string>> = { 4: "flannel-ipv4", 6: "flannel-ipv6" };

/** What {@link Nftables} knows of the reconciler's work. */
export interface NftablesOptions {
  /** Whether a network lies in the cluster's; all do unless given. A table whose rules name none that does is a stranger's. */
  readonly inCluster?: (network: Cidr) => boolean;
  /** Whether denim masquerades in flanneld's place, so that flanneld's tables go; it does not unless given. */
  readonly replacesFlannel?: () => boolean;
  /** Throws a RuntimeError that begins with this name unless all rules by which denim is to masquerade are in place. */
  readonly requireInPlace?: (stays: string) => void;
}

/** What keeps nftables' tables: {@link Nftables}, or what takes its place on a kernel without. */
export interface NftTableKeeper extends KernelTable<NftTable, FoundNftTable>, Disposable {
  /** Whether the kernel has nftables. */
  readonly isThere: boolean;
  /** Whether the kernel has the table as it is wanted. Throws a LinuxError. */
  isInPlace(wanted: NftTable): boolean;
}

/** denim's tables in the network namespace of the thread that opens this, and those that flanneld left there. */
export class Nftables implements NftTableKeeper {
  /** See {@link NftTableKeeper.isThere}. */
  readonly isThere = true;
  readonly #nft = new WatchedNft();
  readonly #options: Required<NftablesOptions>;

  /**
   * Starts to listen at once, so that no change is missed between a dump and {@link Nftables.listen}. Throws a
   * LinuxError: EPROTONOSUPPORT if the kernel has no netfilter, EINVAL if it has no nftables.
   */
  constructor(options: NftablesOptions = {}) {
    this.#options = {
      inCluster: () => true,
      replacesFlannel: () => false,
      requireInPlace: () => {},
      ...options,
    };
  }

  /** Closes the sockets. The tables stay. */
  [Symbol.dispose](): void {
    this.#nft[Symbol.dispose]();
  }

  /** See {@link KernelTable.key}. */
  key(object: FoundNftTable): string {
    return nftTableKey(object);
  }

  /** See {@link KernelTable.equal}: to the last rule. */
  equal(wanted: NftTable, found: FoundNftTable): boolean {
    return nftTableEqual(wanted, found);
  }

  /** See {@link KernelTable.ours}. */
  ours(found: FoundNftTable, known: boolean): boolean {
    return known || this.#concernsCluster(found);
  }

  /** Whether the rules are about this cluster's pods; those of a table without rules are about nobody else's. */
  #concernsCluster(found: FoundNftTable): boolean {
    const named = networksOf(found);
    return named.length === 0 || named.some(this.#options.inCluster);
  }

  /** See {@link KernelTable.dump}. flanneld's tables are denim's to remove once denim masquerades. Throws a LinuxError. */
  dump(): FoundNftTable[] {
    const tables = FAMILIES.flatMap((family) => {
      const flannel = this.#options.replacesFlannel() ? [FLANNEL_TABLES[family]] : [];
      return [NFT_TABLE_NAME, ...flannel].map((name) => this.#read({ family, name }));
    });
    return tables.filter((found) => found !== undefined)
      .filter((found) => this.#concernsCluster(found));
  }

  /** See {@link NftTableKeeper.isInPlace}. */
  isInPlace(wanted: NftTable): boolean {
    const found = this.#read(wanted);
    return found !== undefined && this.equal(wanted, found);
  }

  /**
   * See {@link KernelTable.apply}. Each step is one transaction: packets meet the old table or the new one, and a
   * step that fails changes nothing.
   */
  apply(
    steps: readonly Step<NftTable, FoundNftTable>[],
  ): readonly StepFailure<NftTable, FoundNftTable>[] {
    return applyEach(steps, (step) => this.#take(step));
  }

  /** See {@link KernelTable.listen}. However many events there are at once, a table is reported once. */
  async listen(listener: TableListener<FoundNftTable>, signal: AbortSignal): Promise<void> {
    const touched = new Set<Family>();
    const onMessage = (reader: MessageReader) => {
      const family = familyOfEvent(reader);
      if (family !== undefined) touched.add(family);
    };
    while (await this.#nft.monitor.next(signal, onMessage, () => listener.lost())) {
      for (const family of touched) this.#report(family, listener);
      touched.clear();
    }
  }

  #report(family: Family, listener: TableListener<FoundNftTable>): void {
    const id = { family, name: NFT_TABLE_NAME };
    try {
      const found = this.#read(id);
      if (found !== undefined) listener.found(found);
      else listener.gone({ kind: "nftTable", ...id, chains: [] });
    } catch (error) {
      throwDefect(error);
      // The comparison that follows meets the same error, and is tried again.
      listener.lost();
    }
  }

  #take(step: Step<NftTable, FoundNftTable>): void {
    const { action, object, key } = step;
    if (action === "remove") {
      // Packets find rules at any time: those that take these ones' place come first.
      this.#options.requireInPlace(key);
      const error = this.#nft.transact((writer) => writeRemovedTable(writer, object));
      if (error !== undefined && error.errno !== ENOENT) throw describe(error, step);
      return;
    }
    const found = this.#read(object);
    if (found !== undefined && this.equal(object, found)) return;
    if (found !== undefined && !step.mayReplace && !this.#concernsCluster(found)) {
      throw new RuntimeError(
        `${key} is another cluster's, of ${networksOf(found)[0]}: of the agents in one network ` +
          "namespace only one can have --ip-masq; if there is no other agent, remove the table " +
          `(nft delete table ${tableWords(object)})`,
      );
    }
    const isWhole = found === undefined || !sameFrame(object, found);
    const write = isWhole ? writeTable : writeTableRules;
    const error = this.#nft.transact((writer) => write(writer, object));
    if (error === undefined) return;
    // A table that is made whole refers to nothing that could be gone meanwhile.
    const lacks = isWhole && error.errno === ENOENT;
    throw describe(error, step, lacks ? LACKS_NAT : undefined);
  }

  /**
   * Reads a table, in several questions. If it changes between them, there is an event of that to come. The kernel
   * can't list one table's chains alone, and kube-proxy may have tens of thousands: so this asks for the chains
   * that have rules, by name. `use` counts the others.
   */
  #read(id: Pick<NftTable, "family" | "name">): FoundNftTable | undefined {
    const { family, name } = id;
    const table = this.#nft.table(id);
    if (table === undefined) return undefined;
    const rules = this.#nft.rules(id);
    const chains = [...Map.groupBy(rules, ({ chain }) => chain)].flatMap(([name, rules]) => {
      const chain = this.#nft.chain(id, name);
      return chain === undefined ? [] : [{ ...chain, rules }];
    });
    return { kind: "nftTable", family, name, chains, ...table };
  }
}

/** What to do if a kernel refuses a table that is made whole. */
const LACKS_NAT =
  "the kernel lacks a part of nftables; load its modules nft_chain_nat and nft_masq";

function describe(
  { errno, detail }: LinuxError,
  { action, key }: Step<NftTable, FoundNftTable>,
  words = detail,
): LinuxError {
  return new LinuxError(errno, `${action} ${key}`, words);
}

/** The family of the table of denim's that the event is about; `undefined` if it is about another table. */
function familyOfEvent(reader: MessageReader): Family | undefined {
  if (reader.type === (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN)) return undefined;
  const family = FAMILIES.find((family) => addressFamily(family) === reader.u8(0));
  return reader.readAttributes(NFGENMSG_LEN).stringAttribute(NFTA_ANY_TABLE) === NFT_TABLE_NAME
    ? family
    : undefined;
}
