/**
 * Many ADDs and DELs at a time, with plugins killed at random moments. `DENIM_TEST_CONTAINERS=5000` for a long run.
 */

import assert from "node:assert/strict";
import { IpAddress } from "@denim/core/ip";
import { hostInterfaceName } from "../../plugin/bridge.ts";
import { rootTest } from "../support/root_test.ts";
import { ScratchNamespace } from "../support/scratch_namespace.ts";
import { all } from "../support/wait.ts";
import { answersPing, PluginNode, reachesGateways } from "./plugin_node.ts";

/** How many containers come and go, how many there are at the most, and how many commands run at a time. */
const CONTAINERS = Number(Deno.env.get("DENIM_TEST_CONTAINERS") ?? 500), LIVING = 48, AT_ONCE = 16;
/** One plugin in so many shall be killed; some are faster, so that it comes to one in ten. */
const KILL_ONE_IN = 7;
/** How often GC runs: after so many containers. */
const COLLECT_EACH = 60;
/** How often the agent is killed, where there is one. */
const AGENT_KILLS = 10;
/** Where all choices come from. */
const SEED = 8;

/** A number from 0 to 1 for one choice: the same in each run, in whatever order things happen. */
function chance(...choice: readonly (string | number)[]): number {
  let hash = SEED;
  for (const char of choice.join("/")) hash = Math.imul(hash ^ char.charCodeAt(0), 0x0100_0193);
  hash = Math.imul(hash ^ hash >>> 16, 0x85eb_ca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2_ae35);
  return ((hash ^ hash >>> 16) >>> 0) / 2 ** 32;
}

interface Container {
  readonly id: string;
  readonly namespace: ScratchNamespace;
  /** How many commands have been run for it. */
  calls: number;
}

/** A container runtime whose plugins are killed. */
class Runtime implements Disposable {
  readonly node = new PluginNode({ dualStack: true });
  /** Every container that there is, and what it was told of its addresses once it was attached. */
  readonly containers = new Map<Container, readonly string[] | undefined>();
  /** The containers that nobody has told the plugin of the end of. */
  readonly forgotten = new Set<string>();
  /** How many commands were run, and how many of them were killed. */
  calls = 0;
  killed = 0;
  #collections = 0;
  /** How long each command took of late, in ms. */
  readonly #usualMs = new Map<string, number>();

  [Symbol.dispose](): void {
    for (const { namespace } of this.containers.keys()) namespace[Symbol.dispose]();
    this.node[Symbol.dispose]();
  }

  /** Runs a command, or kills it. */
  async #run(command: string, id: string, calls: number, start: () => Promise<Deno.ChildProcess>) {
    const startMs = performance.now(), usualMs = this.#usualMs.get(command) ?? 300;
    const plugin = await start();
    const killing = chance(command, id, calls) < 1 / KILL_ONE_IN;
    const delayMs = chance(command, id, calls, "when") * usualMs;
    const timer = killing ? setTimeout(() => kill(plugin), delayMs) : undefined;
    const { code, signal, stdout } = await plugin.output();
    clearTimeout(timer);
    this.calls++;
    if (signal !== null) this.killed++;
    else this.#usualMs.set(command, 0.8 * usualMs + 0.2 * (performance.now() - startMs));
    const text = new TextDecoder().decode(stdout);
    return {
      code,
      wasKilled: signal !== null,
      json: signal === null && text ? JSON.parse(text) : undefined,
    };
  }

  #call(command: string, container: Container, netns = container.namespace.path) {
    const { id, namespace } = container;
    return this.#run(
      command,
      id,
      ++container.calls,
      () => this.node.start(command, namespace, { containerId: id, netns }),
    );
  }

  /** Attaches a new container. Where that fails it is taken down, or tried again, or forgotten. */
  async attach(index: number): Promise<void> {
    const container = { id: `container${index}`, namespace: new ScratchNamespace(), calls: 0 };
    this.containers.set(container, undefined);
    for (;;) {
      const { code, json, wasKilled } = await this.#call("ADD", container);
      if (code === 0) {
        const addresses = json.ips.map(({ address }: { address: string }) => address.split("/")[0]);
        this.containers.set(container, addresses);
        return;
      }
      // The one before it was killed when all was done.
      if (!wasKilled) assert.match(json.msg, /a second ADD needs a DEL first/);
      const next = wasKilled ? chance("next", container.id, container.calls) : 0.6;
      if (next < 0.25) {
        this.forgotten.add(container.id);
        return this.#remove(container);
      }
      if (next < 0.5) return await this.detach(container);
      if (next < 0.75) await this.#delete(container);
    }
  }

  /** Takes a container down, for some without a namespace by then. */
  async detach(container: Container): Promise<void> {
    this.containers.set(container, undefined);
    await this.#delete(container);
    this.#remove(container);
  }

  async #delete(container: Container): Promise<void> {
    const netns = chance("netns", container.id, container.calls) < 0.25 ? "" : undefined;
    for (;;) {
      const { code, json, wasKilled } = await this.#call("DEL", container, netns);
      if (code === 0) return;
      assert.ok(wasKilled, json?.msg);
    }
  }

  #remove(container: Container): void {
    this.containers.delete(container);
    container.namespace[Symbol.dispose]();
  }

  /** Takes down the oldest if there are too many. */
  async makeRoom(): Promise<void> {
    for (;;) {
      const living = [...this.containers].filter(([, addresses]) => addresses !== undefined);
      if (living.length <= LIVING) return;
      await this.detach(living[0]![0]);
    }
  }

  /** Runs GC until it comes through. */
  async collect(): Promise<void> {
    for (;;) {
      const valid = [...this.containers.keys()].map(({ id }) => ({
        containerID: id,
        ifname: "eth0",
      }));
      const conf = { ...this.node.conf(), "cni.dev/valid-attachments": valid };
      const { code, json, wasKilled } = await this.#run(
        "GC",
        "",
        ++this.#collections,
        () => this.node.start("GC", this.node.namespace, { conf }),
      );
      if (code === 0) return;
      assert.ok(wasKilled, json?.msg);
    }
  }
}

function kill(plugin: Deno.ChildProcess): void {
  try {
    plugin.kill("SIGKILL");
  } catch {
    // It was faster.
  }
}

for (const served of [false, true]) {
  const by = served ? `by an agent that is killed ${AGENT_KILLS} times` : "by the plugin itself";
  rootTest(
    `${CONTAINERS} ADDs and DELs ${by}, ${AT_ONCE} at a time, one plugin in ten killed: all is right`,
    async () => {
      using runtime = new Runtime();
      using elsewhere = new ScratchNamespace();
      const { node } = runtime;
      connect(node.namespace, elsewhere);
      if (served) await node.startAgent();
      // A generator, which ends for all if one fails.
      const indices = function* () {
        yield* Array(CONTAINERS).keys();
      }();
      await all(Array.from({ length: AT_ONCE }, async () => {
        for (const index of indices) {
          await runtime.attach(index);
          await runtime.makeRoom();
          if (index % COLLECT_EACH === 0) await runtime.collect();
          if (served && index % Math.floor(CONTAINERS / AGENT_KILLS) === 1) {
            await node.killAgent();
            await node.startAgent();
          }
        }
      }));
      const known = new Set([...runtime.containers.keys()].map(({ id }) => id));
      const ofDeleted = holders(node).filter(([, id]) =>
        !known.has(id) && !runtime.forgotten.has(id)
      );
      assert.deepEqual(ofDeleted, [], "a DEL leaves nothing to GC");
      await runtime.collect();
      console.log(`    ${runtime.killed} of ${runtime.calls} plugins were killed`);
      assert.ok(runtime.killed > runtime.calls / 15, "not enough were killed in time");

      const living = [...runtime.containers].map(([{ id, namespace }, addresses]) => ({
        id,
        namespace,
        addresses: addresses!,
      }));
      assert.deepEqual(
        holders(node),
        living.flatMap(({ id, addresses }) => addresses.map((it) => [it, id, "eth0"])).sort(),
      );
      const ids = living.map(({ id }) => id).sort();
      assert.deepEqual(node.records(), ids);
      assert.deepEqual(
        node.veths().filter((name) => name !== "uplink").sort(),
        ids.map((containerId) => hostInterfaceName({ containerId, ifName: "eth0" })).sort(),
      );
      const locks = Deno.readTextFileSync("/proc/locks");
      for (const path of [`${node.addressDirectory}/lock`, `${node.dataDir}/.lock`]) {
        assert.ok(!locks.includes(`:${Deno.statSync(path).ino} `), path);
      }
      for (const [index, { namespace }] of living.entries()) {
        const neighbour = living[(index + 1) % living.length]!;
        for (const address of neighbour.addresses.map(IpAddress.parse)) {
          assert.ok(answersPing(namespace, address), `${neighbour.id} ${address}`);
          assert.ok(answersPing(elsewhere, address), `${neighbour.id} ${address} from elsewhere`);
        }
        assert.ok(reachesGateways(namespace));
      }
    },
  );
}

/** What the address files say: address, container, interface. */
function holders(node: PluginNode): [string, string, string][] {
  return node.addressFiles().map((name) => {
    const text = Deno.readTextFileSync(`${node.addressDirectory}/${name}`);
    const [id, ifName] = text.split("\r\n");
    return [name, id!, ifName!];
  });
}

/** Joins the node and another one, whose pods' addresses are its own. */
function connect(node: ScratchNamespace, other: ScratchNamespace): void {
  node.ip(`link add name uplink type veth peer name eth0 netns ${other.name}`);
  const half = (namespace: ScratchNamespace, device: string, host: number) => {
    namespace.ip(`addr add 10.231.8.${host}/24 dev ${device}`);
    namespace.ip(`addr add fc00:231:0:8::${host}/64 dev ${device} nodad`);
    namespace.ip(`link set ${device} up`);
  };
  half(node, "uplink", 1);
  half(other, "eth0", 2);
  other.ip("route add 10.231.0.0/16 via 10.231.8.1");
  other.ip("route add fc00:231::/48 via fc00:231:0:8::1");
}
