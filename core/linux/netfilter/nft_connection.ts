/**
 * nftables over netlink, as its tables are read and changed: whole transactions, and questions about one table or
 * chain, so that others' tens of thousands cost nothing.
 *
 * @module
 */

import { type MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import { NetlinkSocket, type RequestFailure } from "../netlink/netlink_socket.ts";
import { EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT, LinuxError } from "../sys/linux_error.ts";
import { NF_INET_FORWARD } from "../uapi/netfilter.ts";
import { NETLINK_NETFILTER } from "../uapi/netlink.ts";
import {
  NFNETLINK_V0,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
} from "../uapi/nfnetlink.ts";
import { AF_UNSPEC } from "../uapi/socket.ts";
import {
  NFT_MSG_GETCHAIN,
  NFT_MSG_GETGEN,
  NFT_MSG_GETRULE,
  NFT_MSG_GETTABLE,
  NFTA_CHAIN_NAME,
  NFTA_CHAIN_TABLE,
  NFTA_RULE_CHAIN,
  NFTA_RULE_TABLE,
  NFTA_TABLE_NAME,
} from "../uapi/nf_tables.ts";
import {
  beginNft,
  type FoundNftRule,
  type FoundNftTable,
  nfProto,
  NFT_FAMILIES,
  type NftChain,
  type NftRuleName,
  parseChain,
  parseRule,
  parseRuleName,
  parseTable,
  type TableId,
} from "./nft_table.ts";

/** A table as `nft` names it: `ip denim`. */
export function tableWords({ family, name }: TableId): string {
  return `${{ 4: "ip", 6: "ip6", inet: "inet" }[family]} ${name}`;
}

/** A chain to which the kernel hands packets. */
export interface BaseChain extends TableId {
  /** The chain's name; `name` is its table's. */
  readonly chain: string;
  /** What becomes of a packet about which no rule says anything: `NF_ACCEPT`. */
  readonly policy: number;
}

/** A table as messages name it. */
export function nftTableKey(id: TableId): string {
  return `nftables table ${tableWords(id)}`;
}

/** What the kernel says if it lacks nftables, or all of netfilter. */
const NOT_THERE: readonly number[] = [EINVAL, EOPNOTSUPP, EPROTONOSUPPORT];

/** Whether an error that nftables could not be opened with says that the kernel has none. */
export function lacksNftables(error: unknown): error is LinuxError {
  return error instanceof LinuxError && NOT_THERE.includes(error.errno);
}

/** Opens something of nftables; `undefined` if the kernel has none. Throws any other error. */
export function openIfThere<T>(open: () => T): T | undefined {
  try {
    return open();
  } catch (error) {
    if (lacksNftables(error)) return undefined;
    throw error;
  }
}

/** A socket for nftables in the network namespace of the thread that opens it. */
export class NftConnection implements Disposable {
  readonly #socket = new NetlinkSocket(NETLINK_NETFILTER);
  readonly #writer = new MessageWriter();

  /** Throws a LinuxError: EPROTONOSUPPORT if the kernel has no netfilter, EINVAL if it has no nftables. */
  constructor() {
    using undo = new DisposableStack();
    undo.use(this.#socket);
    this.#socket.get(
      "ask for nftables",
      (writer) => beginNft(writer, NFT_MSG_GETGEN, 0, 4).end(),
      () => undefined,
    );
    undo.move();
  }

  /** The number by which the kernel names this connection in the events that it causes. */
  protected get portId(): number {
    return this.#socket.portId;
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  /** What a table says of itself; `undefined` if it is not there. Throws a LinuxError. */
  table(id: TableId): Pick<FoundNftTable, "flags" | "use"> | undefined {
    return this.#get(
      id,
      (writer) =>
        beginNft(writer, NFT_MSG_GETTABLE, 0, id.family)
          .stringAttribute(NFTA_TABLE_NAME, id.name).end(),
      parseTable,
    );
  }

  /** A chain without its rules; `undefined` if it is not there. Throws a LinuxError. */
  chain(id: TableId, chain: string): Omit<NftChain, "rules"> | undefined {
    return this.#get(
      id,
      (writer) =>
        beginNft(writer, NFT_MSG_GETCHAIN, 0, id.family)
          .stringAttribute(NFTA_CHAIN_TABLE, id.name)
          .stringAttribute(NFTA_CHAIN_NAME, chain).end(),
      parseChain,
    );
  }

  /** The rules of a table, or of one of its chains, in order; none if it is not there. Throws a LinuxError. */
  rules(id: TableId, chain?: string): FoundNftRule[] {
    return this.#listRules(id, chain, parseRule);
  }

  /** As {@link NftConnection.rules}, without the rules' steps, which take most of the time. Throws a LinuxError. */
  ruleNames(id: TableId, chain?: string): NftRuleName[] {
    return this.#listRules(id, chain, parseRuleName);
  }

  #listRules<Rule>(
    id: TableId,
    chain: string | undefined,
    parse: (reader: MessageReader) => Rule,
  ): Rule[] {
    return this.#socket.dump(
      `read ${nftTableKey(id)}`,
      (writer) => {
        beginNft(writer, NFT_MSG_GETRULE, 0, id.family).stringAttribute(NFTA_RULE_TABLE, id.name);
        if (chain !== undefined) writer.stringAttribute(NFTA_RULE_CHAIN, chain);
        writer.end();
      },
      parse,
    );
  }

  /** The chains of all tables that filter what is forwarded, whoever made them. Throws a LinuxError. */
  forwardChains(): BaseChain[] {
    return this.#socket.dump(
      "list nftables' chains",
      (writer) =>
        writer.begin(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, 0)
          .u8(AF_UNSPEC).u8(NFNETLINK_V0).u16(0).end(),
      (reader) => {
        const family = NFT_FAMILIES.find((family) => nfProto(family) === reader.u8(0));
        const { name: chain, hook, type, policy } = parseChain(reader);
        const name = reader.stringAttribute(NFTA_CHAIN_TABLE);
        if (family === undefined || name === undefined) return undefined;
        if (hook !== NF_INET_FORWARD || type !== "filter") return undefined;
        return { family, name, chain, policy };
      },
    );
  }

  /** Has the kernel take all messages that `write` writes, or none of them. Returns why it took none. */
  transact(write: (writer: MessageWriter) => void): RequestFailure["error"] | undefined {
    const writer = this.#writer;
    writer.clear();
    writeBatchEdge(writer, NFNL_MSG_BATCH_BEGIN);
    write(writer);
    writeBatchEdge(writer, NFNL_MSG_BATCH_END);
    return this.#socket.transact(writer)[0]?.error;
  }

  #get<T>(
    id: TableId,
    write: (writer: MessageWriter) => void,
    parse: (reader: MessageReader) => T,
  ): T | undefined {
    try {
      return this.#socket.get(`read ${nftTableKey(id)}`, write, parse);
    } catch (error) {
      if (error instanceof LinuxError && error.errno === ENOENT) return undefined;
      throw error;
    }
  }
}

function writeBatchEdge(writer: MessageWriter, type: number): void {
  // struct nfgenmsg; res_id, in network order, is the subsystem.
  writer.begin(type, 0).u8(0).u8(NFNETLINK_V0).u8(0).u8(NFNL_SUBSYS_NFTABLES).end();
}
