/**
 * The peers as an operator sees them: which there are, and by which way packets reach each of them.
 *
 * @module
 */

import { type Cidr, type IpAddress, type KernelState, PackedRows, type Peer } from "@denim/core";

/** One family's half of a peer. */
export interface ListedHalf {
  /** The subnet of the peer's pods. */
  readonly subnet: Cidr;
  /** The peer's address on the underlay. */
  readonly publicIp: IpAddress;
  /** The device by which packets to the subnet leave, if they have a route of their own. */
  readonly device: string | undefined;
  /** Whether they go to the peer's own address, without a tunnel. */
  readonly isDirect: boolean;
}

/** A peer that a data path reaches. */
export interface ListedPeer {
  /** The key of its lease. */
  readonly key: string;
  /** The data path that reaches it. */
  readonly way: PeerWay;
  /** One half for each family of its lease. */
  readonly halves: readonly ListedHalf[];
  /**
   * When it came, published something else, or began to be reached in another way, in milliseconds since 1970. No two
   * changes have the same.
   */
  readonly changedAtMs: number;
}

/** The way to a peer, as a data path has it: what all its peers have in common. */
export interface PeerWay {
  /** The type of the backend. */
  readonly backend: string;
  /** The largest packet that a pod may send, in bytes. */
  readonly mtuBytes: number;
  /** Whether each node has its subnet's first address, as tunnels' devices do. */
  readonly hasDeviceAddress: boolean;
  /** The devices of the tunnel, if it is one. */
  readonly devices: readonly string[];
}

/** Follows a {@link PeerList}. */
export interface PeerListener {
  /** A peer is new, or is reached differently. */
  put(peer: ListedPeer): void;
  /** A peer is gone. */
  delete(key: string): void;
}

/** Keeps the peers, from what the data paths make of leases. News of one peer costs the work of one peer. */
export class PeerList {
  readonly #peers = new PackedRows<ListedPeer>(({ key }) => key, ["key"]);
  readonly #listener: PeerListener | undefined;

  /** Without peers yet; `listener` is told of each change. */
  constructor(listener?: PeerListener) {
    this.#listener = listener;
  }

  /** How many there are. */
  get size(): number {
    return this.#peers.size;
  }

  /** The peer with this lease. */
  get(key: string): ListedPeer | undefined {
    return this.#peers.find(key)?.value;
  }

  /** The peers, in no certain order. */
  *[Symbol.iterator](): Generator<ListedPeer, void, void> {
    for (const row of this.#peers.rows()) yield this.#peers.at(row);
  }

  /**
   * A peer is new or publishes something else; or, if its lease `isSame`, the kernel was looked at again.
   *
   * @param state what the kernel should have for it
   */
  put(peer: Peer<unknown>, state: KernelState, way: PeerWay, isSame = false): void {
    const { key, halves } = peer;
    const nexthops = state.flatMap((object) => object.kind === "nexthop" ? [object] : []);
    const before = this.#peers.find(key);
    const listed: ListedPeer = {
      key,
      way,
      halves: halves.map(({ subnet, publicIp }) => {
        const own = nexthops.find(({ via }) => subnet.contains(via) || via.equals(publicIp));
        const device = own?.device;
        const isTunnel = device !== undefined && way.devices.includes(device);
        const isDirect = !isTunnel && own !== undefined && own.via.equals(publicIp);
        return { subnet, publicIp, device, isDirect };
      }),
      changedAtMs: Math.max(Date.now(), (before?.value.changedAtMs ?? 0) + 1),
    };
    if (isSame && before !== undefined && isReachedAlike(before.value, listed)) return;
    if (before === undefined) this.#peers.add(listed);
    else this.#peers.replace(before.row, listed);
    this.#listener?.put(listed);
  }

  /** A peer is gone. */
  delete(key: string): void {
    const before = this.#peers.find(key);
    if (before === undefined) return;
    this.#peers.remove(before.row);
    this.#listener?.delete(key);
  }
}

function isReachedAlike({ halves }: ListedPeer, other: ListedPeer): boolean {
  return halves.every(({ device, isDirect }, index) =>
    other.halves[index]?.device === device && other.halves[index]?.isDirect === isDirect
  );
}
