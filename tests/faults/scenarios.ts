/**
 * What befalls a node through other programs and other nodes, and is not simply mended: what it has to do, and
 * say.
 *
 * @module
 */

import { messageOf, sleep } from "@denim/core";
import { denimProgram } from "@denim/agent/lab";
import { shIn } from "../support/sh.ts";
import { eventually, NEVER } from "../support/wait.ts";
import { type BackendName, readiness } from "./cluster.ts";
import { NONE_LOST, type Site, wordsOf } from "./faults.ts";
import { compare, viewNode } from "./node_view.ts";
import type { Undergone } from "./undergo.ts";

/** A fault with a course of its own. Each leaves the cluster as it was. */
export interface Scenario {
  /** What happens. */
  readonly name: string;
  /** The backends where it can; all unless given. */
  readonly backends?: readonly BackendName[];
  /** Whether it is for the store of the leases as well to get over it. */
  readonly ofLeases?: boolean;
  /** Whether an agent starts in it: how long that takes is no packet's affair. */
  readonly starts?: boolean;
  /** How many packets it may cost at the most. */
  readonly maxLost?: Readonly<Record<BackendName, number>>;
  /** Lets it happen; throws if denim does not do its part. */
  readonly run: (site: Site, patienceMs: number) => Promise<Undergone>;
}

/** Where the node is that takes another's subnet: no agent runs there. */
const STRANGER = "10.99.0.77";
/** Of two nodes that are the same, the one that started less than this ago is the clone. */
const NEWCOMER_MS = 10_000;
/** A line of the log that a person should see. */
const COMPLAINT = /^\S+ (WARN|ERROR) .*$/gm;

/** How long another program goes on with its own idea of a route … */
const CONTEST_MS = 3_000;
/** … and how often denim may put it back meanwhile. At full speed that would be a hundred times. */
const MAX_ROUNDS = 20;

/** All of them, in an order in which one may follow another. */
export const SCENARIOS: readonly Scenario[] = [
  {
    name: "route deleted again and again for 3 s",
    run: async (site, patienceMs) => {
      const { cluster, at: { node } } = site;
      const { route } = wordsOf(site);
      const log = logOf(node.logFile).length;
      const loop = `while :; do ip route del ${route} 2>/dev/null && echo; sleep 0.01; done`;
      const other = node.spawn(["sh", "-c", loop], { stdin: "null", stdout: "piped" });
      await sleep(CONTEST_MS, NEVER);
      other.kill("SIGKILL");
      const rounds = new TextDecoder().decode((await other.output()).stdout).length;
      const struckAtMs = performance.now();
      const rightAtMs = await cluster.asExpected(patienceMs);
      if (rounds < 3 || rounds > MAX_ROUNDS) {
        throw new Error(`the route was put back ${rounds} times in ${CONTEST_MS} ms`);
      }
      if (!complaints(logOf(node.logFile).slice(log)).some((line) => line.includes(route))) {
        throw new Error(`the log does not say that somebody deletes ${route}`);
      }
      return { struckAtMs, rightAtMs };
    },
  },
  {
    name: "lease taken by another node, and given back",
    ofLeases: true,
    run: async ({ cluster, at }, patienceMs) => {
      const { node } = at;
      const before = { pid: node.agentPid, view: viewNode(node), log: logOf(node.logFile).length };
      await cluster.store.give(at.key, STRANGER);
      // It says so, takes no part any more, and gives nothing that it has to the stranger.
      await eventually("not ready", () => readiness(node) === 503, patienceMs);
      await eventually(
        "a word on what to do",
        () =>
          complaints(logOf(node.logFile).slice(before.log)).some((line) =>
            line.includes(at.key) && /drain/.test(line)
          ),
        patienceMs,
      );
      // Nobody shall give pods addresses meanwhile, so that subnet.env may go.
      const changes = compare(before.view, viewNode(node))
        .filter((line) => !/^. subnet\.env/.test(line));
      if (changes.length > 0) throw new Error(`it keeps what it has:\n${changes.join("\n")}`);
      if ([...cluster.store.holders().values()].includes(at.publicIp)) {
        throw new Error(`${at.name} leases another subnet, where no pod of it is`);
      }
      const struckAtMs = performance.now();
      await cluster.store.remove(at.key);
      await eventually("ready again", () => readiness(node) === 200, patienceMs);
      const rightAtMs = await cluster.asExpected(patienceMs);
      if (node.agentPid !== before.pid) throw new Error(`the agent of ${at.name} ended`);
      return { struckAtMs, rightAtMs };
    },
  },
  {
    name: "a clone with the same public IP",
    starts: true,
    ofLeases: true,
    maxLost: NONE_LOST,
    run: (site, patienceMs) => {
      const { node, publicIp } = site.at;
      // On another link, so that the two are no trouble to each other's neighbours.
      return refuse(site, patienceMs, {
        prepare: `ip addr add ${publicIp}/32 dev eth0`,
        args: ["--iface", publicIp],
        named: `${node.publicIp}`,
        tidy: `ip addr del ${publicIp}/32 dev eth0`,
      });
    },
  },
  {
    // The others send it what is the original's, until it has read the leases and takes its own back.
    name: "a clone with the same VTEP MAC",
    starts: true,
    ofLeases: true,
    backends: ["vxlan"],
    run: (site, patienceMs) => {
      const mac = site.cluster.expected.join("\n").match(
        /^node1: link flannel\.1 .* address (\S+)/m,
      )![1]!;
      return refuse(site, patienceMs, {
        prepare: `ip link add flannel.1 address ${mac} type vxlan id 1 dev eth0 ` +
          `local ${site.cluster.spare!.publicIp} dstport 8472 nolearning`,
        args: [],
        named: mac,
        tidy: "ip link del flannel.1",
      });
    },
  },
];

/** A node that is like another in what there may be but one of. */
interface Clone {
  /** The script that makes it so. */
  readonly prepare: string;
  /** Its agent's flags. */
  readonly args: readonly string[];
  /** What both agents have to name. */
  readonly named: string;
  /** The script that takes back what was prepared. */
  readonly tidy: string;
}

/** Starts a clone's agent: it has to refuse, both have to say why, and nothing else may change. */
async function refuse({ cluster, at }: Site, patienceMs: number, clone: Clone): Promise<Undergone> {
  const spare = cluster.spare!;
  await eventually(
    `the agent of ${at.name} is no newcomer itself`,
    () => performance.now() - at.readyAtMs > NEWCOMER_MS,
    NEWCOMER_MS + 1_000,
  );
  shIn(spare, clone.prepare);
  const before = { pid: at.node.agentPid, log: logOf(at.node.logFile).length };
  const cloneLog = logOf(spare.logFile).length;
  const struckAtMs = performance.now();
  const agent = spare.spawn(
    [...denimProgram("agent"), ...spare.agentArguments, ...clone.args],
    { stdin: "null", stdout: "null", logFile: spare.logFile },
  );
  let code: number | undefined;
  const ended = agent.status.then((status) => code = status.code);
  try {
    await eventually("the clone's agent refuses to run", () => code !== undefined, patienceMs);
    if (code === 0) throw new Error("the clone's agent ended with exit code 0");
    const names = (log: string) => complaints(log).some((line) => line.includes(clone.named));
    await eventually(
      `the clone's log names ${clone.named}`,
      () => names(logOf(spare.logFile).slice(cloneLog)),
      patienceMs,
    );
    await eventually(
      `the log of ${at.name} names ${clone.named}`,
      () => names(logOf(at.node.logFile).slice(before.log)),
      patienceMs,
    );
    const rightAtMs = await cluster.asExpected(patienceMs);
    if (at.node.agentPid !== before.pid) throw new Error(`the agent of ${at.name} ended`);
    return { struckAtMs, rightAtMs };
  } catch (error) {
    const log = logOf(spare.logFile).slice(cloneLog);
    throw new Error(`${messageOf(error)}\nthe clone:\n${log}`, { cause: error });
  } finally {
    if (code === undefined) agent.kill("SIGKILL");
    await ended;
    shIn(spare, `${clone.tidy}; ip link del flannel.1 2>/dev/null || :`);
  }
}

function logOf(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

function complaints(log: string): string[] {
  return log.match(COMPLAINT) ?? [];
}
