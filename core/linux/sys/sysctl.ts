/**
 * Kernel settings of this thread's network namespace, under `/proc/sys/net`: the kernel shows the files
 * of the namespace of the thread that opens them, so a synchronous access inside
 * `NetworkNamespace.run` reaches the pod's.
 *
 * @module
 */

import { throwDefect } from "../../errors.ts";
import type { Family } from "../../ip.ts";

/** The setting that makes a namespace a router, by family. */
export const FORWARDING: Readonly<Record<Family, string>> = {
  4: "net/ipv4/ip_forward",
  6: "net/ipv6/conf/all/forwarding",
};

/** The path of a setting: `net/ipv4/ip_forward`. A dot in it belongs to a device's name. */
function sysctlPath(name: string): string {
  return `/proc/sys/${name}`;
}

/** A setting's value; `undefined` where the kernel has no such setting. */
export function readSysctl(name: string): string | undefined {
  try {
    return Deno.readTextFileSync(sysctlPath(name)).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/**
 * Gives a setting its value, unless it has it: a read-only `/proc/sys` with the right value is fine.
 * Throws where there is no such setting.
 */
export function writeSysctl(name: string, value: string): void {
  if (readSysctl(name) === value) return;
  // truncate: an open with O_CREAT would be refused on procfs.
  Deno.writeTextFileSync(sysctlPath(name), value, { create: false });
}

/** Sets what is better set, but not worth a failure: kernels without IPv6 have no such setting. */
export function trySysctl(name: string, value: string): void {
  try {
    writeSysctl(name, value);
  } catch (error) {
    throwDefect(error);
  }
}
