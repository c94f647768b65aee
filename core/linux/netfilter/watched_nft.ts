/**
 * nftables, and what others change there.
 *
 * @module
 */

import { Monitor } from "../netlink/monitor.ts";
import { NETLINK_NETFILTER } from "../uapi/netlink.ts";
import { NFNLGRP_NFTABLES } from "../uapi/nfnetlink.ts";
import { NftConnection } from "./nft_connection.ts";

/** A connection that hears of changes. */
export class WatchedNft extends NftConnection {
  /** What others change, from the moment of opening on. */
  readonly monitor: Monitor;

  /** Throws a LinuxError, as {@link NftConnection} does. */
  constructor() {
    super();
    using undo = new DisposableStack();
    undo.defer(() => super[Symbol.dispose]());
    this.monitor = new Monitor(this.portId, NETLINK_NETFILTER, [NFNLGRP_NFTABLES]);
    undo.move();
  }

  /** Closes the sockets. */
  override [Symbol.dispose](): void {
    this.monitor[Symbol.dispose]();
    super[Symbol.dispose]();
  }
}
