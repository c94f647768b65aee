/**
 * flannel, as denim's predecessor on a cluster's nodes. Its programs and its manifest are not denim's: `FLANNEL` names a
 * folder with `flanneld`, `flannel` (its CNI plugin) and `kube-flannel.yml`, as its repositories have them.
 *
 * @module
 */

import { dirname } from "node:path";
import { writeImage } from "./image.ts";
import { withNetwork } from "./manifest.ts";

/** flannel's image, of this machine's making. */
export const FLANNEL_IMAGE = "registry.example/flannel:1";

function folder(): string {
  const named = Deno.env.get("FLANNEL");
  if (named === undefined) throw new Error("FLANNEL has to name a folder with flannel's programs");
  return named;
}

/** Writes an image with flanneld and its plugin, and what they run, to a file. */
export function writeFlannelImage(file: string): void {
  const iptables = Deno.realPathSync("/usr/sbin/iptables-nft");
  writeImage(file, FLANNEL_IMAGE, {
    programs: {
      "/bin/sh": "/bin/dash",
      "/bin/cp": "/bin/cp",
      "/opt/bin/flanneld": `${folder()}/flanneld`,
      "/flannel": `${folder()}/flannel`,
      "/bin/iptables": iptables,
      "/bin/iptables-restore": iptables,
      "/bin/iptables-save": iptables,
      "/bin/ip6tables": iptables,
      "/bin/ip6tables-restore": iptables,
      "/bin/ip6tables-save": iptables,
    },
    fill(root) {
      const { libc } = {
        libc: Deno.build.arch === "x86_64" ? "x86_64-linux-gnu" : "aarch64-linux-gnu",
      };
      const extensions = `/usr/lib/${libc}/xtables`;
      Deno.mkdirSync(root + extensions, { recursive: true });
      for (const { name } of Deno.readDirSync(extensions)) {
        Deno.copyFileSync(`${extensions}/${name}`, `${root}${extensions}/${name}`);
      }
      const install = `${root}/opt/bin/install-conf`;
      Deno.mkdirSync(dirname(install), { recursive: true });
      Deno.writeTextFileSync(install, '#!/bin/sh\nexec cp -f "$1" "$2"\n', { mode: 0o755 });
    },
    entrypoint: ["/opt/bin/flanneld"],
  });
}

/** flannel's manifest for a cluster's network. */
export function flannelManifest(network: string): string {
  return withNetwork(Deno.readTextFileSync(`${folder()}/kube-flannel.yml`), network)
    .replaceAll(/image: .*/g, `image: ${FLANNEL_IMAGE}`);
}
