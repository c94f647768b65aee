/**
 * Who chooses the address of denim's VXLAN devices.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** Earlier ones mask files of the same name in later ones (systemd.link(5)). */
const FOLDERS = [
  "/etc/systemd/network",
  "/run/systemd/network",
  "/usr/lib/systemd/network",
  "/lib/systemd/network",
];
/** The address was given by a program: udev leaves it alone (`NET_ADDR_SET`, linux/netdevice.h). */
const GIVEN = "3";

/**
 * `mac-changed-by-udev`: udev may give a VXLAN device another address than peers know. It does for one whose address
 * the kernel made up, as a flanneld of before had it, and for any that a .link file names an address for.
 */
export function macPolicy(host: Host): readonly Finding[] {
  const devices = host.links.filter(({ name, vxlan }) =>
    vxlan && /^(flannel|fl)(-v6)?\./.test(name)
  );
  return devices.flatMap(({ name }) => {
    const file = linkFiles(host).find(({ text }) => matches(text, name));
    const [, policy] = /^\s*MACAddressPolicy\s*=\s*(persistent|random)/m.exec(file?.text ?? "") ??
      [];
    const [, address] = /^\s*MACAddress\s*=\s*(\S+)/m.exec(afterMatch(file?.text ?? "")) ?? [];
    const isGiven = host.read(`/sys/class/net/${name}/addr_assign_type`)?.trim() === GIVEN;
    if (address === undefined && (policy === undefined || isGiven)) return [];
    return [{
      name: "mac-changed-by-udev",
      evidence: `${file!.path} has udev give ${name} ${
        address === undefined ? `an address of its own (MACAddressPolicy=${policy})` : address
      }, and peers know the one that it has`,
      remedy:
        "write [Match] and OriginalName=flannel* fl*, then [Link] and MACAddressPolicy=none to " +
        "/etc/systemd/network/10-denim.link, and have the device made again (ip link delete " +
        `${name}: the agent does)`,
    }];
  });
}

/** The files in the order in which udev looks for the first that matches. */
function linkFiles(host: Host): readonly { readonly path: string; readonly text: string }[] {
  const paths = new Map<string, string>();
  for (const folder of FOLDERS) {
    for (const name of host.list(folder).filter((name) => name.endsWith(".link"))) {
      if (!paths.has(name)) paths.set(name, `${folder}/${name}`);
    }
  }
  return [...paths].sort(([a], [b]) => a < b ? -1 : 1)
    .map(([, path]) => ({ path, text: host.read(path) ?? "" }));
}

/** Whether a file is for a device, by its name; one that asks for anything else is taken for hardware's. */
function matches(text: string, device: string): boolean {
  const match = /\[Match\]([^[]*)/.exec(text)?.[1] ?? "";
  const keys = [...match.matchAll(/^\s*(\w+)\s*=\s*(.*)$/gm)];
  return keys.length > 0 &&
    keys.every(([, key, value]) =>
      key === "OriginalName"
        ? value!.trim().split(/\s+/).some((glob) => globMatches(glob, device))
        : ["Kind", "Type", "Driver"].includes(key!) && /vxlan/.test(value!)
    );
}

function globMatches(glob: string, device: string): boolean {
  const pattern = glob.replace(/[.+^${}()|\\]/g, "\\$&").replaceAll("*", ".*").replaceAll("?", ".");
  return new RegExp(`^${pattern}$`).test(device);
}

function afterMatch(text: string): string {
  return /\[Link\]([^[]*)/.exec(text)?.[1] ?? "";
}
