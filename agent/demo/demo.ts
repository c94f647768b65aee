/**
 * `denim demo`: a small cluster on this machine, which shows that pods reach each other.
 *
 * @module
 */

import { ConfigError, type Lease, messageOf, RuntimeError, throwDefect } from "@denim/core";
import { SqliteStore } from "@denim/core/stores/sqlite";
import { allDone, Lab } from "../lab/lab.ts";
import type { Pod } from "../lab/pod.ts";
import { formatColumns } from "../columns.ts";
import { flag, type FlagValues } from "../flag_table.ts";
import { list, oneOf, text, toggle, wholeNumber } from "../flag_types.ts";
import { createLogger } from "../log.ts";
import { type AnyBackend, checkNetConf } from "../net_conf.ts";
import { PageGate } from "../page/page_gate.ts";
import { requireRoot } from "../privileges.ts";
import { runCommand } from "../run_command.ts";
import { FAULT_NAMES, FAULTS, type Site, strikeFault } from "./faults.ts";
import { linesOf, openBrowser } from "./onlooker.ts";
import { overlayDevices, PacketPath, TUNNEL_HEADER } from "./packet_path.ts";

const HELP = `Usage: denim demo [flags]

Makes nodes as network namespaces on this machine, runs an agent in each on one embedded store, attaches
a pod to each through the CNI plugin, and shows that the pods reach each other. Leaves nothing behind.

--break strikes a fault at the second node, under a ping from the first one's pod to the second's:

${formatColumns(FAULT_NAMES.map((name) => [name, FAULTS[name].what]), { indent: "  " })}

With --open the cluster stays up until you press Ctrl-C, each node's page is served at a port of loopback,
and faults are struck that you type.
`;
const NETWORK = "10.5.0.0/16";
const TRANSFER_BYTES = 1024 * 1024;

const FLAGS = [
  flag("nodes", wholeNumber(2, 20), "how many nodes, 2 to 20", "3"),
  flag("backend", text("TYPE"), "net-conf's Backend.Type", "vxlan"),
  flag(
    "open",
    toggle,
    "show the nodes' pages, and open the first one's in a browser if there is one",
  ),
  flag(
    "break",
    list({ ...oneOf(FAULT_NAMES), placeholder: "KIND" }),
    "strike a fault, and show how it heals; may be repeated",
  ),
  flag("keep", toggle, "leave the cluster up, and say how to look around"),
  flag("remove", text("DIRECTORY"), "remove a cluster that was kept"),
] as const;

type DemoFlags = FlagValues<typeof FLAGS[number]>;

/**
 * Runs the demo and resolves to the exit code: 0 every pod reached every other, 1 not, 2 wrong usage.
 *
 * @param agentProgram the words that start an agent
 * @param backends those that this program knows
 */
export function runDemo(
  args: readonly string[],
  agentProgram: readonly [string, ...string[]],
  backends: readonly AnyBackend[],
): Promise<number> {
  return runCommand({
    name: "denim demo",
    help: HELP,
    flags: FLAGS,
    stopped: "stopped; everything is removed",
    // The terminal was closed.
    stopSignals: ["SIGHUP"],
    async run({ values }, signal) {
      if (values.open && values.keep) {
        throw new ConfigError(
          "--open and --keep: the pages end with the demo, so take one of the two",
        );
      }
      requireBackend(values, backends);
      requireRoot("the demo", { namespaces: true });
      if (values.remove === undefined) return await show(values, agentProgram, signal);
      await Lab.remove(values.remove);
      console.log(`Removed the cluster of ${values.remove}.`);
      return 0;
    },
  }, args);
}

function netConf({ backend }: DemoFlags): unknown {
  return { Network: NETWORK, Backend: { Type: backend } };
}

/** Throws a ConfigError if no agent would take the backend. */
function requireBackend(flags: DemoFlags, backends: readonly AnyBackend[]): void {
  try {
    checkNetConf(JSON.stringify(netConf(flags)), { backends });
  } catch (error) {
    throwDefect(error);
    throw new ConfigError(`--backend ${flags.backend}: ${messageOf(error)}`, { cause: error });
  }
}

/** Prints what the demo does next. */
function step(message: string): void {
  console.log(`· ${message}`);
}

async function show(
  flags: DemoFlags,
  agentProgram: readonly [string, ...string[]],
  signal: AbortSignal,
): Promise<number> {
  const startMs = performance.now();
  step(`${flags.nodes} nodes as network namespaces, joined by a bridge`);
  await using lab = await Lab.create({
    nodes: flags.nodes,
    netConf: netConf(flags),
    agentProgram,
  });
  step(`an agent on each, leases in ${lab.directory}/denim.db`);
  await lab.startAgents(signal, step);
  step("a pod on each, attached through the CNI plugin");
  const pods = await allDone(
    lab.nodes.map((node, index) => node.addPod(`pod${index + 1}`)),
  );
  signal.throwIfAborted();
  showLeases(lab, await readLeases(lab, signal), pods);
  const reached = await showPings(pods, signal);
  // Between pods that do not reach each other, the transfer would wait for minutes.
  const whole = reached && await showTransfer(pods, signal);
  const followed = await showPath(lab, pods);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  const good = reached && whole && followed;
  console.log(
    good
      ? `\nEvery pod reaches every other. It took ${seconds} s.`
      : `\nNot every pod reaches every other; the agents' logs say more:\n${await logs(lab)}`,
  );
  const site: Site = {
    lab,
    struck: lab.nodes[1]!,
    witness: lab.nodes[0]!,
    pods: [pods[0]!, pods[1]!],
    backend: flags.backend,
  };
  await using pages = new AsyncDisposableStack();
  if (flags.open) showPages(lab, pages);
  let healed = true;
  for (const name of flags.break) {
    console.log();
    healed = await strikeFault(name, site, step, signal) && healed;
  }
  if (flags.open) await strikeTyped(site, signal);
  if (flags.keep) await keep(lab);
  return good && healed ? 0 : 1;
}

/** Serves the nodes' pages until they are disposed of, and says where. */
function showPages(lab: Lab, pages: AsyncDisposableStack): void {
  const urls = lab.nodes.map((node) => pages.use(new PageGate(node.apiSocket)).url);
  console.log("\nThe nodes' pages:");
  table(lab.nodes.map(({ name }, index) => [name, urls[index]!]));
  const [first] = urls;
  if (!openBrowser(first!)) step(`open ${first} in a browser; there is none to open here`);
}

/** Strikes the faults whose names are typed, until it is stopped. */
async function strikeTyped(site: Site, signal: AbortSignal): Promise<void> {
  console.log(`\nType a fault to strike it (${FAULT_NAMES.join(" ")}); Ctrl-C ends the demo.`);
  for await (const line of linesOf(Deno.stdin, signal)) {
    const name = FAULT_NAMES.find((name) => name === line.trim());
    if (name === undefined) {
      if (line.trim() !== "") step(`"${line.trim()}" is none of ${FAULT_NAMES.join(", ")}`);
      continue;
    }
    try {
      await strikeFault(name, site, step, signal);
    } catch (error) {
      throwDefect(error);
      if (!signal.aborted) step(messageOf(error));
    }
  }
}

/** The leases as the agents see them: one for each node, in the order of the nodes. */
async function readLeases(lab: Lab, signal: AbortSignal): Promise<readonly Lease[]> {
  const log = createLogger({ format: "text" });
  await using store = SqliteStore.open(`${lab.directory}/denim.db`, { log });
  for await (const event of store.watch(signal)) {
    if (event.kind !== "snapshot") continue;
    return lab.nodes.map(({ publicIp }) =>
      event.leases.find(({ halves }) => halves[0]!.publicIp.equals(publicIp))!
    );
  }
  throw new RuntimeError("the store has no leases");
}

function showLeases(lab: Lab, leases: readonly Lease[], pods: readonly Pod[]): void {
  const rows = lab.nodes.map((node, index) => {
    const { subnet, publicIp, backendData } = leases[index]!.halves[0]!;
    const data = Object.entries(backendData ?? {}).map(([name, value]) => `${name} ${value}`);
    return [node.name, `${publicIp}`, `${subnet}`, data.join(", "), `${pods[index]!.address}`];
  });
  console.log("\nThe leases, which tell each node about the others:");
  table([["node", "public IP", "subnet", "published", "its pod"], ...rows]);
}

async function showPings(pods: readonly Pod[], signal: AbortSignal): Promise<boolean> {
  console.log("\nRound trips between the pods, in milliseconds:");
  let reached = true;
  const rows: string[][] = [["from \\ to", ...pods.map(({ name }) => name)]];
  for (const from of pods) {
    const row = [from.name];
    for (const to of pods) {
      signal.throwIfAborted();
      if (from === to) {
        row.push("–");
        continue;
      }
      // The first packet waits for the bridge to find its neighbour; the second one does not.
      await from.ping(to.address);
      const { timeMs } = await from.ping(to.address);
      reached &&= timeMs !== undefined;
      row.push(timeMs === undefined ? "no answer" : timeMs.toFixed(3));
    }
    rows.push(row);
  }
  table(rows);
  return reached;
}

async function showTransfer(pods: readonly Pod[], signal: AbortSignal): Promise<boolean> {
  signal.throwIfAborted();
  const [from, to] = [pods[0]!, pods[1]!];
  const { port } = await to.listen();
  const startMs = performance.now();
  const sent = await from.send(to.address, port, TRANSFER_BYTES);
  const received = await to.received();
  const whole = sent.sha256 === received.sha256 && received.bytes === TRANSFER_BYTES;
  const ms = (performance.now() - startMs).toFixed(0);
  console.log(
    `\n1 MiB over TCP from ${from.name} to ${to.name}: ` +
      (whole ? `whole, in ${ms} ms (SHA-256 ${received.sha256.slice(0, 16)}…)` : "NOT whole"),
  );
  return whole;
}

/** Shows one packet at each device between the first two pods. */
async function showPath(lab: Lab, pods: readonly Pod[]): Promise<boolean> {
  const [from, to] = [pods[0]!, pods[1]!];
  const [fromNode, toNode] = [lab.nodes[0]!, lab.nodes[1]!];
  using path = new PacketPath();
  using fromPodNs = from.open();
  using fromNs = fromNode.open();
  using toNs = toNode.open();
  using toPodNs = to.open();
  const overlay = overlayDevices(fromNs);
  path.listen(from.name, fromPodNs, ["eth0"]);
  path.listen(fromNode.name, fromNs, ["cni0", ...overlay, "eth0"]);
  path.listen(toNode.name, toNs, ["eth0", ...overlay, "cni0"]);
  path.listen(to.name, toPodNs, ["eth0"]);
  const { id, timeMs } = await from.ping(to.address);
  console.log(`\nOne packet from ${from.name} to ${to.name}, as captured on each device:`);
  const sightings = path.sightings(id);
  for (const { host, device, headers } of sightings) {
    // The packet that a tunnel carries goes below the tunnel's own headers.
    const inside = headers.findIndex((header) => TUNNEL_HEADER.test(header)) + 1;
    const lines = [headers.slice(0, inside), headers.slice(inside)].filter(({ length }) =>
      length > 0
    );
    lines.forEach((line, index) =>
      console.log(`  ${(index === 0 ? `${host} ${device}` : "").padEnd(17)} ${line.join(" | ")}`)
    );
  }
  return timeMs !== undefined && sightings.length >= 6;
}

async function logs(lab: Lab): Promise<string> {
  const texts = await Promise.all(
    lab.nodes.map(async ({ name, logFile }) => `${name}:\n${await Deno.readTextFile(logFile)}`),
  );
  return texts.join("\n");
}

async function keep(lab: Lab): Promise<void> {
  await lab.keep();
  const [node] = lab.nodes;
  console.log(`
The cluster stays up. Look around:
  ip netns list
  ip netns exec ${node!.namespaceName} ip route
  ip netns exec ${node!.namespaceName} bridge fdb
  ip netns exec ${lab.prefix}-pod1 ping ${"$"}POD      # an address from the table above
  tail -f ${node!.logFile}
Remove it:
  denim demo --remove ${lab.directory}`);
}

function table(rows: readonly (readonly string[])[]): void {
  console.log(formatColumns(rows, { indent: "  " }));
}
