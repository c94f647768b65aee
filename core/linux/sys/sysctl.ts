/**
 * Kernel settings of this thread's network namespace, under `/proc/sys/net`. The kernel shows the files of the
 * namespace of the thread that opens them, so that a synchronous access inside `NetworkNamespace.run` reaches the
 * pod's.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import type { Family } from "../../ip.ts";
import { ENOENT, EROFS, LinuxError } from "./linux_error.ts";
import { isProcFile, openProcFileToWrite, readProcFile, writeProcFile } from "./proc_files.ts";

/** The setting that makes a namespace a router, by family. */
export const FORWARDING: Readonly<Record<Family, string>> = {
  4: "net/ipv4/ip_forward",
  6: "net/ipv6/conf/all/forwarding",
};

/** The path of a setting such as `net/ipv4/ip_forward`. With slashes, since a device's name may have dots. */
function sysctlPath(name: string): string {
  return `/proc/sys/${name}`;
}

/** A setting's value; `undefined` if the kernel has no such setting. */
export function readSysctl(name: string): string | undefined {
  try {
    return readProcFile(sysctlPath(name)).trim();
  } catch (error) {
    if (error instanceof LinuxError && error.errno === ENOENT) return undefined;
    throw error;
  }
}

/**
 * Gives a setting a value, unless it has it already: a read-only `/proc/sys` with the right value is fine. In a
 * container, whose `/proc/sys` is read-only, the host's `/proc/sys/net` is written if it is mounted at
 * `/host/proc/sys/net`. Throws a LinuxError, ENOENT if the kernel has no such setting.
 *
 * @param host where a container sees its host's files
 */
export function writeSysctl(name: string, value: string, host = "/host"): void {
  access(name, value, (path) => writeProcFile(path, value), host);
}

/** Whether {@link writeSysctl} could give a setting a value; changes nothing. Throws what that throws if not. */
export function requireWritable(name: string, value: string): void {
  access(name, value, openProcFileToWrite);
}

function access(name: string, value: string, use: (path: string) => void, host = "/host"): void {
  if (readSysctl(name) === value) return;
  try {
    use(sysctlPath(name));
  } catch (error) {
    const isReadOnly = error instanceof LinuxError && error.errno === EROFS;
    if (!isReadOnly || !isProcFile(host + sysctlPath("net"))) throw error;
    use(host + sysctlPath(name));
  }
}

/** As {@link writeSysctl}, for a setting that denim can do without: kernels without IPv6 lack some. */
export function trySysctl(name: string, value: string): void {
  try {
    writeSysctl(name, value);
  } catch (error) {
    throwDefect(error);
  }
}
