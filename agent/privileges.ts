/**
 * The Linux capabilities that denim needs.
 *
 * @module
 */

import { RuntimeError } from "@denim/core";
import { readProcFile } from "@denim/core/linux";

// linux/capability.h
const CAP_NET_ADMIN = 12n;
const CAP_NET_RAW = 13n;
const CAP_SYS_ADMIN = 21n;

const NAMES: ReadonlyMap<bigint, string> = new Map([
  [CAP_NET_ADMIN, "CAP_NET_ADMIN"],
  [CAP_NET_RAW, "CAP_NET_RAW"],
  [CAP_SYS_ADMIN, "CAP_SYS_ADMIN"],
]);

/**
 * Throws a RuntimeError that names the capabilities which this process lacks: CAP_NET_ADMIN; with `namespaces` also
 * those for network namespaces and for capturing packets in them. See capabilities(7).
 *
 * @param who the command, for the message: `denim agent`
 */
export function requireRoot(who: string, options: { readonly namespaces?: boolean } = {}): void {
  const needed = options.namespaces ? [CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN] : [CAP_NET_ADMIN];
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readProcFile("/proc/self/status"))![1];
  const missing = needed.filter((bit) => !(BigInt(`0x${effective}`) >> bit & 1n));
  if (missing.length === 0) return;
  const names = missing.map((bit) => NAMES.get(bit)).join(", ");
  throw new RuntimeError(`${who} changes the kernel's network and lacks ${names}; run it as root`);
}
