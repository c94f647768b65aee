/**
 * nftables (nft(8)), straight over netlink: one place in the kernel that denim keeps as desired. It holds two
 * objects, denim's table of each family. No `nft` program takes part, and others' tables are neither read nor
 * written.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import { FAMILIES, type Family } from "../../ip.ts";
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
  NFT_TABLE_NAME,
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

/** denim's tables in the network namespace of the thread that opens this. */
export class Nftables implements KernelTable<NftTable, FoundNftTable>, Disposable {
  readonly #socket = new NetlinkSocket(NETLINK_NETFILTER);
  readonly #writer = new MessageWriter();
  readonly #monitor: Monitor;

  /**
   * Starts to listen at once, so that no change is missed between a dump and {@link Nftables.listen}. Throws a
   * LinuxError, with EPROTONOSUPPORT if the kernel has no netfilter.
   */
  constructor() {
    using undo = new DisposableStack();
    undo.use(this.#socket);
    this.#monitor = new Monitor(this.#socket.portId, NETLINK_NETFILTER, [NFNLGRP_NFTABLES]);
    undo.move();
  }

  /** Closes the sockets. The tables stay. */
  [Symbol.dispose](): void {
    this.#monitor[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }

  /** See {@link KernelTable.key}. */
  key({ family }: FoundNftTable): string {
    return `nftables table ${family === 4 ? "ip" : "ip6"} ${NFT_TABLE_NAME}`;
  }

  /** See {@link KernelTable.equal}: to the last rule. */
  equal(wanted: NftTable, found: FoundNftTable): boolean {
    return nftTableEqual(wanted, found);
  }

  /** See {@link KernelTable.ours}: who uses the name means denim's table. */
  ours(): boolean {
    return true;
  }

  /** See {@link KernelTable.dump}. Throws a LinuxError, if the kernel has no nftables too. */
  dump(): FoundNftTable[] {
    return FAMILIES.map((family) => this.#read(family)).filter((found) => found !== undefined);
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
    try {
      const found = this.#read(family);
      if (found !== undefined) listener.found(found);
      else listener.gone(emptyTable(family));
    } catch (error) {
      throwDefect(error);
      // The comparison that follows meets the same error, and is tried again.
      listener.lost();
    }
  }

  #take({ action, object, key }: Step<NftTable, FoundNftTable>): void {
    const writer = this.#writer;
    writer.clear();
    writeBatchEdge(writer, NFNL_MSG_BATCH_BEGIN);
    if (action === "remove") writeRemovedTable(writer, object.family);
    else {
      const found = this.#read(object.family);
      if (found !== undefined && sameFrame(object, found)) writeTableRules(writer, object);
      else writeTable(writer, object);
    }
    writeBatchEdge(writer, NFNL_MSG_BATCH_END);
    const [failure] = this.#socket.transact(writer);
    if (failure === undefined) return;
    const { errno, detail } = failure.error;
    if (action === "remove" && errno === ENOENT) return;
    throw new LinuxError(errno, `${action} ${key}`, detail);
  }

  /**
   * Reads a table, in several questions. If it changes between them, there is an event of that to come. The kernel
   * can't list one table's chains alone, and kube-proxy may have tens of thousands: so this asks for the chains
   * that have rules, by name. `use` counts the others.
   */
  #read(family: Family): FoundNftTable | undefined {
    const what = `read ${this.key(emptyTable(family))}`;
    const table = unlessGone(() =>
      this.#socket.get(
        what,
        (writer) =>
          beginNft(writer, NFT_MSG_GETTABLE, 0, family)
            .stringAttribute(NFTA_TABLE_NAME, NFT_TABLE_NAME).end(),
        parseTable,
      )
    );
    if (table === undefined) return undefined;
    const rules = this.#socket.dump(
      what,
      (writer) =>
        beginNft(writer, NFT_MSG_GETRULE, 0, family)
          .stringAttribute(NFTA_RULE_TABLE, NFT_TABLE_NAME).end(),
      parseRule,
    );
    const chains = [...Map.groupBy(rules, ({ chain }) => chain)].flatMap(([name, rules]) => {
      const chain = unlessGone(() =>
        this.#socket.get(
          what,
          (writer) =>
            beginNft(writer, NFT_MSG_GETCHAIN, 0, family)
              .stringAttribute(NFTA_CHAIN_TABLE, NFT_TABLE_NAME)
              .stringAttribute(NFTA_CHAIN_NAME, name).end(),
          parseChain,
        )
      );
      return chain === undefined ? [] : [{ ...chain, rules }];
    });
    return { kind: "nftTable", family, chains, ...table };
  }
}

function emptyTable(family: Family): NftTable {
  return { kind: "nftTable", family, chains: [] };
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
