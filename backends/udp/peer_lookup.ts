/**
 * Whose packet is it: for each direction of a thread.
 *
 * @module
 */

import type { Family } from "@denim/core/ip";
import { AddressWords } from "./address_words.ts";
import type { PeerMap } from "./peer_map.ts";

/** Finds peers by their pods' addresses, and remembers the last one: the next packet is mostly the same pod's. */
export class PeerLookup {
  readonly #peers: PeerMap;
  readonly #address = new AddressWords();
  #version = -1;
  #found = -1;

  /** Looks up in a table, which may change at any time. */
  constructor(peers: PeerMap) {
    this.#peers = peers;
  }

  /**
   * The record of the longest subnet that an address is in, or -1; see {@link PeerMap.find}.
   *
   * @param offset where the address is, in network order
   */
  find(family: Family, view: DataView, offset: number): number {
    const { version } = this.#peers;
    if (version !== this.#version || !this.#address.isAt(family, view, offset)) {
      this.#version = version;
      this.#address.read(family, view, offset);
      this.#found = this.#peers.find(this.#address);
    }
    return this.#found;
  }
}
