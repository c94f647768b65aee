/**
 * The kernel's own news of changes to devices, addresses, neighbours, nexthops, routes and forwarding.
 *
 * @module
 */

import { type FileDescriptor } from "../sys/libc.ts";
import { ENOBUFS, LinuxError } from "../sys/linux_error.ts";
import { inputOn } from "../sys/poll.ts";
import { attachFilter, receive, setsockopt } from "../sys/sockets.ts";
import { MessageReader } from "./netlink_codec.ts";
import { openNetlink } from "./netlink_socket.ts";
import { NETLINK_ADD_MEMBERSHIP, SOL_NETLINK } from "../uapi/netlink.ts";
import {
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_NETCONF,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_NETCONF,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
  RTNLGRP_NEXTHOP,
} from "../uapi/rtnetlink.ts";
import { MSG_DONTWAIT, SO_RCVBUFFORCE, SOL_SOCKET } from "../uapi/socket.ts";

const GROUPS = [
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_NEXTHOP,
  RTNLGRP_IPV4_NETCONF,
  RTNLGRP_IPV6_NETCONF,
];
/** FDB entries of one's own making are told of as well: room for tens of thousands at once. */
const RECEIVE_BUFFER_BYTES = 64 * 1024 * 1024;
const MESSAGE_BYTES = 64 * 1024;

/** A socket that hears of changes in the namespace in which it was opened. */
export class Monitor implements Disposable {
  readonly #fd: FileDescriptor;
  readonly #buffer = new Uint8Array(new ArrayBuffer(MESSAGE_BYTES));

  /**
   * Opens the socket in this thread's namespace. Changes that the request socket with `ownPortId` made are
   * left out by the kernel, where it says who made them.
   */
  constructor(ownPortId: number) {
    using undo = new DisposableStack();
    this.#fd = undo.use(openNetlink().fd);
    setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, new Uint32Array([RECEIVE_BUFFER_BYTES]));
    attachFilter(this.#fd, exceptFrom(ownPortId));
    for (const group of GROUPS) {
      setsockopt(this.#fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, new Uint32Array([group]));
    }
    undo.move();
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }

  /**
   * Waits for news and hands each message to `onMessage`, then returns. False once the signal is aborted.
   * Calls `onLost` where the kernel had more to tell than the socket could hold.
   */
  async next(
    signal: AbortSignal,
    onMessage: (reader: MessageReader) => void,
    onLost: () => void,
  ): Promise<boolean> {
    if (!await inputOn(this.#fd, signal)) return false;
    for (;;) {
      let length;
      try {
        length = receive(this.#fd, this.#buffer, MSG_DONTWAIT);
      } catch (error) {
        if (!(error instanceof LinuxError) || error.errno !== ENOBUFS) throw error;
        onLost();
        continue;
      }
      if (length < 0) return true;
      const reader = new MessageReader(this.#buffer, length);
      while (reader.next()) onMessage(reader);
    }
  }
}

/**
 * A classic BPF program (linux/filter.h): drops messages whose `nlmsg_pid` is this port id. Each line is
 * a `struct sock_filter`: code, jump if true, jump if false, k.
 */
function exceptFrom(portId: number): readonly (readonly [number, number, number, number])[] {
  const LD_W_ABS = 0x20, JEQ_K = 0x15, RET_K = 0x06;
  const NLMSG_PID_OFFSET = 12;
  // BPF loads in network order what netlink writes in host order.
  const swapped = new DataView(new ArrayBuffer(4));
  swapped.setUint32(0, portId, true);
  return [
    [LD_W_ABS, 0, 0, NLMSG_PID_OFFSET],
    [JEQ_K, 0, 1, swapped.getUint32(0)],
    [RET_K, 0, 0, 0],
    [RET_K, 0, 0, 0xffff_ffff],
  ];
}
