/**
 * `denim install`: makes a machine a node.
 *
 * @module
 */

import { ConfigError, RuntimeError } from "@denim/core";
import { DEFAULT_CALLS_FOLDER } from "@denim/plugin/calls";
import { flag, type FlagValues, type ParsedFlags } from "./flag_table.ts";
import { absolutePath, text, toggle } from "./flag_types.ts";
import { parseAgentFlags, type Setting, SETTINGS } from "./flags.ts";
import { CONF_NAME, confsBefore, defaultConf, readConf, runsDenim } from "./install/cni_conf.ts";
import { HostFiles, isThere, textIfThere, type WantedFile } from "./install/host_files.ts";
import { hostRecordFile } from "./install/host_record.ts";
import { hostRecordPath, type Program, programFiles, tryPlugin } from "./install/program_files.ts";
import {
  ENVIRONMENT_PATH,
  environmentFile,
  FLANNELD_UNIT,
  flanneldDropIn,
  givenSettings,
  isSystemdThere,
  readEnvironmentFile,
  systemctl,
  UNIT,
  unitFile,
} from "./install/service.ts";
import { MADE_BY_RUNNING } from "./install/traces.ts";
import { runCommand } from "./run_command.ts";
import { chooseStore } from "./stores/mod.ts";

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

const OWN_FLAGS = [
  flag("systemd", toggle, "the agent as a service, too, with the flags of denim agent given here"),
  flag(
    "replace-flanneld",
    toggle,
    "have flanneld's own unit run denim, with flanneld's settings, in place of a unit of denim's",
  ),
  flag(
    "cni-conf",
    text("PATH"),
    `configuration to install as ${CONF_NAME}; denim's own unless given`,
  ),
  ...CNI_FLAGS,
] as const;

const FLAGS = [...OWN_FLAGS, ...SETTINGS] as const;
type InstallFlag = typeof FLAGS[number];

const HELP = `Usage: denim install [--systemd] [flags] [flags of denim agent]
       denim install --replace-flanneld [flags]
       denim install --cni-only [flags]

Puts denim and its CNI configuration where the container runtime finds them. Each file is written beside its
place and renamed, so that a running kubelet never sees half of it. What is right already stays.
With --systemd the agent is a service, ${UNIT}, enabled and started. Its settings are in
${ENVIRONMENT_PATH}: the flags given here, or else those that are there already.
With --replace-flanneld flanneld's own unit runs denim; what it does before and after, and what waits for it, stays.
`;

/**
 * Runs `denim install`, and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage.
 *
 * @param main the URL of the program's main module
 */
export async function runInstall(args: readonly string[], main: string): Promise<number> {
  return await runCommand<InstallFlag>({
    name: "denim install",
    help: HELP,
    flags: FLAGS,
    // Secrets are better not given as arguments.
    environment: Deno.env.toObject(),
    stopped: "stopped; run it again to go on",
    run(flags) {
      const { values } = flags;
      const say = (line: string) => console.log(line);
      const files = new HostFiles({ say, dryRun: values["dry-run"] });
      const service = serviceFiles(flags, say);
      const scratch = Deno.makeTempDirSync({ prefix: "denim-install-" });
      let put: { readonly program: Program; readonly changed: readonly string[] };
      try {
        const options = { agent: !values["cni-only"], main, scratch };
        put = putFiles(files, values, service, options, say);
      } finally {
        Deno.removeSync(scratch, { recursive: true });
      }
      const { program, changed } = put;
      if (service.length > 0) {
        startService(files, values.systemd ? UNIT : FLANNELD_UNIT, changed.length > 0);
      }
      if (program.parts !== undefined) files.removeOthers(program.parts, program.files);
      return Promise.resolve(0);
    },
  }, args);
}

/** The files of the service; none if it is not asked for. Throws before anything is written. */
function serviceFiles(
  flags: ParsedFlags<InstallFlag>,
  say: (line: string) => void,
): readonly WantedFile[] {
  const { values } = flags;
  const given = givenSettings(flags);
  if (values["replace-flanneld"]) {
    const name = values.systemd
      ? "systemd"
      : given.find((name) => flags.source(name) === "argument");
    if (name !== undefined) {
      throw new ConfigError(`--${name} and --replace-flanneld: flanneld's own settings count`);
    }
    requireSystemd(values);
    return [flanneldDropIn(`${values["cni-bin-dir"]}/denim`)];
  }
  if (!values.systemd) {
    const name = given.find((name) => flags.source(name) === "argument");
    if (name === undefined) return [];
    throw new ConfigError(`--${name}: a flag of denim agent; --systemd installs the agent`);
  }
  requireSystemd(values);
  const program = `${values["cni-bin-dir"]}/denim`;
  const unit = (settings: ParsedFlags<Setting>) => {
    const calls = settings.source("cni-calls") === "default"
      ? DEFAULT_CALLS_FOLDER
      : settings.values["cni-calls"];
    if (calls !== undefined && calls !== DEFAULT_CALLS_FOLDER) {
      throw new ConfigError(
        `--cni-calls ${calls}: the plugin that is installed asks in ${DEFAULT_CALLS_FOLDER}`,
      );
    }
    const first = chooseStore(settings).kind.name !== "kubernetes";
    return unitFile({ program, first, attaches: calls !== undefined });
  };
  if (given.length > 0 || !isThere(ENVIRONMENT_PATH)) return [environmentFile(flags), unit(flags)];
  say(`${ENVIRONMENT_PATH} stays as it is: no flag of denim agent is given`);
  const { args, environment } = readEnvironmentFile();
  try {
    return [unit(parseAgentFlags(args, environment) as ParsedFlags<Setting>)];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ConfigError(`${ENVIRONMENT_PATH}: ${error.message}`, { cause: error });
  }
}

function requireSystemd(values: FlagValues<typeof OWN_FLAGS[number]>): void {
  if (values["cni-only"]) throw new ConfigError("--cni-only installs no service");
  if (!isSystemdThere()) {
    throw new RuntimeError("systemd does not run this machine: there is no /run/systemd/system");
  }
}

/** Starts the service; again if anything of it is another now. */
function startService(files: HostFiles, unit: string, changed: boolean): void {
  files.act("enable", "enabled", unit, () => {
    systemctl("daemon-reload");
    systemctl("enable", "--quiet", unit);
  });
  files.act("start", "started", unit, () => {
    try {
      systemctl(changed ? "restart" : "start", unit);
    } catch (error) {
      if (!(error instanceof RuntimeError)) throw error;
      const status = systemctl("show", "--property=StatusText", "--value", unit);
      throw new RuntimeError(
        `${unit} is enabled and not ready yet; systemd goes on trying. It says: ${status}. ` +
          `More: journalctl -u ${unit}`,
        { cause: error },
      );
    }
  });
}

/** How the program's files are made. */
interface ProgramChoice {
  readonly agent: boolean;
  readonly main: string;
  readonly scratch: string;
}

function putFiles(
  files: HostFiles,
  flags: FlagValues<typeof OWN_FLAGS[number]>,
  service: readonly WantedFile[],
  choice: ProgramChoice,
  say: (line: string) => void,
): { readonly program: Program; readonly changed: readonly string[] } {
  const { "cni-bin-dir": binDir, "cni-conf-dir": confDir, "cni-conf": given } = flags;
  const conf = wantedConf(`${confDir}/${CONF_NAME}`, given, binDir, say);
  const program = programFiles({ ...choice, binDir });
  const record = hostRecordFile(hostRecordPath(binDir), [
    ...program.files,
    ...conf,
    ...service,
    ...choice.agent ? MADE_BY_RUNNING : [],
  ]);
  // The record first: what comes after it can be undone. The configuration last: with it runtimes call the plugin.
  const wanted = [record, ...program.files, ...service, ...conf];
  const put = files.put(wanted, (placeOf) => tryPlugin(program.plugin(placeOf)));
  const before = confsBefore(confDir);
  if (before.length > 0) {
    say(
      `${confDir} has ${before.join(", ")}, and runtimes take the first by name: ${before[0]}; ` +
        `move it away for denim to have pods`,
    );
  }
  const others = [record, ...conf].map(({ path }) => path);
  return { program, changed: put.filter((path) => !others.includes(path)) };
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
