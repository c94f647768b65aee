/**
 * Dropping what comes in, as a firewall does that nobody thought of: a table of its own, `ip denim-fault`. For the demo's
 * faults; the agent neither reads nor writes it.
 *
 * @module
 */

import type { IpAddress } from "../../ip.ts";
import { NF_ACCEPT, NF_DROP, NF_INET_PRE_ROUTING, NF_IP_PRI_RAW } from "../uapi/netfilter.ts";
import { NFT_CMP_EQ, NFT_PAYLOAD_NETWORK_HEADER } from "../uapi/nf_tables.ts";
import { IPPROTO_UDP } from "../uapi/socket.ts";
import type { Expression } from "./nft_codec.ts";
import { NftConnection } from "./nft_connection.ts";
import { type NftTable, writeRemovedTable, writeTable } from "./nft_table.ts";

/** What is dropped: datagrams to a UDP port, or whatever an IPv4 address sends. */
export type Unwanted = { readonly udpPort: number } | { readonly source: IpAddress };

/** Where IPv4's header has the protocol and the source, and, as it has no options, UDP's the port (RFC 791, RFC 768). */
const PROTOCOL = 9, SOURCE = 12, UDP_DESTINATION_PORT = 22;

/** Drops packets in the namespace in which it was made, until it is disposed of. */
export class IncomingDrop implements Disposable {
  readonly #nft = new NftConnection();
  readonly #table: NftTable;

  /** Throws a LinuxError if the kernel has no nftables, or refuses. */
  constructor(what: Unwanted) {
    const expressions = "udpPort" in what
      ? [
        ...has(PROTOCOL, new Uint8Array([IPPROTO_UDP])),
        ...has(UDP_DESTINATION_PORT, new Uint8Array([what.udpPort >> 8, what.udpPort & 255])),
      ]
      : has(SOURCE, what.source.toBytes());
    const verdict: Expression = { name: "immediate", verdict: NF_DROP };
    this.#table = {
      kind: "nftTable",
      family: 4,
      name: "denim-fault",
      chains: [{
        name: "prerouting",
        type: "filter",
        hook: NF_INET_PRE_ROUTING,
        priority: NF_IP_PRI_RAW,
        policy: NF_ACCEPT,
        rules: [{ expressions: [...expressions, verdict], comment: "a fault, on purpose" }],
      }],
    };
    const error = this.#nft.transact((writer) => writeTable(writer, this.#table));
    if (error === undefined) return;
    this.#nft[Symbol.dispose]();
    throw error;
  }

  /** Lets them pass again. */
  [Symbol.dispose](): void {
    this.#nft.transact((writer) => writeRemovedTable(writer, this.#table));
    this.#nft[Symbol.dispose]();
  }
}

function has(offset: number, value: Uint8Array): Expression[] {
  const { length } = value;
  return [
    { name: "payload", base: NFT_PAYLOAD_NETWORK_HEADER, offset, length },
    { name: "cmp", op: NFT_CMP_EQ, value },
  ];
}
