/**
 * A small cluster on one machine: nodes and pods as network namespaces, joined by a bridge in a namespace
 * of its own, so that nothing of it touches the machine's network. For the demo, and for tests that need
 * whole nodes.
 *
 * @module
 */

import {
  type Cidr,
  FAMILIES,
  type Family,
  IpAddress,
  messageOf,
  parseSubnetEnv,
  RuntimeError,
  sleep,
  throwDefect,
} from "@denim/core";
import {
  findLink,
  FORWARDING,
  NetlinkSocket,
  NetworkNamespace,
  readProcFile,
  writeLinkSettings,
  writeNewAddress,
  writeNewBridge,
  writeNewRoute,
  writeNewVeth,
  writeSysctl,
} from "@denim/core/linux";
import { Pod } from "./pod.ts";
import { denimProgram } from "../program.ts";

/** The network between the nodes, in one family. */
export interface LabUnderlay {
  /** The address of a host by its number, on one of the links between the nodes, which count from 0. */
  readonly host: (segment: number, number: number) => string;
  /** The prefix length of each link. */
  readonly prefixLength: number;
}

/** The networks between the nodes, by segment: in each family hosts by number, and a router. */
const UNDERLAY: Readonly<Record<Family, LabUnderlay>> = {
  4: { host: (segment: number, number: number) => `10.99.${segment}.${number}`, prefixLength: 24 },
  6: {
    host: (segment: number, number: number) => `fd99:0:0:${segment}::${number}`,
    prefixLength: 64,
  },
};
const ROUTER = 254;
/** How often an agent that is not ready yet is looked at, and how many looks without progress are too many. */
const LOOK_MS = 5_000;
const LOOKS_WITHOUT_PROGRESS = 3;
/** This much processor time of an agent is progress; one that only waits uses less between looks. */
const PROGRESS_MS = 500;
/** How long an agent may take to stop before it is killed. */
const STOP_PATIENCE_MS = 3_000;

/** Where WireGuard programs have their sockets (wireguard-go(1)). */
const WIREGUARD_SOCKETS = "/run/wireguard";

/** For waits that only their own time ends. */
const NEVER = new AbortController().signal;

/** How a laboratory is set up. */
export interface LabOptions {
  /** The number of nodes, at most 250. */
  readonly nodes: number;
  /** The cluster's net-conf, as an object. */
  readonly netConf: unknown;
  /** The outer MTU, in bytes. */
  readonly mtuBytes?: number;
  /**
   * How many links the nodes are spread over, the first of them on the first, with a router between; one
   * unless given.
   */
  readonly segments?: number;
  /** The networks between the nodes, if others than 10.99.0.0/24 and fd99::/64 and those after them. */
  readonly underlay?: Partial<Readonly<Record<Family, LabUnderlay>>>;
  /** The words that start an agent; denim's own unless given. */
  readonly agentProgram?: readonly [string, ...string[]];
  /** The agents' flags that say where leases live; a file of the laboratory's unless given. */
  readonly storeFlags?: readonly string[];
  /** Where the directory for its files is made; among the system's temporary ones unless given. */
  readonly parentDirectory?: string;
}

/** A cluster of namespaces. Dispose of it, and nothing of it is left. */
export class Lab implements AsyncDisposable {
  /** What the names of its namespaces begin with; of its own in each laboratory. */
  readonly prefix: string;
  /** Where its files are. */
  readonly directory: string;
  /** Its nodes. */
  readonly nodes: readonly LabNode[];
  /** @internal The words that start an agent. */
  readonly agentProgram: readonly [string, ...string[]];
  /** @internal The agents' flags that say where leases live. */
  readonly storeFlags: readonly string[];
  /** @internal The networks between the nodes. */
  readonly underlay: Readonly<Record<Family, LabUnderlay>>;
  readonly #namespaces: string[] = [];
  #kept = false;

  private constructor(prefix: string, directory: string, options: LabOptions) {
    this.prefix = prefix;
    this.directory = directory;
    this.agentProgram = options.agentProgram ?? denimProgram("agent");
    this.storeFlags = options.storeFlags ?? ["--store", `sqlite:${directory}/denim.db`];
    this.underlay = { ...UNDERLAY, ...options.underlay };
    const { nodes, segments = 1 } = options;
    this.nodes = Array.from(
      { length: nodes },
      (_, index) => new LabNode(this, index + 1, Math.floor(index * segments / nodes)),
    );
  }

  /** Makes the namespaces and the network between the nodes. No agent runs yet. */
  static async create(options: LabOptions): Promise<Lab> {
    const random = crypto.getRandomValues(new Uint8Array(3)).toHex();
    const prefix = `denim-${random}`;
    const { parentDirectory } = options;
    const directory = await Deno.makeTempDir({
      prefix: `${prefix}-`,
      ...(parentDirectory === undefined ? {} : { dir: parentDirectory }),
    });
    const lab = new Lab(prefix, directory, options);
    try {
      await Deno.writeTextFile(`${directory}/net-conf.json`, JSON.stringify(options.netConf));
      lab.#wire(options.mtuBytes ?? 1500);
      return lab;
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Removes a laboratory that was kept, by its directory, whoever made it. */
  static async remove(directory: string): Promise<void> {
    let state: LabState;
    try {
      state = JSON.parse(await Deno.readTextFile(`${directory}/${STATE_FILE}`));
    } catch (error) {
      throw new RuntimeError(`${directory} holds no kept laboratory: ${messageOf(error)}`, {
        cause: error,
      });
    }
    for (const pid of state.pids) {
      if (isOurs(pid, directory)) Deno.kill(pid, "SIGTERM");
    }
    const deadlineMs = performance.now() + STOP_PATIENCE_MS;
    while (state.pids.some((pid) => isOurs(pid, directory)) && performance.now() < deadlineMs) {
      await sleep(20, NEVER);
    }
    for (const name of state.namespaces) removeNamespace(name);
    await Deno.remove(directory, { recursive: true });
  }

  /** Makes a namespace that goes with the laboratory. */
  namespace(suffix: string): NetworkNamespace {
    const name = `${this.prefix}-${suffix}`;
    const namespace = NetworkNamespace.create(name);
    this.#namespaces.push(name);
    return namespace;
  }

  #wire(mtuBytes: number): void {
    using underlay = this.namespace("net");
    underlay.run(() => {
      using socket = new NetlinkSocket();
      for (const family of FAMILIES) writeSysctl(FORWARDING[family], "1");
      // Nodes shall find no way by themselves that nobody gave them.
      writeSysctl("net/ipv4/conf/all/send_redirects", "0");
      writeSysctl("net/ipv4/conf/default/send_redirects", "0");
      const bridges = new Map<number, number>();
      for (const segment of new Set(this.nodes.map((node) => node.segment))) {
        const name = `br${segment}`;
        socket.request(`make ${name}`, (writer) => writeNewBridge(writer, name, { up: true }));
        const bridge = findLink(socket, name)!.index;
        addAddresses(socket, bridge, this.underlay, segment, ROUTER);
        bridges.set(segment, bridge);
      }
      for (const node of this.nodes) {
        const bridge = bridges.get(node.segment)!;
        using namespace = this.namespace(node.name);
        socket.request(`wire ${node.name}`, (writer) =>
          writeNewVeth(
            writer,
            { name: node.name, up: true, mtuBytes, masterIndex: bridge },
            { name: "eth0", mtuBytes, namespaceFd: namespace.fd },
          ));
        namespace.run(() => node.configure());
      }
    });
  }

  /**
   * Starts an agent on every node and waits until all are ready, as {@link LabNode.startAgent} does.
   *
   * @param say hears every 5 s which agents are waited for
   */
  async startAgents(signal: AbortSignal, say?: (message: string) => void): Promise<void> {
    await allDone(this.nodes.map((node) => node.startAgent(signal, [], say)));
  }

  /** Leaves the laboratory up when it is disposed of, for {@link Lab.remove}. */
  async keep(): Promise<void> {
    const state: LabState = {
      namespaces: this.#namespaces,
      pids: this.nodes.flatMap(({ agentPid }) => agentPid ?? []),
    };
    await Deno.writeTextFile(`${this.directory}/${STATE_FILE}`, JSON.stringify(state));
    this.#kept = true;
  }

  /** Stops the agents and removes everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.nodes) node.closePods();
    if (this.#kept) return;
    await Promise.all(this.nodes.map((node) => node.stopAgent()));
    for (const name of this.#namespaces.toReversed()) removeNamespace(name);
    await Deno.remove(this.directory, { recursive: true });
  }
}

const STATE_FILE = "lab.json";

interface LabState {
  readonly namespaces: readonly string[];
  readonly pids: readonly number[];
}

/** Whether a process is an agent of the laboratory in this directory: its number may be another's now. */
function isOurs(pid: number, directory: string): boolean {
  try {
    return readProcFile(`/proc/${pid}/cmdline`).includes(directory);
  } catch (error) {
    throwDefect(error);
    return false;
  }
}

function removeNamespace(name: string): void {
  try {
    NetworkNamespace.remove(name);
  } catch (error) {
    throwDefect(error);
    console.error(`namespace ${name} cannot be removed: ${messageOf(error)}`);
  }
}

/** How one call of the CNI plugin went. */
export interface PluginCall {
  /** The plugin's exit code. */
  readonly code: number;
  /** What it wrote to standard output: a result or an error, as JSON. */
  readonly output: string;
  /** What it wrote to standard error. */
  readonly errors: string;
}

/** One node of a laboratory. */
export class LabNode {
  /** `node1` */
  readonly name: string;
  /** Its address on the underlay. */
  readonly publicIp: IpAddress;
  /** Which of the links between the nodes it is on, from 0. */
  readonly segment: number;
  /** Where its files are. */
  readonly directory: string;
  readonly #lab: Lab;
  readonly #number: number;
  readonly #pods: Pod[] = [];
  #agent: Deno.ChildProcess | undefined;

  /** @internal Made by the laboratory. */
  constructor(lab: Lab, number: number, segment: number) {
    this.#lab = lab;
    this.#number = number;
    this.name = `node${number}`;
    this.segment = segment;
    this.publicIp = IpAddress.parse(lab.underlay[4].host(segment, number));
    this.directory = `${lab.directory}/${this.name}`;
  }

  /** The name of its namespace, for `ip netns exec`. */
  get namespaceName(): string {
    return `${this.#lab.prefix}-${this.name}`;
  }

  /** The agent's process; `undefined` while none runs. */
  get agentPid(): number | undefined {
    return this.#agent?.pid;
  }

  /** Where its subnet.env is. */
  get subnetFile(): string {
    return `${this.directory}/subnet.env`;
  }

  /** Where its agent's log is. */
  get logFile(): string {
    return `${this.directory}/agent.log`;
  }

  /** Where its agent serves its API. */
  get apiSocket(): string {
    return `${this.directory}/agent.sock`;
  }

  /** Where its agent serves the CNI plugin, if it is told to. */
  get cniCalls(): string {
    return `${this.directory}/calls`;
  }

  /** Opens its namespace. */
  open(): NetworkNamespace {
    return NetworkNamespace.open(`/run/netns/${this.namespaceName}`);
  }

  /** @internal Gives it its addresses and default routes; runs inside its namespace. */
  configure(): void {
    Deno.mkdirSync(this.directory);
    using socket = new NetlinkSocket();
    const index = (name: string) => findLink(socket, name)!.index;
    for (const name of ["lo", "eth0"]) {
      socket.request(
        `set ${name} up`,
        (writer) => writeLinkSettings(writer, index(name), { up: true }),
      );
    }
    addAddresses(socket, index("eth0"), this.#lab.underlay, this.segment, this.#number);
    for (const family of FAMILIES) {
      const gateway = IpAddress.parse(this.#lab.underlay[family].host(this.segment, ROUTER));
      socket.request("default route", (writer) => writeNewRoute(writer, { gateway }));
    }
  }

  /** Starts a program inside the node. Standard error goes to the end of `logFile`, where given. */
  spawn(
    program: readonly [string, ...string[]],
    options: Omit<Deno.CommandOptions, "args"> & { readonly logFile?: string } = {},
  ): Deno.ChildProcess {
    const { logFile, ...rest } = options;
    // The shell gives way to the program: it only opens the log, which outlives this process.
    const [command, ...args] = logFile === undefined
      ? program
      : ["sh", "-c", `exec "$@" 2>>"$0"`, logFile, ...program];
    using namespace = this.open();
    return namespace.run(() => new Deno.Command(command!, { ...rest, args }).spawn());
  }

  /**
   * Gives a program a view of the file system in which the sockets of WireGuard programs are this node's own: they have
   * names of devices, which all nodes share. A program that the agent started ends when the laboratory's folder goes.
   */
  #withOwnSockets(program: readonly [string, ...string[]]): readonly [string, ...string[]] {
    // A shell that is told to end first waits for what it runs, which would make the folder again after its removal.
    const script = `trap 'exit 143' TERM
      mkdir -p ${WIREGUARD_SOCKETS} "$0" && mount --bind "$0" ${WIREGUARD_SOCKETS} && exec "$@"`;
    return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script]
      .concat([this.wireguardSockets, ...program]) as [string, ...string[]];
  }

  /** The folder that the agent has in the place of `/run/wireguard`. */
  get wireguardSockets(): string {
    return `${this.directory}/wireguard`;
  }

  /** The agent's arguments that place it in the laboratory. */
  get agentArguments(): readonly string[] {
    return [
      ...this.#lab.storeFlags,
      "--net-config-path",
      `${this.#lab.directory}/net-conf.json`,
      "--subnet-file",
      this.subnetFile,
      "--api-socket",
      this.apiSocket,
    ];
  }

  /**
   * Starts the agent and waits until it has written subnet.env, for as long as it makes progress: it writes to its log,
   * or it computes. Rejects with a RuntimeError that holds the agent's log if it ends, or does nothing for 15 s.
   *
   * @param args arguments beside those that place it in the laboratory
   * @param say hears every 5 s that the agent is waited for, and what it said last
   */
  async startAgent(
    signal: AbortSignal,
    args: readonly string[] = [],
    say?: (message: string) => void,
  ): Promise<void> {
    // The last run's file stays, since the agent reads it. The new one is renamed into its place.
    const before = versionOf(this.subnetFile);
    const written = () => ![undefined, before].includes(versionOf(this.subnetFile));
    const program = [...this.#lab.agentProgram, ...this.agentArguments, ...args] as const;
    const agent = this.spawn(this.#withOwnSockets(program), {
      stdin: "null",
      stdout: "null",
      logFile: this.logFile,
      detached: true,
      env: {
        // As a pod of Kubernetes is told.
        NODE_NAME: this.name,
        WIREGUARD_KEY_FILE: `${this.directory}/wgkey`,
      },
    });
    this.#agent = agent;
    const log = () => ifPossible(() => Deno.readTextFileSync(this.logFile));
    let exit: number | undefined;
    agent.status.then(({ code }) => {
      exit = code;
      if (this.#agent === agent) this.#agent = undefined;
    });
    const ready = await whileProgress({
      until: () => exit !== undefined || written(),
      progress: () => `${log().length} ${Math.floor(processorMs(agent.pid) / PROGRESS_MS)}`,
      onWait: () => {
        const last = log().trimEnd().split("\n").at(-1);
        say?.(`waiting for the agent of ${this.name}, which ${last ? `said: ${last}` : "starts"}`);
      },
    }, signal);
    if (exit === undefined && ready) return;
    const what = exit === undefined
      ? `has done nothing for ${LOOK_MS * LOOKS_WITHOUT_PROGRESS / 1000} s, and is not ready`
      : "ended";
    throw new RuntimeError(`the agent of ${this.name} ${what}:\n${log()}`);
  }

  /**
   * Ends the agent and waits until it is gone. An agent that does not stop is killed. Resolves to how it ended;
   * `undefined` if none runs.
   */
  async stopAgent(
    how: "SIGTERM" | "SIGKILL" = "SIGTERM",
  ): Promise<Deno.CommandStatus | undefined> {
    const agent = this.#agent;
    if (agent === undefined) return undefined;
    this.#agent = undefined;
    kill(agent, how);
    const timer = setTimeout(() => kill(agent, "SIGKILL"), STOP_PATIENCE_MS);
    const status = await agent.status;
    clearTimeout(timer);
    return status;
  }

  /** The network configuration that the laboratory's runtime gives the CNI plugin. */
  get cniConfig(): Record<string, unknown> {
    return {
      cniVersion: "1.1.0",
      name: "denim",
      type: "denim",
      subnetFile: this.subnetFile,
      dataDir: `${this.directory}/cni`,
      ipam: { dataDir: `${this.directory}/networks` },
      delegate: { hairpinMode: true, isDefaultGateway: true },
    };
  }

  /** Calls the CNI plugin as a container runtime does. */
  async callPlugin(
    command: string,
    variables: Readonly<Record<string, string>>,
    config: unknown = this.cniConfig,
  ): Promise<PluginCall> {
    const child = this.spawn(denimProgram("plugin"), {
      env: { CNI_COMMAND: command, CNI_IFNAME: "eth0", CNI_PATH: "/opt/cni/bin", ...variables },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    });
    const writer = child.stdin.getWriter();
    const text = typeof config === "string" ? config : JSON.stringify(config);
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
    const { code, stdout, stderr } = await child.output();
    const decoder = new TextDecoder();
    return { code, output: decoder.decode(stdout), errors: decoder.decode(stderr) };
  }

  /** Makes a pod: a namespace, attached through the CNI plugin. */
  async addPod(name: string): Promise<Pod> {
    this.#lab.namespace(name)[Symbol.dispose]();
    const path = `/run/netns/${this.#lab.prefix}-${name}`;
    const call = await this.callPlugin("ADD", {
      CNI_CONTAINERID: `${this.#lab.prefix}-${name}`,
      CNI_NETNS: path,
    });
    if (call.code !== 0) {
      throw new RuntimeError(`CNI ADD of ${name} failed: ${call.output}${call.errors}`);
    }
    const pod = await Pod.attach(name, path, JSON.parse(call.output));
    this.#pods.push(pod);
    return pod;
  }

  /** The node's own subnets, the first of them IPv4 if it has one, once its agent is ready. */
  subnets(): readonly Cidr[] {
    const env = parseSubnetEnv(Deno.readTextFileSync(this.subnetFile), this.subnetFile);
    return env.halves.map(({ subnet }) => subnet);
  }

  /** The first of them. */
  subnet(): Cidr {
    return this.subnets()[0]!;
  }

  /** @internal */
  closePods(): void {
    for (const pod of this.#pods.splice(0)) pod[Symbol.dispose]();
  }
}

/** Gives a device its addresses on a segment, as host number `number`. */
function addAddresses(
  socket: NetlinkSocket,
  index: number,
  underlay: Lab["underlay"],
  segment: number,
  number: number,
): void {
  for (const family of FAMILIES) {
    const { host, prefixLength } = underlay[family];
    const address = IpAddress.parse(host(segment, number));
    socket.request(
      `address ${address}`,
      (writer) => writeNewAddress(writer, index, address, prefixLength),
    );
  }
}

/** What tells a file from another in its place; `undefined` if there is none. */
function versionOf(path: string): string | undefined {
  try {
    const { ino, mtime } = Deno.statSync(path);
    return `${ino} ${mtime?.getTime()}`;
  } catch (error) {
    throwDefect(error);
    return undefined;
  }
}

function kill(process: Deno.ChildProcess, how: Deno.Signal): void {
  try {
    process.kill(how);
  } catch (error) {
    // It has ended already, which Deno says by a TypeError.
    if (!(error instanceof TypeError)) throwDefect(error);
  }
}

/** Waits for all, also if one fails, so that nothing is under way any more when it throws. */
export async function allDone<T>(work: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(work);
  return await Promise.all(work);
}

/** How {@link whileProgress} waits. */
export interface ProgressWait {
  /** What is waited for. */
  readonly until: () => boolean;
  /** Tells how far things are: while it tells something new, waiting goes on. */
  readonly progress: () => string;
  /** Called at each look that finds the wait not over. */
  readonly onWait?: () => void;
  /** How often progress is looked at, in milliseconds; 5 s unless given. */
  readonly lookMs?: number;
}

/** Waits until a condition holds; false if three looks in a row find no progress. */
export async function whileProgress(
  { until: condition, progress, onWait, lookMs = LOOK_MS }: ProgressWait,
  signal: AbortSignal,
): Promise<boolean> {
  let last: string | undefined;
  for (let idle = 0; idle < LOOKS_WITHOUT_PROGRESS;) {
    if (await until(condition, signal, lookMs)) return true;
    const now = progress();
    idle = now === last ? idle + 1 : 0;
    last = now;
    onWait?.();
  }
  return false;
}

/** What `read` returns; "" if the file can't be read. */
function ifPossible(read: () => string): string {
  try {
    return read();
  } catch (error) {
    throwDefect(error);
    return "";
  }
}

/** How much processor time a process has used, in milliseconds; 0 if it is gone. See proc_pid_stat(5). */
function processorMs(pid: number): number {
  // The name in parentheses may hold spaces. utime and stime are the 12th and 13th field behind it.
  const fields = ifPossible(() => readProcFile(`/proc/${pid}/stat`)).replace(/^.*\) /s, "").split(
    " ",
  );
  const ticks = Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  return ticks * 1000 / TICKS_PER_SECOND;
}

/** Linux's USER_HZ, the same on every architecture that Deno runs on. */
const TICKS_PER_SECOND = 100;

/** Waits until a condition holds; false if it does not hold in time. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  signal?: AbortSignal,
  patienceMs: number = LOOK_MS * LOOKS_WITHOUT_PROGRESS,
): Promise<boolean> {
  const deadlineMs = performance.now() + patienceMs;
  while (!await condition()) {
    signal?.throwIfAborted();
    if (performance.now() > deadlineMs) return false;
    await sleep(5, signal ?? NEVER);
  }
  return true;
}
