/**
 * How fast a pod is attached: denim's CNI plugin, by the agent and alone, in turns with the `bridge` and `host-local`
 * plugins, told to do the same; and with flannel's, where `FLANNEL_BIN` names the folder of its programs.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { Cidr, RuntimeError } from "@denim/core";
import { Lab, type LabNode } from "@denim/agent/lab";
import { bundle, revision } from "../../.ci/bundle.ts";
import { launcher } from "../../agent/install/program_files.ts";
import { DEBIAN_PLUGINS, debianPlugin } from "../support/debian_plugins.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { all } from "../support/wait.ts";
import { deployed, flannelProgram } from "./contestants.ts";
import { childrenUs, processorUs } from "./processor.ts";
import { type Measure, Samples } from "./stats.ts";

/** How the bench is run. */
export interface CniOptions {
  /** How many pods are attached one after another in each run. */
  readonly pods: number;
  /** How many are attached at the same time. */
  readonly atOnce: number;
  /** How often each plugin has its turn. */
  readonly runs: number;
}

/** A subnet of a node has no more addresses for pods than that. */
export const MAX_PODS = 250;

/** GNU time, which tells what a process had resident at the most. */
const TIME = "/usr/bin/time";
const NETWORK = Cidr.parse("10.244.0.0/16");
const MTU_BYTES = 1450;
/** Both plugins know it, the newest that Debian's bridge does. */
const CNI_VERSION = "1.0.0";

const COMMANDS = ["ADD", "DEL"] as const;
const WARM_UP_PODS = 5;

/** One of those that are compared. */
interface Contestant {
  /** Its name in the table. */
  readonly name: string;
  /** The words that start it. */
  readonly program: readonly [string, ...string[]];
  /** Its network configuration. */
  readonly config: unknown;
  /** Whether the agent's time counts for its work. */
  readonly byAgent?: boolean;
}

/** Measures, and says on the way how it goes. */
export async function cni(
  options: CniOptions,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<{ readonly measures: readonly Measure[]; readonly programs: unknown }> {
  for (const plugin of ["bridge", "host-local"]) debianPlugin(plugin);
  const samples = new Samples();
  using folder = new TempFolder();
  await bundle(folder.path);
  await using lab = await Lab.create({
    nodes: 1,
    netConf: { Network: `${NETWORK}`, Backend: { Type: "host-gw" } },
    agentProgram: [...deployed("agent", folder.path), "agent"],
  });
  const node = lab.nodes[0]!;
  await node.startAgent(signal, ["--cni-calls", node.cniCalls]);
  const contestants = [...denim(node, folder.path), bridge(node), ...flannel(node)];
  for (const { name, program } of contestants) say(`${name} is ${program.join(" ")}`);
  const pods = Array.from({ length: Math.max(options.pods, options.atOnce) }, (_, index) => {
    using namespace = lab.namespace(`pod${index + 1}`);
    return namespace.path;
  });

  const memory = existsSync(TIME);
  if (!memory) say(`peak memory is not measured: there is no ${TIME} (Debian package time)`);
  // What is done for the first time takes longer (the bridge, the compiler's cache), and so does a call under
  // GNU time: the first round is for these, and its times do not count.
  for (const contestant of contestants) {
    for (const pod of pods.slice(0, WARM_UP_PODS)) {
      for (const command of COMMANDS) {
        signal.throwIfAborted();
        if (memory) {
          const peak = await peakMemory(node, contestant, command, pod);
          samples.add(
            `${command}, peak memory of the largest process: ${contestant.name}`,
            "MB",
            peak,
          );
        } else await call(node, contestant, command, pod);
      }
    }
  }
  for (let run = 1; run <= options.runs; run++) {
    for (const contestant of contestants) {
      const usedUs = () => childrenUs().all + (contestant.byAgent ? processorUs(node).all : 0);
      for (const command of COMMANDS) {
        const some = pods.slice(0, options.pods), beforeUs = usedUs();
        for (const pod of some) {
          signal.throwIfAborted();
          const ms = await timed(() => call(node, contestant, command, pod));
          samples.add(`${command}, one at a time: ${contestant.name}`, "ms", ms);
        }
        const ms = (usedUs() - beforeUs) / 1000 / some.length;
        samples.add(`${command}, one at a time, processor: ${contestant.name}`, "ms", ms);
      }
      for (const command of COMMANDS) {
        signal.throwIfAborted();
        const some = pods.slice(0, options.atOnce);
        const ms = await timed(() => all(some.map((pod) => call(node, contestant, command, pod))));
        const what = `${command}, ${options.atOnce} at once, until all are done`;
        samples.add(`${what}: ${contestant.name}`, "ms", ms);
      }
    }
    say(`run ${run} of ${options.runs}`);
  }
  // By name those that are to be compared stand one below the other.
  const measures = samples.measures.toSorted((a, b) => a.name < b.name ? -1 : 1);
  return { measures, programs: contestants };
}

/** denim's plugin: the agent does the work, or the plugin. */
function denim(node: LabNode, folder: string): readonly Contestant[] {
  const plugin = deployed("plugin", folder).join(" ");
  const launched = (name: string, calls: string): readonly [string] => {
    const path = `${folder}/${name}`;
    const text = launcher({ agent: undefined, plugin, revision: revision(), calls });
    Deno.writeTextFileSync(path, text, { mode: 0o755 });
    return [path];
  };
  const config = {
    ...node.cniConfig,
    cniVersion: CNI_VERSION,
    delegate: { bridge: "cni0", hairpinMode: true, isDefaultGateway: true },
  };
  return [
    {
      name: "denim, by the agent",
      program: launched("denim", node.cniCalls),
      config,
      byAgent: true,
    },
    { name: "denim, alone", program: launched("alone", `${node.cniCalls}.none`), config },
  ];
}

/** flannel's chain of three, if its plugin is there. */
function flannel(node: LabNode): readonly Contestant[] {
  const program = flannelProgram("flannel");
  if (program === undefined) return [];
  return [{
    name: "flannel's chain",
    program: [program],
    config: {
      cniVersion: CNI_VERSION,
      name: "flannel",
      type: "flannel",
      subnetFile: node.subnetFile,
      dataDir: `${node.directory}/flannel`,
      ipam: { dataDir: `${node.directory}/flannel-networks` },
      delegate: { bridge: "cni2", hairpinMode: true, isDefaultGateway: true },
    },
  }];
}

/** The bridge plugin, told what flannel's plugin would tell it for a configuration such as denim's. */
function bridge(node: LabNode): Contestant {
  return {
    name: "bridge + host-local",
    program: [debianPlugin("bridge")],
    config: {
      cniVersion: CNI_VERSION,
      name: "bridge",
      type: "bridge",
      bridge: "cni1",
      isGateway: true,
      isDefaultGateway: true,
      ipMasq: false,
      hairpinMode: true,
      mtu: MTU_BYTES,
      ipam: {
        type: "host-local",
        dataDir: `${node.directory}/bridge-networks`,
        ranges: [[{ subnet: "10.244.2.0/24" }]],
        routes: [{ dst: `${NETWORK}` }],
      },
    },
  };
}

/** Calls a plugin as a container runtime does, from its start to its end. Throws if it fails. */
async function call(
  node: LabNode,
  { name, program, config }: Contestant,
  command: typeof COMMANDS[number],
  pod: string,
): Promise<void> {
  // All of them see the file system as the agent does, which serves no plugin that sees another; it costs all the same.
  const asAgent = ["nsenter", `--mount=/proc/${node.agentPid}/ns/mnt`] as const;
  const child = node.spawn([...asAgent, ...program], {
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: pod.slice(pod.lastIndexOf("/") + 1),
      CNI_NETNS: pod,
      CNI_IFNAME: "eth0",
      CNI_PATH: DEBIAN_PLUGINS,
    },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  });
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(config)));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  if (code === 0) return;
  const decoder = new TextDecoder();
  throw new RuntimeError(
    `${command} of ${name} failed with ${code}: ${decoder.decode(stdout)}${decoder.decode(stderr)}`,
  );
}

/** What the largest process of a call had resident at the most, in MB. */
async function peakMemory(
  node: LabNode,
  contestant: Contestant,
  command: typeof COMMANDS[number],
  pod: string,
): Promise<number> {
  const file = `${node.directory}/peak`;
  const program = [TIME, "-f", "%M", "-o", file, ...contestant.program] as const;
  await call(node, { ...contestant, program }, command, pod);
  return Number(await Deno.readTextFile(file)) * 1024 / 1e6;
}

async function timed(action: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await action();
  return performance.now() - startMs;
}
