/**
 * `denim uninstall`: takes away what denim left on a machine.
 *
 * @module
 */

import { wireguardKeyPath } from "@denim/backends";
import { type LeaseAdmin, leaseKey, RuntimeError, throwDefect } from "@denim/core";
import {
  clearNode,
  findLink,
  NetlinkSocket,
  podDevices,
  readSysctl,
  writeSysctl,
} from "@denim/core/linux";
import { PodMasquerade } from "@denim/core/linux/pod-masquerade";
import { DEFAULT_CALLS_FOLDER } from "@denim/plugin/calls";
import { flag, type FlagValues, type ParsedFlags } from "./flag_table.ts";
import { toggle } from "./flag_types.ts";
import type { CommonFlag } from "./common_flags.ts";
import { SUBNET_FILE_FLAG } from "./flags.ts";
import { DEFAULT_API_SOCKET } from "./status_report.ts";
import { CONF_NAME, otherConfs, runsDenim } from "./install/cni_conf.ts";
import { HostFiles, isThere, textIfThere } from "./install/host_files.ts";
import { type HostRecord, readHostRecord } from "./install/host_record.ts";
import { homeFolder, hostRecordPath } from "./install/program_files.ts";
import {
  CACHE_PATH,
  ENVIRONMENT_PATH,
  FLANNELD_DROP_IN_PATH,
  FLANNELD_UNIT,
  readEnvironmentFile,
  systemctl,
  UNIT,
  UNIT_PATH,
} from "./install/service.ts";
import { type PluginFolders, pluginFolders, recordedContainers } from "./install/traces.ts";
import { CNI_FLAGS } from "./install_command.ts";
import { createLogger } from "./log.ts";
import { requireRoot } from "./privileges.ts";
import { runCommand } from "./run_command.ts";
import { chooseStore, STORE_FLAGS } from "./stores/mod.ts";
import { type Leftovers, SubnetFile } from "./subnet_file.ts";

const FLAGS = [
  flag("yes", toggle, "do not ask, even if pods still run, whose network this cuts off"),
  flag("purge", toggle, "give up the node's lease too, and an embedded store without other leases"),
  ...CNI_FLAGS,
  SUBNET_FILE_FLAG,
  ...STORE_FLAGS,
] as const;
type UninstallFlag = typeof FLAGS[number];

const HELP = `Usage: denim uninstall [--purge] [--yes] [flags]
       denim uninstall --cni-only [flags]

Stops the agent's service and takes away what denim left: devices, routes, nexthops, rules, the pod bridge, the service,
its settings, the plugin, its configuration and its records. Forwarding is switched off if it was before denim was
installed. With --cni-only the plugin and its configuration alone, without which pods can't be detached.
The flags of the store are needed by --purge alone; ${ENVIRONMENT_PATH} has them.
`;

/** Runs `denim uninstall`, and resolves to the exit code: 0 fine, 1 failed, 2 wrong usage. */
export async function runUninstall(args: readonly string[]): Promise<number> {
  return await runCommand<UninstallFlag>({
    name: "denim uninstall",
    help: HELP,
    flags: FLAGS,
    environment: { ...readEnvironmentFile().environment, ...Deno.env.toObject() },
    stopped: "stopped; run it again to go on",
    async run(flags, signal) {
      const say = (line: string) => console.log(line);
      await new Uninstall(flags, say).run(signal);
      return 0;
    },
  }, args);
}

/** One run of the command. */
class Uninstall {
  readonly #flags: ParsedFlags<UninstallFlag | CommonFlag>;
  readonly #values: FlagValues<UninstallFlag | CommonFlag>;
  readonly #say: (line: string) => void;
  readonly #files: HostFiles;
  readonly #log: ReturnType<typeof createLogger>;
  readonly #conf: string;

  constructor(flags: ParsedFlags<UninstallFlag | CommonFlag>, say: (line: string) => void) {
    this.#flags = flags;
    this.#values = flags.values;
    this.#say = say;
    this.#files = new HostFiles({ say, dryRun: this.#values["dry-run"] });
    this.#log = createLogger({ format: "text", debug: this.#values.debug });
    this.#conf = `${this.#values["cni-conf-dir"]}/${CONF_NAME}`;
  }

  async run(signal: AbortSignal): Promise<void> {
    const record = readHostRecord(hostRecordPath(this.#values["cni-bin-dir"]));
    if (this.#values["cni-only"]) {
      this.#removeConf();
      this.#removeProgram(record);
      return;
    }
    requireRoot("denim uninstall");
    const subnetFile = new SubnetFile(this.#values["subnet-file"], this.#log);
    const left = subnetFile.leftovers();
    const folders = pluginFolders(textIfThere(this.#conf) ?? "");
    this.#askAboutPods(left, folders);
    this.#stopService();
    if (!this.#values["dry-run"]) await this.#refuseRunningAgent(subnetFile);
    // First the configuration: without it the runtime attaches no pod any more.
    this.#removeConf();
    if (this.#values.purge) await this.#releaseLease(left, signal);
    this.#clearKernel(left);
    this.#restoreSettings(record);
    this.#removeFiles(folders);
    this.#removeProgram(record);
  }

  /** An agent that goes on would make again what is taken away. Rejects with a RuntimeError if there is one. */
  async #refuseRunningAgent(subnetFile: SubnetFile): Promise<void> {
    if (subnetFile.isClaimed) {
      throw new RuntimeError(`an agent runs with ${this.#values["subnet-file"]}: stop it first`);
    }
    try {
      using _connection = await Deno.connect({ transport: "unix", path: DEFAULT_API_SOCKET });
    } catch (error) {
      throwDefect(error);
      return;
    }
    throw new RuntimeError(`an agent answers at ${DEFAULT_API_SOCKET}: stop it first`);
  }

  /** Throws a RuntimeError if pods still run and nobody says that they may lose their network. */
  #askAboutPods({ subnets, networks }: Leftovers, folders: readonly PluginFolders[]): void {
    const { ports } = podDevices(subnets, networks);
    const recorded = folders.flatMap(({ records }) => recordedContainers(records));
    const count = Math.max(ports.length, recorded.length);
    if (count === 0 || this.#values.yes) return;
    const what = `${count} ${count === 1 ? "pod has its" : "pods have their"} network by denim`;
    if (this.#values["dry-run"]) this.#say(`${what}: would ask whether to cut off`);
    else if (!Deno.stdin.isTerminal()) {
      throw new RuntimeError(`${what}; drain the node first, or say --yes to cut off`);
    } else if (!confirm(`${what}. Cut off?`)) throw new RuntimeError("nothing was done");
  }

  #removeConf(): void {
    const text = textIfThere(this.#conf);
    if (text !== undefined && runsDenim(text)) this.#files.remove(this.#conf);
    else if (text !== undefined) this.#say(`${this.#conf} stays: it is not denim's`);
  }

  #stopService(): void {
    if (isThere(UNIT_PATH)) {
      this.#removeUnit("stop and disable", "stopped and disabled", UNIT, UNIT_PATH, [
        ...["disable", "--now", "--quiet", UNIT],
      ]);
    }
    if (isThere(FLANNELD_DROP_IN_PATH)) {
      this.#removeUnit("stop", "stopped", FLANNELD_UNIT, FLANNELD_DROP_IN_PATH, [
        ...["stop", FLANNELD_UNIT],
      ]);
      this.#say(`${FLANNELD_UNIT} runs flanneld again when it is started`);
    }
  }

  #removeUnit(
    would: string,
    done: string,
    unit: string,
    path: string,
    stop: readonly string[],
  ): void {
    this.#files.act(would, done, unit, () => void systemctl(...stop));
    this.#files.remove(path);
    if (this.#values["dry-run"]) return;
    systemctl("daemon-reload");
    try {
      systemctl("reset-failed", unit);
    } catch (error) {
      // It has not failed.
      throwDefect(error);
    }
  }

  async #releaseLease({ subnets }: Leftovers, signal: AbortSignal): Promise<void> {
    const { kind, spec } = chooseStore(this.#flags);
    const files = (kind.files?.(spec) ?? []).filter(isThere);
    if (kind.openAdmin === undefined) {
      this.#say(`the lease stays: ${kind.administeredBy ?? "its store takes it back"}`);
      return;
    }
    if (kind.files !== undefined && files.length === 0) return;
    const isShared = await this.#release(
      await kind.openAdmin(spec, { log: this.#log }),
      subnets,
      signal,
    );
    if (isShared && files.length > 0) this.#say(`${files[0]} stays: it has leases of other nodes`);
    else for (const path of files) this.#files.remove(path);
  }

  /** Gives up the node's lease. Resolves to whether other nodes have leases. */
  async #release(
    opened: LeaseAdmin,
    subnets: Leftovers["subnets"],
    signal: AbortSignal,
  ): Promise<boolean> {
    await using store = opened;
    const key = leaseKey(subnets);
    const others = (await store.leases(signal)).filter((lease) => lease.key !== key);
    if (subnets.length === 0) this.#say("the node has no lease that it knows of");
    else if (this.#values["dry-run"]) this.#say(`would release the lease ${key}`);
    else if (await store.release(key, signal)) this.#say(`released the lease ${key}`);
    return others.length > 0;
  }

  #clearKernel({ subnets, networks, devices }: Leftovers): void {
    const { ports, bridges } = podDevices(subnets, networks);
    const { failures } = clearNode({
      networks,
      devices: [...devices, ...ports, ...bridges],
      say: (object) => this.#files.act("remove", "removed", object, () => {}),
      dryRun: this.#values["dry-run"],
      log: this.#log,
    });
    if (failures.length > 0) throw new RuntimeError(failures.join("; "));
    this.#stopMasquerade(ports);
  }

  /** Removes the plugin's rules for pods whose devices are gone now, or would be. */
  #stopMasquerade(ports: readonly string[]): void {
    using masquerade = PodMasquerade.open();
    if (masquerade === undefined) return;
    using socket = new NetlinkSocket();
    const isGone = (device: string) =>
      ports.includes(device) || findLink(socket, device) === undefined;
    for (const gone of [...masquerade.devices()].filter(isGone)) {
      this.#files.act("remove", "removed", `the masquerade of ${gone}`, () => {
        masquerade.remove((device) => device === gone);
      });
    }
  }

  /** Whoever came to rely on forwarding since denim was installed has it switched on for itself. */
  #restoreSettings({ settings }: HostRecord): void {
    for (const [name, value] of Object.entries(settings)) {
      if (value === readSysctl(name)) continue;
      this.#files.act("set", "set", `${name} to ${value}, as it was`, () => {
        writeSysctl(name, value);
      });
    }
  }

  #removeFiles(folders: readonly PluginFolders[]): void {
    const subnetFile = this.#values["subnet-file"];
    // An agent that was killed left its socket, and each that served the plugin its locks.
    const ways = [DEFAULT_API_SOCKET, DEFAULT_CALLS_FOLDER];
    const own = ["", ".last", ".lock"].map((suffix) => `${subnetFile}${suffix}`);
    for (const path of [...own, wireguardKeyPath(), ...ways]) {
      this.#files.remove(path);
    }
    const [next] = otherConfs(this.#values["cni-conf-dir"]);
    for (const path of folders.flatMap(({ records, addresses }) => [records, addresses])) {
      // flannel's plugin keeps its own pods there, too, and can detach denim's.
      if (next === undefined) this.#files.remove(path);
      else if (isThere(path)) this.#say(`${path} stays: the plugins of ${next} may need it`);
    }
    for (const path of [ENVIRONMENT_PATH, CACHE_PATH]) this.#files.remove(path);
  }

  #removeProgram({ folders }: HostRecord): void {
    const { "cni-bin-dir": binDir, "cni-conf-dir": confDir } = this.#values;
    this.#files.remove(`${binDir}/denim`);
    this.#files.remove(homeFolder(binDir));
    for (const folder of folders.toReversed()) this.#files.removeFolder(folder);
    const [next] = otherConfs(confDir);
    if (next !== undefined) {
      this.#say(`the container runtime takes ${confDir}/${next} from now on`);
    }
  }
}
