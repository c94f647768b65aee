/**
 * The kernel's modules.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** What needs each module. */
const WANTED: Readonly<Record<string, string>> = {
  vxlan: "the vxlan backend",
  bridge: "pods' bridge",
  veth: "pods",
  tun: "the udp backend",
  nf_tables: "--ip-masq",
};

/** `module-missing`: the kernel has a module neither loaded, nor built in, nor on disk. */
export function kernelModules(host: Host): readonly Finding[] {
  const release = host.read("/proc/sys/kernel/osrelease")?.trim();
  const folder = `/lib/modules/${release}`;
  const known = `${host.read(`${folder}/modules.dep`) ?? ""}\n${
    host.read(`${folder}/modules.builtin`) ?? ""
  }`;
  // In a container the host's modules cannot be seen: then nothing is said.
  if (known.trim() === "") return [];
  return Object.entries(WANTED).flatMap(([name, user]) => {
    const isThere = host.list("/sys/module").includes(name) ||
      new RegExp(`/${name.replace("_", "[-_]")}\\.ko`).test(known);
    return isThere ? [] : [{
      name: "module-missing",
      evidence: `kernel ${release} has no module ${name}, which ${user} needs`,
      remedy: `install the kernel's modules (Debian: linux-image-amd64 rather than a cloud kernel)`,
    }];
  });
}
