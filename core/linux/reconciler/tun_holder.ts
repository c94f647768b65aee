/**
 * Which program is the other end of a TUN device.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import { listProcFolder, readProcFile, readProcLink } from "../sys/proc_files.ts";

/** A process. */
export interface Holder {
  /** Its number. */
  readonly pid: number;
  /** Its name (`/proc/PID/comm`). */
  readonly name: string;
}

const TUN_PATH = "/dev/net/tun";

/**
 * The process of this thread's network namespace, other than this one, that has a TUN device open: as `ip tuntap list`
 * finds it, by `/proc/PID/fdinfo` (tun_chr_show_fdinfo). `undefined` if there is none, or if it is another user's and
 * this process may not look.
 */
export function tunHolder(device: string): Holder | undefined {
  const here = readProcLink("/proc/thread-self/ns/net");
  for (const pid of listProcFolder("/proc")) {
    if (!/^\d+$/.test(pid) || Number(pid) === Deno.pid) continue;
    try {
      if (readProcLink(`/proc/${pid}/ns/net`) !== here) continue;
      for (const fd of listProcFolder(`/proc/${pid}/fd`)) {
        if (readProcLink(`/proc/${pid}/fd/${fd}`) !== TUN_PATH) continue;
        const info = readProcFile(`/proc/${pid}/fdinfo/${fd}`);
        if (/^iff:\s*(\S+)$/m.exec(info)?.[1] !== device) continue;
        return { pid: Number(pid), name: readProcFile(`/proc/${pid}/comm`).trim() };
      }
    } catch (error) {
      throwDefect(error);
      // The process, or the descriptor, is gone meanwhile; or it is another user's.
    }
  }
  return undefined;
}
