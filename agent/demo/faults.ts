/**
 * The faults that `denim demo --break` strikes, each at the second node, and how it shows that they are got over.
 *
 * @module
 */

import { RuntimeError, sleep } from "@denim/core";
import {
  findLink,
  FORWARDING,
  IncomingDrop,
  type LinkSettings,
  NetlinkSocket,
  NetworkNamespace,
  writeLinkSettings,
  writeRemovedLink,
  writeSysctl,
} from "@denim/core/linux";
import { AgentConnection } from "../agent_client.ts";
import type { Lab, LabNode } from "../lab/lab.ts";
import type { Pod } from "../lab/pod.ts";
import { type Health, isTrouble } from "../mesh/peer_health.ts";
import type { PeersReport } from "../status_report.ts";
import { overlayDevices } from "./packet_path.ts";

/** Where a fault strikes. */
export interface Site {
  /** The cluster. */
  readonly lab: Lab;
  /** The node that is struck. */
  readonly struck: LabNode;
  /** The node that sees it. */
  readonly witness: LabNode;
  /** A pod on each, the witness's first. */
  readonly pods: readonly [Pod, Pod];
  /** The type of the backend. */
  readonly backend: string;
}

/** A kind of fault. */
interface Fault {
  /** What happens, as a sentence's end: "node2 …". */
  readonly what: string;
  /** Does it. What it returns ends it; `undefined` if it is denim's to mend. */
  strike(site: Site, signal: AbortSignal): (() => void | Promise<void>) | undefined;
}

/** UDP ports by which backends carry packets. */
const PORTS: Readonly<Record<string, number>> = { vxlan: 8472, udp: 8285, wireguard: 51820 };
const NARROW_BYTES = 1400;

/** The kinds, by the names that `--break` takes. */
export const FAULTS = {
  "cut-underlay": {
    what: "is cut off: its wire is out",
    strike: (site) => atWire(site, { up: false }, { up: true }),
  },
  "lower-mtu": {
    what: `has a wire that carries ${NARROW_BYTES} bytes at the most`,
    strike: (site) => atWire(site, { mtuBytes: NARROW_BYTES }, { mtuBytes: 1500 }),
  },
  "drop-port": {
    what: "has a firewall that drops the backend's port",
    strike: ({ struck, backend }) => {
      const udpPort = PORTS[backend];
      if (udpPort === undefined) {
        throw new RuntimeError(`drop-port: ${backend} has no UDP port that could be dropped`);
      }
      return inside(struck, () => dropping({ udpPort }));
    },
  },
  "one-way": {
    what: "does not hear the first node, which hears it",
    strike: ({ struck, witness }) => inside(struck, () => dropping({ source: witness.publicIp })),
  },
  "kill-agent": {
    what: "has no agent any more: it was killed",
    strike: ({ struck }, signal) => {
      void struck.stopAgent("SIGKILL");
      return () => struck.startAgent(signal);
    },
  },
  "delete-device": {
    what: "has lost the device that tunnels",
    strike: ({ struck, backend }) => {
      using namespace = struck.open();
      const names = overlayDevices(namespace);
      if (names.length === 0) throw new RuntimeError(`delete-device: ${backend} has no device`);
      namespace.run(() => {
        using socket = new NetlinkSocket();
        for (const name of names) {
          const { index } = findLink(socket, name)!;
          socket.request(`delete ${name}`, (writer) => writeRemovedLink(writer, index));
        }
      });
      return undefined;
    },
  },
  "stop-forwarding": {
    what: "passes no packets on any more: somebody set ip_forward to 0",
    strike: ({ struck }) =>
      inside(struck, () => {
        writeSysctl(FORWARDING[4], "0");
        return undefined;
      }),
  },
} satisfies Readonly<Record<string, Fault>>;

/** The name of a kind of fault. */
export type FaultName = keyof typeof FAULTS;

/** All of them. */
export const FAULT_NAMES = Object.keys(FAULTS) as readonly FaultName[];

/** Does something in a node's namespace; what it returns, ends it. */
function inside(node: LabNode, work: () => (() => void) | undefined): (() => void) | undefined {
  using namespace = node.open();
  return namespace.run(work);
}

function dropping(what: ConstructorParameters<typeof IncomingDrop>[0]): () => void {
  const drop = new IncomingDrop(what);
  return () => drop[Symbol.dispose]();
}

/** Changes the struck node's wire, at the end that it does not see. */
function atWire({ lab, struck }: Site, settings: LinkSettings, before: LinkSettings): () => void {
  const set = (settings: LinkSettings) => {
    using namespace = NetworkNamespace.open(`/run/netns/${lab.prefix}-net`);
    namespace.run(() => {
      using socket = new NetlinkSocket();
      const { index } = findLink(socket, struck.name)!;
      socket.request(
        `change ${struck.name}`,
        (writer) => writeLinkSettings(writer, index, settings),
      );
    });
  };
  set(settings);
  return () => set(before);
}

/** How long a fault lasts that somebody else has to end, in milliseconds. */
const LASTS_MS = 15_000;
/** How long it may take until all is well again, in milliseconds. */
const PATIENCE_MS = 60_000;
const PING_MS = 100;
/** So many pings have to be answered in a row. */
const CALM = 5;

/**
 * Strikes a fault under a ping between two pods, says what becomes of it, and resolves to whether all was well again in
 * the end. Rejects with a RuntimeError if there is nothing to strike.
 */
export async function strikeFault(
  name: FaultName,
  site: Site,
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<boolean> {
  const { struck, witness } = site;
  const fault: Fault = FAULTS[name];
  using pings = new Pings(site.pods, signal);
  const watch = new Watch(witness, struck);
  say(`${name}: ${struck.name} ${fault.what}`);
  const startMs = performance.now();
  const seconds = () => `${((performance.now() - startMs) / 1000).toFixed(1)} s`;
  const end = fault.strike(site, signal);
  if (end !== undefined) {
    let found: Health | undefined;
    while (performance.now() - startMs < LASTS_MS) {
      if (!await sleep(PING_MS, signal)) break;
      const health = await watch.health(signal);
      if (health === found || health === undefined || !isTrouble(health)) continue;
      found = health;
      say(`${witness.name} finds it after ${seconds()}: ${health}`);
    }
    await end();
    signal.throwIfAborted();
    say(`the fault is over after ${seconds()}`);
  }
  const isWell = async () => pings.calm >= CALM && await watch.health(signal) === "ok";
  // What denim mends is not seen from elsewhere: the pings that are lost tell of it.
  if (end === undefined) await sleep(PING_MS * CALM * 2, signal);
  while (!await isWell()) {
    if (performance.now() - startMs > LASTS_MS + PATIENCE_MS) {
      say(`not well after ${seconds()}`);
      return false;
    }
    if (!await sleep(PING_MS, signal)) signal.throwIfAborted();
  }
  if (end === undefined) say(`the agent of ${struck.name} has put it right`);
  say(
    `all is well after ${seconds()}; ${pings.lost} of ${pings.sent} pings between pods were lost`,
  );
  return true;
}

/** Asks the witness's agent how the struck node is. */
class Watch {
  readonly #witness: LabNode;
  readonly #struck: LabNode;

  constructor(witness: LabNode, struck: LabNode) {
    this.#witness = witness;
    this.#struck = struck;
  }

  async health(signal: AbortSignal): Promise<Health | undefined> {
    using agent = new AgentConnection(this.#witness.apiSocket);
    const { peers }: PeersReport = JSON.parse(await agent.ask("/peers", signal));
    return peers.find(({ publicIp }) => publicIp === `${this.#struck.publicIp}`)?.health ??
      undefined;
  }
}

/** Pings from one pod to another until it is disposed of. */
class Pings implements Disposable {
  /** How many were sent. */
  sent = 0;
  /** How many were not answered in time. */
  lost = 0;
  /** How many were answered since the last one that was not. */
  calm = 0;
  #isOver = false;

  constructor(pods: Site["pods"], signal: AbortSignal) {
    void this.#run(pods, signal);
  }

  async #run([from, to]: Site["pods"], signal: AbortSignal): Promise<void> {
    while (!this.#isOver && !signal.aborted) {
      const { timeMs } = await from.ping(to.address, { timeoutMs: PING_MS * 2 });
      this.sent++;
      if (timeMs === undefined) {
        this.lost++;
        this.calm = 0;
        continue;
      }
      this.calm++;
      await sleep(PING_MS, signal);
    }
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
  }
}
