/**
 * `denim uninstall`: takes away what denim left on a machine.
 *
 * @module
 */

import { runCommand } from "./run_command.ts";
import { CONF_NAME, otherConfs, runsDenim } from "./install/cni_conf.ts";
import { HostFiles, textIfThere } from "./install/host_files.ts";
import { madeFolders } from "./install/made_folders.ts";
import { foldersRecord, homeFolder } from "./install/program_files.ts";
import { CNI_FLAGS } from "./install_command.ts";

const HELP = `Usage: denim uninstall --cni-only [flags]

Takes away the CNI plugin and its configuration. Pods that denim attached can't be detached without the plugin.
`;

/** Runs `denim uninstall`, and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage. */
export async function runUninstall(args: readonly string[]): Promise<number> {
  return await runCommand({
    name: "denim uninstall",
    help: HELP,
    flags: CNI_FLAGS,
    stopped: "stopped; run it again to go on",
    run({ values }) {
      const say = (line: string) => console.log(line);
      const files = new HostFiles({ say, dryRun: values["dry-run"] });
      uninstallCni(files, values["cni-bin-dir"], values["cni-conf-dir"], say);
      return Promise.resolve(0);
    },
  }, args);
}

function uninstallCni(
  files: HostFiles,
  binDir: string,
  confDir: string,
  say: (line: string) => void,
): void {
  const conf = `${confDir}/${CONF_NAME}`;
  const text = textIfThere(conf);
  const folders = madeFolders(foldersRecord(binDir));
  // First the configuration: without it no runtime asks for the plugin any more.
  if (text !== undefined && runsDenim(text)) files.remove(conf);
  else if (text !== undefined) say(`${conf} stays: it is not denim's`);
  files.remove(`${binDir}/denim`);
  files.remove(homeFolder(binDir));
  for (const folder of folders.toReversed()) files.removeFolder(folder);
  const [next] = otherConfs(confDir);
  if (next !== undefined) say(`the container runtime takes ${confDir}/${next} from now on`);
}
