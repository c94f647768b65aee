/**
 * The kernel's events: which objects were made, changed or removed, and not by this process.
 *
 * @module
 */

import { type FileDescriptor } from "../sys/libc.ts";
import { ENOBUFS, LinuxError } from "../sys/linux_error.ts";
import { inputOn } from "../sys/poll.ts";
import { attachFilter, receive, setsockopt } from "../sys/sockets.ts";
import { MessageReader } from "./netlink_codec.ts";
import { joinGroups, openNetlink } from "./netlink_socket.ts";
import { MSG_DONTWAIT, SO_RCVBUFFORCE, SOL_SOCKET } from "../uapi/socket.ts";

/** The kernel reports FDB entries of our own making too: room for tens of thousands at once. */
const RECEIVE_BUFFER_BYTES = 64 * 1024 * 1024;
const MESSAGE_BYTES = 64 * 1024;

/** Takes the events of a {@link Monitor}. */
export interface MonitorListener {
  /**
   * One message. The reader is valid until this returns.
   *
   * @param isOld whether it was there before the latest {@link Monitor.hold}
   */
  onMessage(reader: MessageReader, isOld: boolean): void;
  /** The kernel dropped events, because the socket's buffer was full (ENOBUFS). */
  onLost(): void;
}

/** A socket that receives events of the namespace in which it was opened, and hands each to all listeners. */
export class Monitor implements Disposable {
  readonly #fd: FileDescriptor;
  readonly #buffer = new Uint8Array(new ArrayBuffer(MESSAGE_BYTES));
  #listeners: MonitorListener[] = [];
  /** What was taken from the socket and is not handed on yet; and whether the kernel had dropped events by then. */
  #held: Uint8Array<ArrayBuffer>[] = [];
  #heldLost = false;
  #receiving: Promise<void> | undefined;

  /**
   * Opens the socket in this thread's namespace. From then on the kernel keeps events until somebody listens.
   *
   * @param ownPortId the kernel leaves out what the request socket with this port id changed, if it names who
   * made the change
   * @param protocol of netlink: `NETLINK_ROUTE`
   * @param groups the multicast groups to join: `RTNLGRP_LINK`
   */
  constructor(ownPortId: number, protocol: number, groups: Iterable<number>) {
    using undo = new DisposableStack();
    this.#fd = undo.use(openNetlink(protocol).fd);
    setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, new Uint32Array([RECEIVE_BUFFER_BYTES]));
    attachFilter(this.#fd, exceptFrom(ownPortId));
    joinGroups(this.#fd, groups);
    undo.move();
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }

  /**
   * Hands events to a listener until the signal is aborted. Several may listen at the same time, with the same
   * signal; each event goes to them in the order in which they came. Throws a LinuxError if the socket fails.
   */
  listen(listener: MonitorListener, signal: AbortSignal): Promise<void> {
    this.#listeners.push(listener);
    this.#receiving ??= this.#receive(signal).finally(() => {
      this.#listeners = [];
      this.#receiving = undefined;
    });
    return this.#receiving;
  }

  async #receive(signal: AbortSignal): Promise<void> {
    const onMessage = (reader: MessageReader, isOld: boolean) => {
      for (const listener of this.#listeners) listener.onMessage(reader, isOld);
    };
    const onLost = () => {
      for (const listener of this.#listeners) listener.onLost();
    };
    // Whoever begins to listen at the same time hears what is held, too.
    await Promise.resolve();
    while (await this.next(signal, onMessage, onLost));
  }

  /**
   * Takes note of what the kernel has reported until now: who listens later is told that it is old. Call it before all is
   * listed that events are about.
   */
  hold(): void {
    const onLost = () => this.#heldLost = true;
    for (let length; (length = this.#receiveNow(onLost)) >= 0;) {
      this.#held.push(this.#buffer.slice(0, length));
    }
  }

  /**
   * Waits for events, hands each message to `onMessage`, then returns. False once the signal is aborted. Calls
   * `onLost` if the kernel dropped events.
   */
  async next(
    signal: AbortSignal,
    onMessage: (reader: MessageReader, isOld: boolean) => void,
    onLost: () => void,
  ): Promise<boolean> {
    const held = this.#held;
    this.#held = [];
    if (this.#heldLost) onLost();
    this.#heldLost = false;
    for (const bytes of held) {
      const reader = new MessageReader(bytes, bytes.length);
      while (reader.next()) onMessage(reader, true);
    }
    if (!await inputOn(this.#fd, signal)) return false;
    for (let length; (length = this.#receiveNow(onLost)) >= 0;) {
      const reader = new MessageReader(this.#buffer, length);
      while (reader.next()) onMessage(reader, false);
    }
    return true;
  }

  /** Receives what is there, and returns its length; -1 if there is nothing. */
  #receiveNow(onLost: () => unknown): number {
    for (;;) {
      try {
        return receive(this.#fd, this.#buffer, MSG_DONTWAIT);
      } catch (error) {
        if (!(error instanceof LinuxError) || error.errno !== ENOBUFS) throw error;
        onLost();
      }
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
