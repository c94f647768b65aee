/**
 * The tables of iptables-legacy as the kernel has them (getsockopt(2)): which ones there are, FORWARD's policy, and
 * whether anything in them has changed. There are no events of them, and no program is needed to ask.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import process from "node:process";
import { FAMILIES, type Family } from "../../ip.ts";
import { throwDefect } from "../../errors.ts";
import { addressFamily } from "../sys/address_family.ts";
import type { FileDescriptor } from "../sys/libc.ts";
import { EAGAIN, LinuxError } from "../sys/linux_error.ts";
import { NetworkNamespace } from "../sys/namespace.ts";
import { OpenProcFile } from "../sys/proc_files.ts";
import { getsockoptInto, socket } from "../sys/sockets.ts";
import { NF_INET_FORWARD } from "../uapi/netfilter.ts";
import { IPPROTO_IP, IPPROTO_IPV6, SOCK_CLOEXEC, SOCK_DGRAM } from "../uapi/socket.ts";
import {
  IP6T_ENTRY_COUNTERS,
  IP6T_ENTRY_NEXT_OFFSET,
  IP6T_ENTRY_TARGET_OFFSET,
  IPT_ENTRY_COUNTERS,
  IPT_ENTRY_NEXT_OFFSET,
  IPT_ENTRY_TARGET_OFFSET,
  IPT_GET_ENTRIES_LEN,
  IPT_GET_ENTRIES_SIZE,
  IPT_GETINFO_LEN,
  IPT_GETINFO_SIZE,
  IPT_GETINFO_UNDERFLOW,
  IPT_SO_GET_ENTRIES,
  IPT_SO_GET_INFO,
  XT_COUNTERS_LEN,
  XT_STANDARD_TARGET_VERDICT,
  XT_TABLE_MAXNAMELEN,
} from "../uapi/x_tables.ts";

const ENTRY: Readonly<Record<Family, { target: number; next: number; counters: number }>> = {
  4: {
    target: IPT_ENTRY_TARGET_OFFSET,
    next: IPT_ENTRY_NEXT_OFFSET,
    counters: IPT_ENTRY_COUNTERS,
  },
  6: {
    target: IP6T_ENTRY_TARGET_OFFSET,
    next: IP6T_ENTRY_NEXT_OFFSET,
    counters: IP6T_ENTRY_COUNTERS,
  },
};

/** Where the kernel lists the tables that a namespace has: asking for one that is not there would make it. */
const NAMES: Readonly<Record<Family, string>> = {
  4: "/proc/thread-self/net/ip_tables_names",
  6: "/proc/thread-self/net/ip6_tables_names",
};

/** What a table holds at one moment. */
export interface LegacyTable {
  /** Differs if a rule, or a policy, is another than before; counters don't matter. */
  readonly fingerprint: string;
  /** The policy of FORWARD, `NF_DROP` or `NF_ACCEPT`, if the table is `filter`. */
  readonly forwardPolicy: number | undefined;
  /** Whether a chain's name, or a comment, is in it. */
  mentions(text: string): boolean;
}

/** The tables of the network namespace of the thread that opens this. */
export class LegacyTables implements Disposable {
  readonly #namespace = NetworkNamespace.current();
  readonly #sockets = new Map<Family, FileDescriptor>();
  /** The kernel's lists of tables, of those that it has. */
  readonly #lists = new Map<Family, OpenProcFile>();

  /** Closes the sockets, and whatever else is open. */
  [Symbol.dispose](): void {
    this.#namespace[Symbol.dispose]();
    for (const list of this.#lists.values()) list[Symbol.dispose]();
    for (const fd of this.#sockets.values()) fd[Symbol.dispose]();
  }

  /** Runs a function in the namespace. */
  inside<T>(fn: () => T extends Promise<unknown> ? never : T): T {
    return this.#namespace.runHere(fn);
  }

  /** The tables that there are, as `4 nat`; none if the kernel has no iptables-legacy. */
  names(): ReadonlySet<string> {
    return new Set(
      FAMILIES.flatMap((family) => this.#namesOf(family).map((table) => `${family} ${table}`)),
    );
  }

  #namesOf(family: Family): readonly string[] {
    let list = this.#lists.get(family);
    try {
      if (list === undefined) {
        list = this.inside(() => new OpenProcFile(NAMES[family]));
        this.#lists.set(family, list);
      }
      return list.read().split("\n").filter((name) => name !== "");
    } catch (error) {
      // The module is not loaded, or is so no more: the file is not there.
      throwDefect(error);
      list?.[Symbol.dispose]();
      this.#lists.delete(family);
      return [];
    }
  }

  /** The size of a table's rules, in bytes. Throws a LinuxError; makes the table if it is not there. */
  size(family: Family, table: string): number {
    return this.#info(family, table).size;
  }

  /** Reads a table; `undefined` if it is not there. Throws a LinuxError. */
  read(family: Family, table: string): LegacyTable | undefined {
    if (!this.names().has(`${family} ${table}`)) return undefined;
    for (let attempt = 1;; attempt++) {
      try {
        return this.#read(family, table);
      } catch (error) {
        // The size has changed between the two questions.
        const isRace = error instanceof LinuxError && error.errno === EAGAIN;
        if (!isRace || attempt === 3) throw error;
      }
    }
  }

  #info(family: Family, table: string): { readonly size: number; readonly lastOfForward: number } {
    const info = new Uint8Array(IPT_GETINFO_LEN);
    info.set(nameBytes(table));
    this.#ask(family, IPT_SO_GET_INFO, info);
    const view = new DataView(info.buffer);
    return {
      size: view.getUint32(IPT_GETINFO_SIZE, true),
      lastOfForward: view.getUint32(IPT_GETINFO_UNDERFLOW + 4 * NF_INET_FORWARD, true),
    };
  }

  #read(family: Family, table: string): LegacyTable {
    const { size, lastOfForward } = this.#info(family, table);
    const entries = new Uint8Array(IPT_GET_ENTRIES_LEN + size);
    entries.set(nameBytes(table));
    const view = new DataView(entries.buffer);
    view.setUint32(IPT_GET_ENTRIES_SIZE, size, true);
    this.#ask(family, IPT_SO_GET_ENTRIES, entries);
    const { target, next, counters } = ENTRY[family];
    for (let at = IPT_GET_ENTRIES_LEN; at < entries.length;) {
      const length = view.getUint16(at + next, true);
      if (length === 0) break;
      entries.fill(0, at + counters, at + counters + XT_COUNTERS_LEN);
      at += length;
    }
    const policy = () => {
      const last = IPT_GET_ENTRIES_LEN + lastOfForward;
      const verdict = last + view.getUint16(last + target, true) + XT_STANDARD_TARGET_VERDICT;
      return -1 - view.getInt32(verdict, true);
    };
    const bytes = Buffer.from(entries.buffer);
    return {
      // Loaded by those alone who have such tables: it takes a start 15 ms.
      fingerprint: process.getBuiltinModule("node:crypto").hash("sha1", bytes),
      forwardPolicy: table === "filter" ? policy() : undefined,
      mentions: (text) => bytes.includes(text),
    };
  }

  #ask(family: Family, option: number, value: Uint8Array<ArrayBuffer>): void {
    let fd = this.#sockets.get(family);
    if (fd === undefined) {
      fd = this.inside(() => socket(addressFamily(family), SOCK_DGRAM | SOCK_CLOEXEC, 0));
      this.#sockets.set(family, fd);
    }
    getsockoptInto(fd, family === 4 ? IPPROTO_IP : IPPROTO_IPV6, option, value);
  }
}

function nameBytes(table: string): Uint8Array {
  return new TextEncoder().encode(table).subarray(0, XT_TABLE_MAXNAMELEN - 1);
}
