/**
 * A netlink socket for requests: many messages in one system call, each error with its message.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import { type FileDescriptor } from "../sys/libc.ts";
import { EBUSY, ENOBUFS, LinuxError } from "../sys/linux_error.ts";
import { bind, getsockname, receive, send, setsockopt, socket } from "../sys/sockets.ts";
import { MessageReader, MessageWriter } from "./netlink_codec.ts";
import {
  NETLINK_ADD_MEMBERSHIP,
  NETLINK_CAP_ACK,
  NETLINK_EXT_ACK,
  NETLINK_GET_STRICT_CHK,
  NETLINK_ROUTE,
  NLM_F_ACK,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_HDRLEN,
  NLMSGERR_ATTR_MSG,
  SOL_NETLINK,
} from "../uapi/netlink.ts";
import {
  AF_NETLINK,
  MSG_DONTWAIT,
  SO_RCVBUFFORCE,
  SO_RCVTIMEO,
  SOCK_CLOEXEC,
  SOCK_RAW,
  SOL_SOCKET,
} from "../uapi/socket.ts";

/** One message of a batch failed. */
export interface RequestFailure {
  /** The message's place in the batch, from 0. */
  readonly index: number;
  /** What the kernel said. */
  readonly error: LinuxError;
}

/** struct sockaddr_nl: family, padding, port id, groups. */
const SOCKADDR_NL_LEN = 12;
/** A dump's parts are at most 32 KiB (`NLMSG_GOODSIZE` of the largest skb that rtnetlink makes). */
const RECEIVE_BYTES = 64 * 1024;
/** Room for an error for each message of a batch: the kernel counts some 1 KiB for each. */
const RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024;
/** The kernel answers while `send` runs; an answer that is not there after this will never come. */
const ANSWER_TIMEOUT_S = 5n;
/** A dump that a change interrupts is asked for again; a busy kernel may do so several times. */
const DUMP_ATTEMPTS = 20;

const timeval = (seconds: bigint) => new BigInt64Array([seconds, 0n]);

/**
 * Opens a netlink socket of a protocol (`NETLINK_ROUTE`, `NETLINK_NETFILTER`) in this thread's network
 * namespace, where it then stays.
 */
export function openNetlink(protocol: number = NETLINK_ROUTE): {
  fd: FileDescriptor;
  portId: number;
} {
  const fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  try {
    const address = new Uint8Array(SOCKADDR_NL_LEN);
    const view = new DataView(address.buffer);
    view.setUint16(0, AF_NETLINK, true);
    bind(fd, address);
    getsockname(fd, address);
    return { fd, portId: view.getUint32(4, true) };
  } catch (error) {
    fd[Symbol.dispose]();
    throw error;
  }
}

/** Has a netlink socket receive the events of multicast groups: `RTNLGRP_LINK`. */
export function joinGroups(fd: FileDescriptor, groups: Iterable<number>): void {
  for (const group of groups) {
    setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, new Uint32Array([group]));
  }
}

/** A netlink socket for requests. Synchronous: the kernel answers before `send` returns. */
export class NetlinkSocket implements Disposable {
  readonly #fd: FileDescriptor;
  readonly #buffer = new Uint8Array(new ArrayBuffer(RECEIVE_BYTES));
  readonly #writer = new MessageWriter();
  /** Whether the last question's answer was not read to its end. */
  #unread = false;
  /** The number by which the kernel knows this socket, and names it in the events that it causes. */
  readonly portId: number;

  /**
   * Opens a socket in this thread's network namespace, where it stays when the thread moves on: for
   * rtnetlink, or for another protocol of netlink's.
   */
  constructor(protocol: number = NETLINK_ROUTE) {
    const { fd, portId } = openNetlink(protocol);
    using undo = new DisposableStack();
    this.#fd = undo.use(fd);
    this.portId = portId;
    const on = new Uint32Array([1]);
    setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, on);
    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, on);
    setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeval(ANSWER_TIMEOUT_S));
    try {
      setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, new Uint32Array([RECEIVE_BUFFER_BYTES]));
    } catch (error) {
      // Without CAP_NET_ADMIN only questions can be asked, and their answers fit.
      throwDefect(error);
    }
    undo.move();
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    this.#fd[Symbol.dispose]();
  }

  /**
   * Sends a batch in one system call and collects what failed. Only the last message asks for an answer:
   * the kernel reports errors of the others all the same.
   */
  send(batch: MessageWriter): RequestFailure[] {
    if (batch.count === 0) return [];
    batch.addFlags(NLM_F_ACK);
    this.#ask(batch);
    const failures: RequestFailure[] = [];
    for (;;) {
      const reader = this.#receive();
      while (reader.next()) {
        if (reader.type !== NLMSG_ERROR) continue;
        const index = reader.sequence - 1;
        const error = errorOf(reader, "netlink");
        if (error !== undefined) failures.push({ index, error });
        if (index !== batch.count - 1) continue;
        this.#unread = false;
        return failures;
      }
    }
  }

  /**
   * Sends a batch that the kernel takes whole or not at all: from `NFNL_MSG_BATCH_BEGIN` to
   * `NFNL_MSG_BATCH_END` (linux/netfilter/nfnetlink.h). Returns what failed; after no failure the batch is in
   * force.
   *
   * Kernels differ in which messages they answer: an error of the whole batch has its first message's number, and
   * few kernels answer the last. So this reads all the answers that are there when `send` has returned.
   */
  transact(batch: MessageWriter): RequestFailure[] {
    this.#ask(batch);
    const failures: RequestFailure[] = [];
    for (let length; (length = receive(this.#fd, this.#buffer, MSG_DONTWAIT)) >= 0;) {
      const reader = new MessageReader(this.#buffer, length);
      while (reader.next()) {
        if (reader.type !== NLMSG_ERROR) continue;
        const error = errorOf(reader, "netlink");
        if (error !== undefined) failures.push({ index: reader.sequence - 1, error });
      }
    }
    this.#unread = false;
    return failures;
  }

  /** Sends one message, made by `write`, and throws a LinuxError that names `what` if it fails. */
  request(what: string, write: (writer: MessageWriter) => void): void {
    this.#writer.clear();
    write(this.#writer);
    const [failure] = this.send(this.#writer);
    if (failure !== undefined) throw describe(failure.error, what);
  }

  /**
   * Asks one question, made by `write`, and reads the one answer. `undefined` if `parse` has no use for
   * it; throws a LinuxError that names `what`.
   */
  get<T>(
    what: string,
    write: (writer: MessageWriter) => void,
    parse: (reader: MessageReader) => T | undefined,
  ): T | undefined {
    this.#writer.clear();
    write(this.#writer);
    this.#writer.addFlags(NLM_F_ACK);
    this.#ask(this.#writer);
    let answer: T | undefined;
    for (;;) {
      const reader = this.#receive();
      while (reader.next()) {
        if (reader.type !== NLMSG_ERROR) answer = parse(reader);
        else {
          this.#unread = false;
          const error = errorOf(reader, what);
          if (error !== undefined) throw error;
          return answer;
        }
      }
    }
  }

  /**
   * Dumps objects: `write` makes the question, `parse` reads each answer or leaves it out. Starts again if a
   * change interrupts the dump, so that the result is what the kernel had at one moment. Throws a LinuxError
   * that names `what`, with EBUSY if changes interrupt every attempt.
   */
  dump<T>(
    what: string,
    write: (writer: MessageWriter) => void,
    parse: (reader: MessageReader) => T | undefined,
  ): T[] {
    for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
      this.#writer.clear();
      write(this.#writer);
      this.#writer.addFlags(NLM_F_DUMP);
      this.#ask(this.#writer);
      const { objects, interrupted } = this.#readDump(what, parse);
      if (!interrupted) return objects;
    }
    throw new LinuxError(EBUSY, what, `interrupted by changes ${DUMP_ATTEMPTS} times in a row`);
  }

  #readDump<T>(
    what: string,
    parse: (reader: MessageReader) => T | undefined,
  ): { objects: T[]; interrupted: boolean } {
    const objects: T[] = [];
    let interrupted = false;
    for (;;) {
      const reader = this.#receive();
      while (reader.next()) {
        if (reader.flags & NLM_F_DUMP_INTR) interrupted = true;
        if (reader.type === NLMSG_DONE || reader.type === NLMSG_ERROR) {
          this.#unread = false;
          const error = errorOf(reader, what);
          if (error !== undefined) throw error;
          return { objects, interrupted };
        }
        const object = parse(reader);
        if (object !== undefined) objects.push(object);
      }
    }
  }

  /** Discards what is left of an earlier answer, so that it is not mistaken for the answer to this question. */
  #ask(batch: MessageWriter): void {
    while (this.#unread) this.#unread = this.#isMore();
    this.#unread = true;
    send(this.#fd, batch.bytes, batch.length);
  }

  #isMore(): boolean {
    try {
      return receive(this.#fd, this.#buffer, MSG_DONTWAIT) >= 0;
    } catch (error) {
      if (error instanceof LinuxError && error.errno === ENOBUFS) return true; // reported once
      throw error;
    }
  }

  #receive(): MessageReader {
    const length = receive(this.#fd, this.#buffer);
    if (length < 0) throw new LinuxError(11, "netlink: the kernel gave no answer");
    return new MessageReader(this.#buffer, length);
  }
}

/** Reads NLMSG_ERROR (struct nlmsgerr) or the error in NLMSG_DONE; `undefined` for "no error". */
function errorOf(reader: MessageReader, what: string): LinuxError | undefined {
  const errno = -reader.i32(0);
  if (errno === 0) return undefined;
  let words: string | undefined;
  if (reader.flags & NLM_F_ACK_TLVS) {
    // The error, then the request's header, then (unless capped) the rest of the request.
    const request = reader.type === NLMSG_DONE ? 0 : NLMSG_HDRLEN;
    const body = reader.type === NLMSG_ERROR && !(reader.flags & NLM_F_CAPPED)
      ? reader.u32(4) - NLMSG_HDRLEN
      : 0;
    words = reader.readAttributes(4 + request + body).stringAttribute(NLMSGERR_ATTR_MSG);
  }
  return new LinuxError(errno, what, words);
}

/** The same failure, under the name of the caller's purpose. */
function describe(error: LinuxError, what: string): LinuxError {
  return new LinuxError(error.errno, what, error.detail);
}
