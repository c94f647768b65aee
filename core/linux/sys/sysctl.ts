/**
 * Kernel settings of this thread's network namespace, under `/proc/sys/net`. The kernel shows the files of the
 * namespace of the thread that opens them, so that a synchronous access inside `NetworkNamespace.run` reaches the
 * pod's.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { throwDefect } from "../../errors.ts";
import type { Family } from "../../ip.ts";

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
    return Deno.readTextFileSync(sysctlPath(name)).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/**
 * Gives a setting a value, unless it has it already: a read-only `/proc/sys` with the right value is fine. In a
 * container, whose `/proc/sys` is read-only, the host's `/proc/sys/net` is written if it is mounted at
 * `/host/proc/sys/net`. Throws what Deno throws, NotFound if the kernel has no such setting.
 *
 * @param host where a container sees its host's files
 */
export function writeSysctl(name: string, value: string, host = "/host"): void {
  if (readSysctl(name) === value) return;
  try {
    write(sysctlPath(name), value);
  } catch (error) {
    if (!isReadOnly(error) || !existsSync(host + sysctlPath("net"))) throw error;
    write(host + sysctlPath(name), value);
  }
}

function write(path: string, value: string): void {
  // truncate: an open with O_CREAT would be refused on procfs.
  Deno.writeTextFileSync(path, value, { create: false });
}

function isReadOnly(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EROFS";
}

/** As {@link writeSysctl}, for a setting that denim can do without: kernels without IPv6 lack some. */
export function trySysctl(name: string, value: string): void {
  try {
    writeSysctl(name, value);
  } catch (error) {
    throwDefect(error);
  }
}
