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
  ipip: "the ipip backend",
  nf_tables: "--ip-masq",
};

/** `module-missing`: the kernel has a module neither loaded, nor built in, nor on disk. */
export function kernelModules(host: Host): readonly Finding[] {
  const release = host.read("/proc/sys/kernel/osrelease")?.trim();
  return Object.entries(WANTED).flatMap(([name, user]) =>
    hasModule(host, name) === false
      ? [{
        name: "module-missing",
        evidence: `kernel ${release} has no module ${name}, which ${user} needs`,
        remedy:
          `install the kernel's modules (Debian: linux-image-amd64 rather than a cloud kernel)`,
      }]
      : []
  );
}

/** Whether the kernel has a module; `undefined` in a container, where the host's modules cannot be seen. */
export function hasModule(host: Host, name: string): boolean | undefined {
  if (host.list("/sys/module").includes(name)) return true;
  const folder = `/lib/modules/${host.read("/proc/sys/kernel/osrelease")?.trim()}`;
  const known = ["modules.dep", "modules.builtin"]
    .map((file) => host.read(`${folder}/${file}`) ?? "").join("\n");
  if (known.trim() === "") return undefined;
  return new RegExp(`/${name.replace("_", "[-_]")}\\.ko`).test(known);
}
