/**
 * Files that programs may open.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** So much of what there is may be in use. */
const MOST = 0.9;

/** `files-short`: the whole system has nearly as many files open as it may. The agent's own are `agent`'s to tell. */
export function fileDescriptors(host: Host): readonly Finding[] {
  // Those that are allocated, those of them that are free, and the limit (proc_sys_fs(5)).
  const [used, , limit] = (host.read("/proc/sys/fs/file-nr") ?? "").trim().split(/\s+/).map(Number);
  return used === undefined || limit === undefined || used <= MOST * limit ? [] : [{
    name: "files-short",
    evidence: `${used} files are open on this host, of ${limit} that may be`,
    remedy: "find the program that opens them (ls /proc/*/fd | wc -l), or raise fs.file-max",
  }];
}
