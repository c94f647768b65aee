/**
 * The configuration that container runtimes read.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

interface CniConf {
  readonly name: string;
  readonly plugins: readonly { readonly type?: unknown }[];
}

/**
 * `cni-conf-unread`: a network configuration is not JSON. `cni-conf-shadowed`: runtimes take another one than denim's,
 * since they take the first by name. `cni-plugin-missing`: a plugin of the one that they take is not there.
 */
export function cni(host: Host): readonly Finding[] {
  const { cniConfDir, cniBinDir } = host.paths;
  const found: Finding[] = [];
  const confs: (readonly [file: string, conf: CniConf])[] = [];
  for (const file of host.list(cniConfDir).filter((name) => /\.(conf|conflist|json)$/.test(name))) {
    const conf = read(host, `${cniConfDir}/${file}`);
    if (conf !== undefined) confs.push([file, conf]);
    else {
      found.push({
        name: "cni-conf-unread",
        evidence: `${cniConfDir}/${file} is no network configuration in JSON`,
        remedy: "mend it or move it away: a runtime may stop at it",
      });
    }
  }
  const [first] = confs;
  const own = confs.find(([, { plugins }]) => plugins.some(({ type }) => type === "denim"));
  if (own !== undefined && own !== first) {
    found.push({
      name: "cni-conf-shadowed",
      evidence: `runtimes take ${cniConfDir}/${first![0]}, which comes before denim's ${
        own[0]
      } by name`,
      remedy: `move ${first![0]} away if pods are to have denim's network`,
    });
  }
  if (own === undefined || own !== first) return found;
  const there = new Set(host.list(cniBinDir));
  const missing = own[1].plugins.map(({ type }) => `${type}`).filter((type) => !there.has(type));
  for (const type of new Set(missing)) {
    found.push({
      name: "cni-plugin-missing",
      evidence: `${own[0]} names the plugin ${type}, and ${cniBinDir} has none`,
      remedy: type === "denim"
        ? `put denim there: ${cniBinDir}/denim`
        : `install it (Debian: containernetworking-plugins), or take it out of ${own[0]}`,
    });
  }
  return found;
}

function read(host: Host, path: string): CniConf | undefined {
  try {
    const json = JSON.parse(host.read(path) ?? "");
    return { name: `${json.name}`, plugins: Array.isArray(json.plugins) ? json.plugins : [json] };
  } catch {
    return undefined;
  }
}
