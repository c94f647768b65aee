/**
 * `denim install`: makes a machine a node.
 *
 * @module
 */

import { flag, type FlagValues } from "./flag_table.ts";
import { absolutePath, text, toggle } from "./flag_types.ts";
import { CONF_NAME, confsBefore, defaultConf, readConf, runsDenim } from "./install/cni_conf.ts";
import { HostFiles, isThere, textIfThere, type WantedFile } from "./install/host_files.ts";
import { recordOfFolders } from "./install/made_folders.ts";
import { foldersRecord, programFiles, tryPlugin } from "./install/program_files.ts";
import { runCommand } from "./run_command.ts";

/** Where things go, for `install` and `uninstall` alike. */
export const CNI_FLAGS = [
  flag(
    "cni-bin-dir",
    absolutePath("DIR"),
    "where the container runtime looks for plugins",
    "/opt/cni/bin",
  ),
  flag(
    "cni-conf-dir",
    absolutePath("DIR"),
    "where the container runtime looks for configurations",
    "/etc/cni/net.d",
  ),
  flag("cni-only", toggle, "the plugin and its configuration alone, as for an init container"),
  flag("dry-run", toggle, "say what would be done, and do nothing"),
] as const;

type CniFlags = FlagValues<typeof CNI_FLAGS[number]>;

const FLAGS = [
  flag(
    "cni-conf",
    text("PATH"),
    `configuration to install as ${CONF_NAME}; denim's own unless given`,
  ),
  ...CNI_FLAGS,
] as const;

const HELP = `Usage: denim install --cni-only [flags]

Puts the CNI plugin and its configuration where the container runtime finds them. Each file is written beside
its place and renamed, so that a running kubelet never sees half of it. What is right already stays.
`;

/**
 * Runs `denim install`, and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage.
 *
 * @param main the URL of the program's main module
 */
export async function runInstall(args: readonly string[], main: string): Promise<number> {
  return await runCommand({
    name: "denim install",
    help: HELP,
    flags: FLAGS,
    stopped: "stopped; run it again to go on",
    run({ values }) {
      const say = (line: string) => console.log(line);
      const files = new HostFiles({ say, dryRun: values["dry-run"] });
      const scratch = Deno.makeTempDirSync({ prefix: "denim-install-" });
      try {
        installCni(files, { flags: values, agent: !values["cni-only"], main, scratch }, say);
      } finally {
        Deno.removeSync(scratch, { recursive: true });
      }
      return Promise.resolve(0);
    },
  }, args);
}

/** What {@link installCni} is told. */
interface CniOptions {
  readonly flags: CniFlags & { readonly "cni-conf": string | undefined };
  readonly agent: boolean;
  readonly main: string;
  readonly scratch: string;
}

function installCni(files: HostFiles, options: CniOptions, say: (line: string) => void): void {
  const { "cni-bin-dir": binDir, "cni-conf-dir": confDir, "cni-conf": given } = options.flags;
  const conf = wantedConf(`${confDir}/${CONF_NAME}`, given, binDir, say);
  const program = programFiles({ ...options, binDir });
  const wanted = [...program.files, ...conf];
  files.put([...wanted, ...recordOfFolders(foldersRecord(binDir), wanted)], (placeOf) => {
    tryPlugin(program.plugin(placeOf));
  });
  const before = confsBefore(confDir);
  if (before.length > 0) {
    say(
      `${confDir} has ${before.join(", ")}, and runtimes take the first by name: ${before[0]}; ` +
        `move it away for denim to have pods`,
    );
  }
}

/** The configuration to write; none if there is one already that an operator may have changed. */
function wantedConf(
  path: string,
  given: string | undefined,
  binDir: string,
  say: (line: string) => void,
): readonly WantedFile[] {
  const file = (content: string) => [{ path, mode: 0o644, content }];
  if (given !== undefined) return file(readConf(given));
  const found = textIfThere(path);
  if (found !== undefined && runsDenim(found)) {
    say(`${path} stays as it is; remove it to get denim's own, or name another with --cni-conf`);
    return [];
  }
  const hasPortmap = isThere(`${binDir}/portmap`);
  if (!hasPortmap) {
    say(`${binDir} has no portmap plugin: pods can't have ports of the host (hostPort)`);
  }
  return file(defaultConf(hasPortmap));
}
