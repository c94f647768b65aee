/**
 * What a node gets over: under a steady ping between two pods, one fault after another, with every backend
 * where there is something to strike. Ends with a table of what each took.
 */

import { report } from "../support/report.ts";
import { rootTest, type TestNeeds } from "../support/root_test.ts";
import { type BackendName, BACKENDS, Cluster } from "./cluster.ts";
import { type Fault, faultsFor, type Site } from "./faults.ts";
import { formatOutcomes, measure, type Measured, type Outcome, PATIENCE_MS } from "./measure.ts";
import { type Scenario, SCENARIOS } from "./scenarios.ts";
import type { StoreName } from "./store_at_fault.ts";
import { undergo } from "./undergo.ts";

/** Within this time everything is to be as it should be, if it is not an agent's start that is waited for. */
const HEALED_WITHIN_MS = 1_000;

const outcomes: Outcome[] = [];
Deno.test.afterAll(() => {
  if (outcomes.length > 0) report(formatOutcomes(outcomes));
});

/** What a backend needs of a machine that not every machine has. */
const NEEDS: Partial<Readonly<Record<BackendName, TestNeeds>>> = {
  wireguard: { program: "wireguard-go" },
  ipip: { linkType: "ipip" },
};

/** Each backend with the usual store, and what has to do with leases with the other as well. */
const CLUSTERS: readonly (readonly [BackendName, StoreName])[] = [
  ...BACKENDS.map((backend) => [backend, "sqlite"] as const),
  ["vxlan", "etcd"],
];

for (const [backend, store] of CLUSTERS) {
  const title = store === "sqlite" ? backend : `${backend}, ${store}`;
  rootTest(`faults with ${title}`, async (t) => {
    await using clusters = new Clusters(backend, store);
    for (const { name, ofLeases, starts, maxLost, run } of casesFor(backend, store)) {
      if (store !== "sqlite" && !ofLeases) continue;
      await t.step(name, async () => {
        const cluster = await clusters.current();
        const places = cluster.logPlaces();
        const site: Site = { cluster, at: cluster.members[0]!, peer: cluster.members[1]! };
        const measured = await measure(site, () => run(site, PATIENCE_MS));
        outcomes.push({ cluster: title, fault: name, ...measured });
        const withinMs = starts ? PATIENCE_MS : HEALED_WITHIN_MS;
        const complaint = complaintOf(measured, withinMs, maxLost?.[backend]);
        if (complaint === undefined) return;
        const logs = cluster.logsSince(places);
        await clusters.discard();
        throw new Error(`${complaint}\n${logs}`);
      });
    }
  }, NEEDS[backend]);
}

function complaintOf(
  { healedMs, lost, error }: Measured,
  withinMs: number,
  maxLost = Infinity,
): string | undefined {
  if (error !== undefined) return error;
  if (healedMs! >= withinMs) return `healed after ${healedMs!.toFixed()} ms`;
  return lost! > maxLost ? `${lost} packets lost, where ${maxLost} may be` : undefined;
}

/** All that is tried with a backend. An agent that was struck itself is a newcomer for a while: that comes last. */
function casesFor(backend: BackendName, store: StoreName): readonly Scenario[] {
  const { kernel, state, agent } = faultsFor(backend, store);
  return [
    ...[...kernel, ...state].flatMap(scenariosOf),
    ...SCENARIOS.filter(({ backends }) => backends?.includes(backend) ?? true),
    ...agent.flatMap(scenariosOf),
  ];
}

function scenariosOf(fault: Fault): readonly Scenario[] {
  const once: Scenario = {
    ...fault,
    starts: fault.restarts ?? false,
    run: (site, patienceMs) => undergo(fault, site, patienceMs),
  };
  // What an outer interface was before it has to be again.
  return fault.toggles === undefined
    ? [once]
    : [once, { ...once, name: `${fault.name}, and back` }];
}

/** One cluster after another: what a fault that did not heal left is no place for the next. */
class Clusters implements AsyncDisposable {
  readonly #backend: BackendName;
  readonly #store: StoreName;
  #cluster: Cluster | undefined;

  constructor(backend: BackendName, store: StoreName) {
    this.#backend = backend;
    this.#store = store;
  }

  async current(): Promise<Cluster> {
    return this.#cluster ??= await Cluster.create({
      backend: this.#backend,
      store: this.#store,
      nodes: 2,
      spare: true,
    });
  }

  async discard(): Promise<void> {
    const cluster = this.#cluster;
    this.#cluster = undefined;
    await cluster?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.discard();
  }
}
