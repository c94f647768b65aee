/**
 * Which program listens on a UDP port.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import { ENOENT, LinuxError } from "../sys/linux_error.ts";
import { listProcFolder, readProcFile, readProcLink } from "../sys/proc_files.ts";
import type { Holder } from "./tun_holder.ts";

/**
 * The process that has a UDP port of this thread's network namespace, on any address, as `ss -ulnp` finds it: by the
 * socket's inode in `/proc/net/udp` (proc_net_udp(5)) and in `/proc/PID/fd`. "kernel" if it is the kernel's own, or
 * another user's whose files this process may not see; `undefined` if nobody has it.
 */
export function udpPortHolder(port: number): Holder | "kernel" | undefined {
  const inodes = new Set(["udp", "udp6"].flatMap((table) => inodesOf(table, port)));
  if (inodes.size === 0) return undefined;
  const sockets = new Set([...inodes].map((inode) => `socket:[${inode}]`));
  for (const pid of listProcFolder("/proc")) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      for (const fd of listProcFolder(`/proc/${pid}/fd`)) {
        if (!sockets.has(readProcLink(`/proc/${pid}/fd/${fd}`))) continue;
        return { pid: Number(pid), name: readProcFile(`/proc/${pid}/comm`).trim() };
      }
    } catch (error) {
      throwDefect(error);
      // The process, or the descriptor, is gone meanwhile; or it is another user's.
    }
  }
  return "kernel";
}

/** The inodes of sockets that are bound to a port: the tenth field, behind the local address in hexadecimal. */
function inodesOf(table: string, port: number): string[] {
  let text: string;
  try {
    text = readProcFile(`/proc/thread-self/net/${table}`);
  } catch (error) {
    // A kernel without IPv6.
    if (error instanceof LinuxError && error.errno === ENOENT) return [];
    throw error;
  }
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return text.split("\n").slice(1).map((line) => line.trim().split(/\s+/))
    .filter(([, local]) => local?.endsWith(suffix))
    .map((fields) => fields[9]!);
}
