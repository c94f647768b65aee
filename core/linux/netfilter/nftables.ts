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
import { Monitor } from "../netlink/monitor.ts";
import { type MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import type { KernelTable, Step, StepFailure, TableListener } from "../reconciler/kernel_table.ts";
import { addressFamily } from "../sys/address_family.ts";
import { NETLINK_NETFILTER } from "../uapi/netlink.ts";
import {
  NFGENMSG_LEN,
  NFNETLINK_V0,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
  NFNLGRP_NFTABLES,
} from "../uapi/nfnetlink.ts";
import {
  NFT_MSG_GETCHAIN,
  NFT_MSG_GETGEN,
  NFT_MSG_GETRULE,
  NFT_MSG_GETTABLE,
  NFT_MSG_NEWGEN,
  NFTA_ANY_TABLE,
  NFTA_CHAIN_NAME,
  NFTA_CHAIN_TABLE,
  NFTA_RULE_TABLE,
  NFTA_TABLE_NAME,
} from "../uapi/nf_tables.ts";
import {
  beginNft,
  type FoundNftTable,
  networksOf,
  NFT_TABLE_NAME,
  type NftChain,
  type NftTable,
  nftTableEqual,
  parseChain,
  parseRule,
  parseTable,
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
  /** All tables that are wanted now. */
  readonly wanted?: () => readonly NftTable[];
}

/** What keeps nftables' tables: {@link Nftables}, or what takes its place on a kernel without. */
export interface NftTableKeeper extends KernelTable<NftTable, FoundNftTable>, Disposable {
  /** Whether there is a chain in a table, whoever made it. Throws a LinuxError. */
  hasChain(family: Family, table: string, chain: string): boolean;
}

/** denim's tables in the network namespace of the thread that opens this, and those that flanneld left there. */
export class Nftables implements NftTableKeeper {
  readonly #socket = new NetlinkSocket(NETLINK_NETFILTER);
  readonly #writer = new MessageWriter();
  readonly #monitor: Monitor;
  readonly #options: Required<NftablesOptions>;

  /**
   * Starts to listen at once, so that no change is missed between a dump and {@link Nftables.listen}. Throws a
   * LinuxError: EPROTONOSUPPORT if the kernel has no netfilter, EINVAL if it has no nftables.
   */
  constructor({ inCluster = () => true, wanted = () => [] }: NftablesOptions = {}) {
    this.#options = { inCluster, wanted };
    using undo = new DisposableStack();
    undo.use(this.#socket);
    this.#socket.get(
      "ask for nftables",
      (writer) => beginNft(writer, NFT_MSG_GETGEN, 0, 4).end(),
      () => undefined,
    );
    this.#monitor = new Monitor(this.#socket.portId, NETLINK_NETFILTER, [NFNLGRP_NFTABLES]);
    undo.move();
  }

  /** Closes the sockets. The tables stay. */
  [Symbol.dispose](): void {
    this.#monitor[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
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
      const flannel = this.#options.wanted().length > 0 ? [FLANNEL_TABLES[family]] : [];
      return [NFT_TABLE_NAME, ...flannel].map((name) => this.#read({ family, name }));
    });
    return tables.filter((found) => found !== undefined)
      .filter((found) => this.#concernsCluster(found));
  }

  /** See {@link NftTableKeeper.hasChain}. */
  hasChain(family: Family, table: string, chain: string): boolean {
    return this.#readChain({ family, name: table }, chain) !== undefined;
  }

  /**
   * See {@link KernelTable.apply}. Each step is one transaction: packets meet the old table or the new one, and a
   * step that fails changes nothing.
   */
  apply(
    steps: readonly Step<NftTable, FoundNftTable>[],
  ): readonly StepFailure<NftTable, FoundNftTable>[] {
    return steps.flatMap((step) => {
      try {
        this.#take(step);
        return [];
      } catch (error) {
        throwDefect(error);
        return [{ step, error: error as Error }];
      }
    });
  }

  /** See {@link KernelTable.listen}. However many events there are at once, a table is reported once. */
  async listen(listener: TableListener<FoundNftTable>, signal: AbortSignal): Promise<void> {
    const touched = new Set<Family>();
    const onMessage = (reader: MessageReader) => {
      const family = familyOfEvent(reader);
      if (family !== undefined) touched.add(family);
    };
    while (await this.#monitor.next(signal, onMessage, () => listener.lost())) {
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
    const writer = this.#writer;
    let isWhole = false;
    writer.clear();
    writeBatchEdge(writer, NFNL_MSG_BATCH_BEGIN);
    if (action === "remove") {
      if (object.name !== NFT_TABLE_NAME) this.#requireOwn(key);
      writeRemovedTable(writer, object);
    } else {
      const found = this.#read(object);
      if (found !== undefined && this.equal(object, found)) return;
      if (found !== undefined && !step.mayReplace && !this.#concernsCluster(found)) {
        throw new RuntimeError(
          `${key} is another cluster's, of ${networksOf(found)[0]}: of the agents in one network ` +
            "namespace only one can have --ip-masq; if there is no other agent, remove the table " +
            `(${removalCommand(object)})`,
        );
      }
      isWhole = found === undefined || !sameFrame(object, found);
      if (isWhole) writeTable(writer, object);
      else writeTableRules(writer, object);
    }
    writeBatchEdge(writer, NFNL_MSG_BATCH_END);
    const [failure] = this.#socket.transact(writer);
    if (failure === undefined) return;
    const { errno, detail } = failure.error;
    if (action === "remove" && errno === ENOENT) return;
    // A table that is made whole refers to nothing that could be gone meanwhile.
    const missing = isWhole && errno === ENOENT
      ? "the kernel lacks a part of nftables; load its modules nft_chain_nat and nft_masq"
      : detail;
    throw new LinuxError(errno, `${action} ${key}`, missing);
  }

  /** Throws a RuntimeError unless denim's rules are in place, so that there is no moment without any. */
  #requireOwn(key: string): void {
    const inPlace = this.#options.wanted().every((table) => {
      const found = this.#read(table);
      return found !== undefined && this.equal(table, found);
    });
    if (!inPlace) throw new RuntimeError(`${key} stays until denim's own rules are in place`);
  }

  /**
   * Reads a table, in several questions. If it changes between them, there is an event of that to come. The kernel
   * can't list one table's chains alone, and kube-proxy may have tens of thousands: so this asks for the chains
   * that have rules, by name. `use` counts the others.
   */
  #read(id: TableId): FoundNftTable | undefined {
    const { family, name } = id;
    const what = `read ${nftTableKey(id)}`;
    const table = unlessGone(() =>
      this.#socket.get(
        what,
        (writer) =>
          beginNft(writer, NFT_MSG_GETTABLE, 0, family)
            .stringAttribute(NFTA_TABLE_NAME, name).end(),
        parseTable,
      )
    );
    if (table === undefined) return undefined;
    const rules = this.#socket.dump(
      what,
      (writer) =>
        beginNft(writer, NFT_MSG_GETRULE, 0, family)
          .stringAttribute(NFTA_RULE_TABLE, name).end(),
      parseRule,
    );
    const chains = [...Map.groupBy(rules, ({ chain }) => chain)].flatMap(([name, rules]) => {
      const chain = this.#readChain(id, name);
      return chain === undefined ? [] : [{ ...chain, rules }];
    });
    return { kind: "nftTable", family, name, chains, ...table };
  }

  #readChain(id: TableId, chain: string): Omit<NftChain, "rules"> | undefined {
    return unlessGone(() =>
      this.#socket.get(
        `read ${nftTableKey(id)}`,
        (writer) =>
          beginNft(writer, NFT_MSG_GETCHAIN, 0, id.family)
            .stringAttribute(NFTA_CHAIN_TABLE, id.name)
            .stringAttribute(NFTA_CHAIN_NAME, chain).end(),
        parseChain,
      )
    );
  }
}

/** By what the kernel knows a table. */
type TableId = Pick<NftTable, "family" | "name">;

/** A table as `nft` names it, and as messages do. */
export function nftTableKey(id: TableId): string {
  return `nftables table ${wordsOf(id)}`;
}

function removalCommand(id: TableId): string {
  return `nft delete table ${wordsOf(id)}`;
}

function wordsOf({ family, name }: TableId): string {
  return `${family === 4 ? "ip" : "ip6"} ${name}`;
}

function writeBatchEdge(writer: MessageWriter, type: number): void {
  // struct nfgenmsg; res_id, in network order, is the subsystem.
  writer.begin(type, 0).u8(0).u8(NFNETLINK_V0).u8(0).u8(NFNL_SUBSYS_NFTABLES).end();
}

function unlessGone<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    if (error instanceof LinuxError && error.errno === ENOENT) return undefined;
    throw error;
  }
}

/** The family of the table of denim's that the event is about; `undefined` if it is about another table. */
function familyOfEvent(reader: MessageReader): Family | undefined {
  if (reader.type === (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN)) return undefined;
  const family = FAMILIES.find((family) => addressFamily(family) === reader.u8(0));
  return reader.readAttributes(NFGENMSG_LEN).stringAttribute(NFTA_ANY_TABLE) === NFT_TABLE_NAME
    ? family
    : undefined;
}
