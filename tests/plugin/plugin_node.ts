/**
 * A node for tests of the CNI plugin: a namespace, a folder for its files, pods, and calls of the plugin.
 *
 * @module
 */

import { Cidr, type IpAddress } from "@denim/core/ip";
import { Pinger } from "@denim/core/linux/ping";
import { formatSubnetEnv } from "@denim/core/subnet-env";
import { type Answer, answer, pluginScript } from "@denim/plugin";
import { DEBIAN_PLUGINS } from "../support/debian_plugins.ts";
import { ScratchNamespace } from "../support/scratch_namespace.ts";
import { eventually } from "../support/wait.ts";

/** What a plugin said, and how its process ended. */
export interface CniAnswer {
  /** The exit code. */
  readonly code: number;
  /** Its JSON; `undefined` if it said nothing. */
  // deno-lint-ignore no-explicit-any -- the spec's JSON
  readonly json: any;
}

/** Who calls the plugin for which interface of which pod. */
export interface CniCall {
  /** The container's id; the pod's name unless given. */
  readonly containerId?: string;
  /** The interface; eth0 unless given. */
  readonly ifName?: string;
  /** The namespace's path; the pod's unless given. */
  readonly netns?: string;
  /** `CNI_ARGS`. */
  readonly args?: string;
  /** `CNI_PATH`; where Debian has its plugins unless given. */
  readonly cniPath?: string;
  /** The configuration on standard input; the node's unless given. */
  readonly conf?: unknown;
}

/** An attachment in a runtime's list for GC. */
export interface ValidAttachment {
  readonly containerID: string;
  readonly ifname: string;
}

/** How a runtime lists a pod's interface for GC. */
export function attachment({ name }: ScratchNamespace, ifname = "eth0"): ValidAttachment {
  return { containerID: name, ifname };
}

/** The answer of a command that has nothing to say. */
export const DONE: CniAnswer = { code: 0, json: undefined };

/** The plugin's network on the node. */
export const NETWORK = Cidr.parse("10.231.0.0/16");
/** The node's subnet. */
export const SUBNET = Cidr.parse("10.231.7.0/24");
/** The plugin's IPv6 network. */
export const NETWORK6 = Cidr.parse("fc00:231::/48");
/** The node's IPv6 subnet, if it has one. */
export const SUBNET6 = Cidr.parse("fc00:231:0:7::/64");
/** The gateway of pods. */
export const GATEWAY: IpAddress = SUBNET.at(1n);
/** The MTU of pods. */
export const MTU_BYTES = 1450;

/** Has every test of the plugin as a process run with an agent that attaches pods: `DENIM_TEST_BY_AGENT=1`. */
const BY_AGENT = Deno.env.get("DENIM_TEST_BY_AGENT") === "1";

/** A node without an agent, unless one is started: subnet.env says what an agent would. */
export class PluginNode implements Disposable {
  /** The node's namespace. */
  readonly namespace = new ScratchNamespace();
  /** The folder with all its files. */
  readonly directory: string = Deno.makeTempDirSync({ prefix: "denim-plugin-" });
  /** Where its addresses are. */
  readonly addressDirectory = `${this.directory}/networks/testnet`;
  /** Where flannel's records are. */
  readonly dataDir = `${this.directory}/flannel`;
  /** Where subnet.env is. */
  readonly subnetFile = `${this.directory}/subnet.env`;
  readonly #pods: ScratchNamespace[] = [];
  #agent: Deno.ChildProcess | undefined;
  /** Whether a test starts and kills agents itself, or need not have one started for it any more. */
  #hadAgent = false;

  /** Makes a node of one family, or with both. Its agent masquerades, unless `ipMasq` says otherwise. */
  constructor(options: { readonly dualStack?: boolean; readonly ipMasq?: boolean } = {}) {
    const halves = [{ networks: [NETWORK], subnet: SUBNET }];
    if (options.dualStack) {
      halves.push({ networks: [NETWORK6], subnet: SUBNET6 });
    }
    const env = formatSubnetEnv({ halves, mtuBytes: MTU_BYTES, ipMasq: options.ipMasq ?? true });
    Deno.writeTextFileSync(this.subnetFile, env);
  }

  /** Where an agent serves the plugin, if one was started. */
  get calls(): string {
    return `${this.directory}/calls`;
  }

  /** The script that asks an agent, and starts the plugin where none does the work. */
  get launcher(): string {
    return `${this.directory}/denim`;
  }

  /**
   * Starts the part of an agent that attaches pods, and waits until it serves.
   *
   * @param program the agent; one that lives unless given
   */
  async startAgent(
    program: readonly [string, ...string[]] = programOf("../support/cni_agent.ts", this.calls),
  ): Promise<void> {
    this.#hadAgent = true;
    this.writeLauncher(PLUGIN.join(" "));
    const [command, ...args] = program;
    this.#agent = this.namespace.run(() =>
      new Deno.Command(command, { args, stdin: "null", stdout: "null" }).spawn()
    );
    await eventually("the agent serves", () => this.#isServed, 60_000);
  }

  /**
   * Writes the script that asks an agent, for a shell.
   *
   * @param plugin what it starts where no agent does the work
   */
  writeLauncher(plugin: string, shell = "/bin/sh"): void {
    const script = pluginScript({ plugin, revision: undefined, calls: this.calls });
    Deno.writeTextFileSync(this.launcher, `#!${shell}\n${script}`, { mode: 0o755 });
  }

  get #isServed(): boolean {
    try {
      const [pid, , ask] = Deno.readTextFileSync(`${this.calls}/agent`).split(" ");
      return Number(pid) === this.#agent!.pid &&
        Deno.readLinkSync(`/proc/${pid}/fd/${ask}`) === `${this.calls}/ask`;
    } catch {
      return false;
    }
  }

  /** Sends the agent a signal. */
  signalAgent(signal: Deno.Signal): void {
    this.#agent!.kill(signal);
  }

  /** Kills the agent, and waits until it is gone. */
  async killAgent(): Promise<void> {
    const agent = this.#agent;
    this.#strikeAgent();
    this.#agent = undefined;
    await agent?.status;
  }

  #strikeAgent(): void {
    try {
      this.#agent?.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
  }

  /** A pod that nothing is attached to. */
  pod(): ScratchNamespace {
    const pod = new ScratchNamespace();
    this.#pods.push(pod);
    return pod;
  }

  /** The node's network configuration, with changes. */
  conf(changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
    const { ipam, delegate, ...others } = changes;
    return {
      cniVersion: "1.1.0",
      name: "testnet",
      type: "denim",
      subnetFile: this.subnetFile,
      dataDir: this.dataDir,
      ipam: { dataDir: `${this.directory}/networks`, ...ipam as object },
      delegate: { bridge: "cni0", ...delegate as object },
      ...others,
    };
  }

  /** The environment and the input of a call. */
  #request(command: string, pod: ScratchNamespace, call: CniCall) {
    const conf = call.conf ?? this.conf();
    return {
      environment: {
        CNI_COMMAND: command,
        CNI_CONTAINERID: call.containerId ?? pod.name,
        CNI_NETNS: call.netns ?? pod.path,
        CNI_IFNAME: call.ifName ?? "eth0",
        CNI_ARGS: call.args ?? "",
        CNI_PATH: call.cniPath ?? DEBIAN_PLUGINS,
      },
      input: typeof conf === "string" ? conf : JSON.stringify(conf),
    };
  }

  /** Calls the plugin's function, in the node's namespace. */
  call(command: string, pod: ScratchNamespace, call: CniCall = {}): CniAnswer {
    const { environment, input } = this.#request(command, pod, call);
    const variables: Readonly<Record<string, string>> = environment;
    const { output, failed } = this.namespace.run(() =>
      done(answer({ read: (name) => variables[name], readInput: () => input, warn: console.error }))
    );
    return { code: failed ? 1 : 0, json: output === "" ? undefined : JSON.parse(output) };
  }

  /** Calls the function, and throws if it fails. */
  succeed(command: string, pod: ScratchNamespace, call: CniCall = {}): CniAnswer["json"] {
    const { code, json } = this.call(command, pod, call);
    if (code !== 0) throw new Error(`${command}: ${JSON.stringify(json)}`);
    return json;
  }

  /**
   * Runs denim's plugin, or another, as a process of its own, in the node's namespace; with an agent, the script that
   * asks it.
   */
  async run(
    command: string,
    pod: ScratchNamespace,
    call: CniCall = {},
    program?: readonly [string, ...string[]],
  ): Promise<CniAnswer> {
    const { code, stdout } = await (await this.start(command, pod, call, program)).output();
    const text = new TextDecoder().decode(stdout);
    return { code, json: text === "" ? undefined : JSON.parse(text) };
  }

  /** Runs a process as {@link PluginNode.run}, and throws if it fails. */
  async succeedAsProcess(
    ...[command, pod, call, program]: Parameters<PluginNode["run"]>
  ): Promise<CniAnswer["json"]> {
    const { code, json } = await this.run(command, pod, call, program);
    if (code !== 0) throw new Error(`${command}: ${JSON.stringify(json)}`);
    return json;
  }

  /** Runs GC as a process, with the attachments that there are. */
  gc(
    valid: readonly ValidAttachment[] | null,
    program?: readonly [string, ...string[]],
  ): Promise<CniAnswer> {
    const conf = { ...this.conf(), "cni.dev/valid-attachments": valid };
    return this.run("GC", this.namespace, { conf }, program);
  }

  /** Starts the process, and gives it its input. */
  async start(
    command: string,
    pod: ScratchNamespace,
    call: CniCall = {},
    program?: readonly [string, ...string[]],
  ): Promise<Deno.ChildProcess> {
    if (BY_AGENT && program === undefined && !this.#hadAgent) await this.startAgent();
    const { environment, input } = this.#request(command, pod, call);
    const [path, ...args] = program ?? (this.#agent === undefined ? PLUGIN : [this.launcher]);
    const child = this.namespace.run(() =>
      new Deno.Command(path, {
        args,
        env: environment,
        stdin: "piped",
        stdout: "piped",
        stderr: "null",
      }).spawn()
    );
    const writer = child.stdin.getWriter();
    // One that is killed early does not read.
    await writer.write(new TextEncoder().encode(input)).then(() => writer.close()).catch(() => {});
    return child;
  }

  /** Names of the address files. */
  addressFiles(): string[] {
    try {
      return [...Deno.readDirSync(this.addressDirectory)].map(({ name }) => name)
        .filter((name) => name !== "lock" && !name.startsWith("last_reserved_ip.")).sort();
    } catch {
      return [];
    }
  }

  /** Names of flannel's records. */
  records(): string[] {
    try {
      return [...Deno.readDirSync(this.dataDir)].map(({ name }) => name)
        .filter((name) => name !== ".lock").sort();
    } catch {
      return [];
    }
  }

  /** Has everything on disk look a minute old: to GC, made by ADDs before the runtime made its list. */
  age(): void {
    const then = new Date(Date.now() - 60_000);
    const paths = [
      ...this.addressFiles().map((name) => `${this.addressDirectory}/${name}`),
      ...this.records().map((name) => `${this.dataDir}/${name}`),
    ];
    for (const path of paths) Deno.utimeSync(path, then, then);
  }

  /** Names of the node's ends of veth pairs. */
  veths(): string[] {
    return this.namespace.ipJson("link show type veth").map(({ ifname }) => ifname);
  }

  /** What is left of pods on the node. */
  leftovers(): string[] {
    return [...this.addressFiles(), ...this.records(), ...this.veths()];
  }

  /** Removes the node, its pods and its files. */
  [Symbol.dispose](): void {
    this.#strikeAgent();
    for (const pod of this.#pods) pod[Symbol.dispose]();
    this.namespace[Symbol.dispose]();
    Deno.removeSync(this.directory, { recursive: true });
  }
}

/** What is done when the call returns, and so was done in the node's namespace. */
function done(answered: ReturnType<typeof answer>): Answer {
  if (typeof answered === "function") throw new Error("it takes its time: use `run`");
  return answered;
}

/** What starts a plugin that is a module. */
export function programOf(module: string, ...args: string[]): readonly [string, ...string[]] {
  const path = new URL(module, import.meta.url).pathname;
  return [Deno.execPath(), "run", "-A", path, ...args];
}

/** denim's plugin. */
export const PLUGIN = programOf("../../plugin/main.ts");

/** Whether an address answers a pod within a second. */
export function answersPing(pod: ScratchNamespace, address: IpAddress, payloadBytes = 56): boolean {
  return pod.run(() => {
    using pinger = new Pinger(address.family);
    return pinger.ping(address, 1000, payloadBytes) !== undefined;
  });
}

/** How many wait for a file's lock (proc_locks(5)). */
export function waiting(path: string): number {
  let inode: number | null;
  try {
    inode = Deno.statSync(path).ino;
  } catch {
    return 0;
  }
  return Deno.readTextFileSync("/proc/locks").split("\n")
    .filter((line) => line.includes("->") && line.includes(`:${inode} `)).length;
}

/** Whether a pod's gateways of both families answer it. */
export function reachesGateways(pod: ScratchNamespace): boolean {
  return answersPing(pod, GATEWAY) && answersPing(pod, SUBNET6.at(1n));
}
