/**
 * nftables (nft(8)), straight over netlink: one place in the kernel that denim keeps as desired. It holds two
 * objects, denim's table of each family. No `nft` program takes part, and others' tables are neither read nor
 * written.
 *
 * @module
 */

import { FAMILIES, type Family } from "../../ip.ts";
import { ENOENT, LinuxError } from "../sys/libc.ts";
import { Monitor } from "../netlink/monitor.ts";
import { type MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
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

/** Something to do to a table. */
export type NftStep =
  | { readonly action: "put"; readonly object: NftTable }
  | { readonly action: "remove"; readonly object: NftTable };

/** A step that failed; the kernel has what it had before. */
export interface NftStepFailure {
  /** The step. */
  readonly step: NftStep;
  /** What the kernel said. */
  readonly error: LinuxError;
}

/** Somebody changed a table of denim's. */
export interface NftChange {
  /** The table's key. */
  readonly key: string;
  /** What is there now; `undefined` if it is gone. */
  readonly found: FoundNftTable | undefined;
}

/** denim's tables in the network namespace of the thread that opens this. */
export class Nftables implements Disposable {
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

  /** Equal keys are the same table to the kernel. */
  key({ kind, family }: NftTable): string {
    return keyOf(kind, family);
  }

  /** Whether the kernel's table is as it should be, to the last rule. */
  equal(wanted: NftTable, found: FoundNftTable): boolean {
    return nftTableEqual(wanted, found);
  }

  /** A table needs nothing else. */
  needs(_object: NftTable): readonly string[] {
    return [];
  }

  /** The tables of denim's that there are. All that is in them is denim's too. */
  *dump(): Generator<{ readonly found: FoundNftTable; readonly ours: boolean }> {
    for (const family of FAMILIES) {
      const found = this.#read(family);
      if (found !== undefined) yield { found, ours: true };
    }
  }

  /**
   * Takes the steps, each as one transaction: packets meet the old table or the new one, and a step that fails
   * changes nothing. To remove a table that is gone does not fail.
   */
  apply(steps: readonly NftStep[]): readonly NftStepFailure[] {
    return steps.flatMap((step) => {
      const error = this.#take(step);
      return error === undefined ? [] : [{ step, error }];
    });
  }

  /**
   * Tells of what others change in the tables, once for each table however many messages say so, until the
   * signal aborts. Calls `onLost` if the kernel had more to tell than the socket holds.
   */
  async listen(
    signal: AbortSignal,
    onChange: (change: NftChange) => void,
    onLost: () => void,
  ): Promise<void> {
    const touched = new Set<Family>();
    const hear = (reader: MessageReader) => {
      const family = familyOfNews(reader);
      if (family !== undefined) touched.add(family);
    };
    while (await this.#monitor.next(signal, hear, onLost)) {
      for (const family of touched) {
        onChange({ key: keyOf("nft-table", family), found: this.#read(family) });
      }
      touched.clear();
    }
  }

  #take({ action, object }: NftStep): LinuxError | undefined {
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
    if (failure === undefined) return undefined;
    const { errno, detail } = failure.error;
    if (action === "remove" && errno === ENOENT) return undefined;
    return new LinuxError(errno, `${action} ${tableText(object.family)}`, detail);
  }

  /**
   * Reads a table, in several questions. If it changes between them, there is news of that to come. The kernel
   * can't list one table's chains alone, and kube-proxy may have tens of thousands: so this asks for the chains
   * that have rules, by name. `use` counts the others.
   */
  #read(family: Family): FoundNftTable | undefined {
    const what = `read ${tableText(family)}`;
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
    return { kind: "nft-table", family, chains, ...table };
  }
}

function keyOf(kind: NftTable["kind"], family: Family): string {
  return `${kind} ${tableName(family)}`;
}

/** The table's name as `nft list table` takes it. */
function tableName(family: Family): string {
  return `${family === 4 ? "ip" : "ip6"} ${NFT_TABLE_NAME}`;
}

function tableText(family: Family): string {
  return `nftables table ${tableName(family)}`;
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

/** The family whose table of denim's the news is about; `undefined` if it is about another table. */
function familyOfNews(reader: MessageReader): Family | undefined {
  if (reader.type === (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN)) return undefined;
  const family = FAMILIES.find((family) => addressFamily(family) === reader.u8(0));
  return reader.readAttributes(NFGENMSG_LEN).stringAttribute(NFTA_ANY_TABLE) === NFT_TABLE_NAME
    ? family
    : undefined;
}
