/** The store on a real kube-apiserver, or on a stand-in if there is none: one table of cases for both. */

import assert from "node:assert/strict";
import { Follower } from "../../../tests/contracts/lease_store.ts";
import { Certificates } from "../../../tests/support/certificates.ts";
import { HttpGate } from "../../../tests/support/http_gate.ts";
import { startKubeServer } from "../../../tests/support/kube_cluster.ts";
import {
  kubeconfigText,
  type KubeServer,
  nodeManifest,
  POD_RULE,
  RULES,
} from "../../../tests/support/kube_server.ts";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { TcpProxy } from "../../../tests/support/tcp_proxy.ts";
import { eventually } from "../../../tests/support/wait.ts";
import {
  Cidr,
  ConfigError,
  type Family,
  IpAddress,
  type Lease,
  leaseHalf,
  LeaseLostError,
  type LeaseRequest,
  MetricsRegistry,
  NO_METRICS,
  requestedLease,
  storeMetrics,
} from "../../mod.ts";
import { AnnotationNames } from "./annotations.ts";
import { KubernetesClient } from "./client.ts";
import { findAccess } from "./find_access.ts";
import { DEFAULT_PREFIX, KubernetesStore, type KubernetesStoreOptions } from "./mod.ts";
import { NodeApi } from "./node_api.ts";
import { OwnNode } from "./own_node.ts";

const IPV4 = '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}';
const DUAL =
  '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan"}}';
const NODES = "/api/v1/nodes";
const CONDITION = "NetworkUnavailable";

/** What a case works with. */
class World implements AsyncDisposable {
  readonly log = new RecordingLog();
  readonly directory = Deno.makeTempDirSync({ prefix: "denim-kubernetes-" });
  readonly #ending = new AbortController();
  readonly signal: AbortSignal = AbortSignal.any([
    this.#ending.signal,
    AbortSignal.timeout(60_000),
  ]);
  readonly #stores: KubernetesStore[] = [];
  readonly #follows: Promise<void>[] = [];
  readonly #gates: HttpGate[] = [];

  constructor(readonly server: KubeServer) {}

  /** A gate before the server. */
  gate(): HttpGate {
    const gate = new HttpGate(this.server.url, this.server.caFile);
    this.#gates.push(gate);
    return gate;
  }

  get tokenFile(): string {
    return `${this.directory}/token`;
  }

  get netConfFile(): string {
    return `${this.directory}/net-conf.json`;
  }

  /** Writes a kubeconfig: of denim with a token, unless its cluster or its user is another. */
  kubeconfig(cluster: Readonly<Record<string, unknown>> = {}, user?: unknown): string {
    const path = `${this.directory}/kubeconfig-${crypto.randomUUID()}`;
    const own = { "server": this.server.url, "certificate-authority": this.server.caFile };
    Deno.writeTextFileSync(
      path,
      kubeconfigText({ ...own, ...cluster }, user ?? { tokenFile: "token" }),
    );
    return path;
  }

  /** Opens a store for a node. */
  async open(
    name: string,
    options: Partial<KubernetesStoreOptions> & {
      readonly netConf?: string;
      readonly cluster?: Readonly<Record<string, unknown>>;
    } = {},
  ): Promise<KubernetesStore> {
    Deno.writeTextFileSync(this.tokenFile, `${await this.server.token()}\n`);
    Deno.writeTextFileSync(this.netConfFile, options.netConf ?? IPV4);
    const store = await KubernetesStore.open({
      kubeconfigFile: this.kubeconfig(options.cluster),
      annotationPrefix: DEFAULT_PREFIX,
      netConfFile: this.netConfFile,
      setNetworkUnavailable: true,
      node: { name },
      log: this.log,
      ...options,
    }, this.signal);
    this.#stores.push(store);
    return store;
  }

  follow(store: KubernetesStore): Follower {
    const follower = new Follower(store, this.signal);
    this.#follows.push(follower.done);
    return follower;
  }

  async make(
    name: string,
    podCIDRs: readonly string[] = [],
    annotations: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    await this.server.admin("POST", NODES, nodeManifest(name, podCIDRs, annotations));
  }

  async annotate(name: string, annotations: Readonly<Record<string, string | null>>) {
    await this.server.admin("PATCH", `${NODES}/${name}`, { metadata: { annotations } });
  }

  async assign(name: string, ...podCIDRs: string[]): Promise<void> {
    await this.server.admin("PATCH", `${NODES}/${name}`, {
      spec: { podCIDR: podCIDRs[0], podCIDRs },
    });
  }

  async remove(name: string): Promise<void> {
    await this.server.admin("DELETE", `${NODES}/${name}`);
  }

  async node(name: string): Promise<Node> {
    return await this.server.admin("GET", `${NODES}/${name}`) as Node;
  }

  async annotations(name: string): Promise<Readonly<Record<string, string>>> {
    const all = (await this.node(name)).metadata.annotations ?? {};
    return Object.fromEntries(
      Object.entries(all).filter(([key]) => key.startsWith(DEFAULT_PREFIX)),
    );
  }

  said(what: RegExp): readonly string[] {
    return this.log.lines.filter((line) => what.test(line));
  }

  async says(what: RegExp): Promise<void> {
    await eventually(
      `the log says ${what}, not only\n${this.log.lines.join("\n")}`,
      () => this.said(what).length > 0,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    for (const store of this.#stores) await store[Symbol.asyncDispose]();
    await Promise.allSettled(this.#follows);
    for (const gate of this.#gates) await gate[Symbol.asyncDispose]();
    const { items } = await this.server.admin("GET", NODES) as { items: Node[] };
    for (const { metadata } of items) await this.remove(metadata.name);
    await this.server.grant(RULES);
    Deno.removeSync(this.directory, { recursive: true });
  }
}

interface Node {
  readonly metadata: {
    readonly name: string;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly managedFields?: readonly { readonly manager: string }[];
  };
  readonly status: { readonly conditions?: readonly Record<string, string>[] };
}

function request(number: number, families: readonly Family[] = [4]): LeaseRequest {
  const data = { VNI: 1, VtepMAC: `02:0a:05:00:00:0${number}` };
  return {
    publicIps: new Map(
      families.map((
        family,
      ) => [family, IpAddress.parse(family === 4 ? `10.99.0.${number}` : `fd99::${number}`)]),
    ),
    previousSubnets: [],
    backendType: "vxlan",
    backendData: new Map(families.map((family) => [family, data])),
  };
}

function flannel(values: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [`${DEFAULT_PREFIX}/${name}`, value]),
  );
}

/** What flanneld writes for a node of vxlan. */
function vxlan(number: number): Readonly<Record<string, string>> {
  return flannel({
    "kube-subnet-manager": "true",
    "backend-type": "vxlan",
    "backend-data": `{"VNI":1,"VtepMAC":"02:0a:05:00:00:0${number % 10}"}`,
    "public-ip": `10.99.0.${number}`,
  });
}

function vxlan6(number: number): Readonly<Record<string, string>> {
  return flannel({
    "kube-subnet-manager": "true",
    "backend-type": "vxlan",
    "backend-v6-data": `{"VNI":1,"VtepMAC":"02:0a:05:00:00:0${number}"}`,
    "public-ipv6": `fd99::${number}`,
  });
}

function publicIp(lease: Lease | undefined, family: Family = 4): string {
  return `${lease && leaseHalf(lease, family)?.publicIp}`;
}

/** Serves one client of an HTTP proxy: a tunnel to where it wants to go. */
async function tunnel(client: Deno.Conn, asked: string[]): Promise<void> {
  const buffer = new Uint8Array(4_096);
  const length = await client.read(buffer);
  const [line] = new TextDecoder().decode(buffer.subarray(0, length ?? 0)).split("\r\n");
  asked.push(line!);
  const [hostname, port] = line!.split(" ")[1]!.split(":");
  const server = await Deno.connect({ hostname: hostname!, port: Number(port) });
  await client.write(new TextEncoder().encode("HTTP/1.1 200 OK\r\n\r\n"));
  await Promise.allSettled([
    client.readable.pipeTo(server.writable),
    server.readable.pipeTo(client.writable),
  ]);
}

const CASES: Readonly<Record<string, (world: World) => Promise<void>>> = {
  "a node's lease is its podCIDR, and its annotations are flannel's": async (world) => {
    await world.make("n1", ["10.5.1.0/24"], { "other.example/kept": "yes" });
    const store = await world.open("n1");
    assert.equal(await store.held(request(1), world.signal), undefined);
    const lease = await store.acquire(request(1), world.signal);
    assert.equal(lease.key, "10.5.1.0-24");
    assert.deepEqual(await world.annotations("n1"), vxlan(1));
    const { metadata } = await world.node("n1");
    assert.equal(metadata.annotations?.["other.example/kept"], "yes");
    assert.equal((await store.held(request(1), world.signal))?.key, "10.5.1.0-24");
    assert.deepEqual(await store.renew(lease, world.signal), lease);
    assert.equal(await store.release("10.5.9.0-24", world.signal), false);
    assert.equal(await store.release("10.5.1.0-24", world.signal), true);
    assert.deepEqual(await world.annotations("n1"), {});
    await assert.rejects(store.renew(lease, world.signal), LeaseLostError);
  },
  "both families, and each of them alone": async (world) => {
    await world.make("n1", ["10.5.1.0/24", "fc00:5:0:1::/64"]);
    const store = await world.open("n1", { netConf: DUAL });
    const lease = await store.acquire(request(1, [4, 6]), world.signal);
    assert.equal(lease.key, "10.5.1.0-24&fc00:5:0:1::-64");
    assert.deepEqual(await world.annotations("n1"), { ...vxlan(1), ...vxlan6(1) });
    Deno.writeTextFileSync(world.netConfFile, IPV4);
    assert.equal((await store.acquire(request(1), world.signal)).key, "10.5.1.0-24");
    assert.deepEqual(await world.annotations("n1"), vxlan(1));
    Deno.writeTextFileSync(
      world.netConfFile,
      '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48"}',
    );
    const alone = await store.acquire(request(1, [6]), world.signal);
    assert.equal(alone.key, "0.0.0.0-0&fc00:5:0:1::-64");
    assert.deepEqual(await world.annotations("n1"), vxlan6(1));
  },
  "what a node tells is an Event of its own, which the others read, until it is over": async (
    world,
  ) => {
    await world.make("n1", ["10.5.1.0/24"]);
    await world.make("n2", ["10.5.2.0/24"]);
    const [store, other] = [await world.open("n1"), await world.open("n2")];
    const notes = async () => Object.fromEntries((await other.notes(world.signal))!);
    const path = "/api/v1/namespaces/default/events/n1.denim";
    const event = async () =>
      await world.server.admin("GET", path) as Readonly<Record<string, unknown>>;
    // Who never told anything writes nothing.
    await store.writeNote("10.5.1.0-24", undefined, world.signal);
    await assert.rejects(event(), /not found/);
    const tell = (text: string) =>
      store.writeNote("10.5.1.0-24", { text, summary: `It says ${text}.` }, world.signal);
    await tell("one");
    await tell("two");
    assert.deepEqual(await notes(), { "10.5.1.0-24": "two" });
    const told = await event();
    const { type, reason, message, count } = told;
    assert.deepEqual([type, reason, message, count], [
      "Warning",
      "PeersInTrouble",
      "It says two.",
      2,
    ]);
    const { metadata } = await world.node("n1") as unknown as { metadata: { uid: string } };
    assert.equal((told.involvedObject as { uid: string }).uid, metadata.uid);
    // Another run of the agent takes it back.
    const again = await world.open("n1");
    await again.writeNote("10.5.1.0-24", undefined, world.signal);
    assert.deepEqual(await notes(), {});
    assert.deepEqual([(await event()).type, (await event()).reason], ["Normal", "PeersAreWell"]);
    // This host's clock and the server's are one.
    const aheadMs = await other.clockAheadMs(world.signal);
    assert.ok(Math.abs(aheadMs!) < 3_000, `${aheadMs}`);
  },
  "the notes of many nodes are read to the last, and none that is over": async (world) => {
    await world.make("n1", ["10.5.1.0/24"]);
    const store = await world.open("n1");
    const keys = Array.from({ length: 401 }, (_, at) => `10.5.${at >> 8}.${at & 255}-32`);
    const waiting = [...keys, "10.5.9.9-32"];
    await Promise.all(Array.from({ length: 8 }, async () => {
      for (let key = waiting.pop(); key !== undefined; key = waiting.pop()) {
        const until = Date.now() + (key === "10.5.9.9-32" ? -1 : 600_000);
        await world.server.admin("POST", "/api/v1/namespaces/default/events", {
          metadata: {
            name: `${key}.denim`,
            annotations: {
              [`${DEFAULT_PREFIX}/denim-note`]: JSON.stringify({ key, until, text: "one" }),
            },
          },
          involvedObject: { kind: "Node", name: key },
          reason: "PeersInTrouble",
        });
      }
    }));
    const notes = await store.notes(world.signal);
    assert.deepEqual([...notes!.keys()].sort(), keys.sort());
  },
  "without the right to write Events a node keeps to itself what it finds, and all else goes on":
    async (
      world,
    ) => {
      await world.make("n1", ["10.5.1.0/24"]);
      const store = await world.open("n1");
      await world.server.grant(RULES.filter(({ resource }) => resource !== "events"));
      assert.equal(await store.notes(world.signal), undefined);
      await store.writeNote("10.5.1.0-24", undefined, world.signal);
      await assert.rejects(
        store.writeNote("10.5.1.0-24", { text: "one", summary: "It says one." }, world.signal),
        /may not patch events: .*resources: \[events\]/,
      );
      assert.equal((await store.acquire(request(1), world.signal)).key, "10.5.1.0-24");
      assert.deepEqual(world.log.events, []);
    },
  "a node, then its podCIDR, is waited for, which is said once": async (world) => {
    const store = await world.open("n1", { netConf: DUAL });
    const acquiring = store.acquire(request(1, [4, 6]), world.signal);
    await world.says(/waiting for node n1/);
    await world.make("n1");
    await world.says(/waiting for a podCIDR for node n1.*--cluster-cidr=10.5.0.0\/16,fc00:5::\/48/);
    for (let i = 0; i < 3; i++) await world.annotate("n1", { "other.example/beat": `${i}` });
    await world.assign("n1", "10.5.1.0/24", "fc00:5:0:1::/64");
    assert.equal((await acquiring).key, "10.5.1.0-24&fc00:5:0:1::-64");
    assert.equal(world.said(/waiting for/).length, 2, world.log.lines.join("\n"));
  },
  "a podCIDR of one family alone carries that family, which is said": async (world) => {
    await world.make("n4", ["10.5.4.0/24"]);
    await world.make("n6", ["fc00:5:0:6::/64"]);
    const four = await world.open("n4", { netConf: DUAL });
    assert.equal((await four.acquire(request(4, [4, 6]), world.signal)).key, "10.5.4.0-24");
    assert.deepEqual(await world.annotations("n4"), vxlan(4));
    await world.says(
      /node n4 goes on with 10.5.4.0\/24 alone: net-conf enables IPv6.*--cluster-cidr/,
    );
    const six = await world.open("n6", { netConf: DUAL });
    const lease = await six.acquire(request(6, [4, 6]), world.signal);
    assert.equal(lease.key, "0.0.0.0-0&fc00:5:0:6::-64");
    assert.deepEqual(await world.annotations("n6"), vxlan6(6));
    const none = await world.open("n6", { netConf: IPV4 });
    await assert.rejects(
      none.acquire(request(6), world.signal),
      /enables IPv4, for which the node has no/,
    );
  },
  "a podCIDR that holds a host's address is refused, unless pods live there": async (world) => {
    await world.make("n1", ["10.5.1.0/24"]);
    const store = await world.open("n1");
    assert.deepEqual(store.servers, []);
    const host = { address: IpAddress.parse("10.5.1.7"), whose: "this node's router" };
    const asked = { ...request(1), hostNetwork: { hosts: [host], links: [] } };
    await assert.rejects(store.acquire(asked, world.signal), {
      name: "ConfigError",
      message:
        /n1: its podCIDR 10.5.1.0\/24 holds 10.5.1.7, the address of this node's router; name a/,
    });
    assert.equal(store.servers.length, 1);
    const previousSubnets = [Cidr.parse("10.5.1.0/24")];
    const { key } = await store.acquire({ ...asked, previousSubnets, only: true }, world.signal);
    assert.equal(key, "10.5.1.0-24");
  },
  "a podCIDR outside the network is refused, in either family": async (world) => {
    await world.make("n1", ["10.9.1.0/24", "fc00:9:0:1::/64"]);
    const store = await world.open("n1");
    const refused = (why: RegExp) => (error: Error) =>
      error instanceof ConfigError && why.test(error.message);
    await assert.rejects(
      store.acquire(request(1), world.signal),
      refused(/n1: its podCIDR 10.9.1.0\/24 is outside net-conf's Network 10.5.0.0\/16/),
    );
    Deno.writeTextFileSync(
      world.netConfFile,
      '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48"}',
    );
    await assert.rejects(
      store.acquire(request(1, [6]), world.signal),
      refused(/podCIDR fc00:9:0:1::\/64 is outside net-conf's IPv6Network/),
    );
    assert.deepEqual(await world.annotations("n1"), {});
  },
  "the watch tells of flannel's nodes as they come, change and go": async (world) => {
    await world.make("n1", ["10.5.1.0/24"], vxlan(1));
    await world.make("plain", ["10.5.7.0/24"]);
    const store = await world.open("n9");
    const follower = world.follow(store);
    await follower.sees("10.5.1.0-24");
    await world.make("n2", ["10.5.2.0/24", "fc00:5:0:2::/64"], { ...vxlan(2), ...vxlan6(2) });
    await follower.sees("10.5.1.0-24", "10.5.2.0-24&fc00:5:0:2::-64");
    await world.make("n3", [], vxlan(3));
    await world.make("n4", ["10.5.4.0/24"]);
    await world.assign("n3", "10.5.3.0/24");
    await follower.sees("10.5.1.0-24", "10.5.2.0-24&fc00:5:0:2::-64", "10.5.3.0-24");
    await world.annotate("n1", flannel({ "public-ip": "10.99.0.77" }));
    await eventually(
      "the change",
      () => publicIp(follower.leases.get("10.5.1.0-24")) === "10.99.0.77",
    );
    await world.annotate("n4", vxlan(4));
    await world.remove("n2");
    await follower.sees("10.5.1.0-24", "10.5.3.0-24", "10.5.4.0-24");
    assert.equal(follower.events.filter(({ kind }) => kind === "snapshot").length, 1);
  },
  "a node that is made again under its name is another": async (world) => {
    await world.make("n1", ["10.5.1.0/24"]);
    await world.make("n2", ["10.5.2.0/24"], vxlan(2));
    const store = await world.open("n1");
    const lease = await store.acquire(request(1), world.signal);
    const follower = world.follow(store);
    await follower.sees("10.5.1.0-24", "10.5.2.0-24");
    await world.remove("n2");
    await world.make("n2", ["10.5.22.0/24"], vxlan(2));
    await follower.sees("10.5.1.0-24", "10.5.22.0-24");
    await world.remove("n1");
    await world.make("n1", ["10.5.11.0/24"]);
    await follower.sees("10.5.22.0-24");
    const again = { ...request(1), previousSubnets: [Cidr.parse("10.5.1.0/24")] };
    await assert.rejects(store.renew(lease, world.signal), LeaseLostError);
    await assert.rejects(
      store.acquire({ ...again, only: true }, world.signal),
      (error: Error) =>
        error instanceof LeaseLostError && /n1 was made again.*10.5.11.0-24/.test(error.message),
    );
    assert.equal((await store.acquire(again, world.signal)).key, "10.5.11.0-24");
    await follower.sees("10.5.11.0-24", "10.5.22.0-24");
  },
  "a node that is made again between the look and the write is not written to": async (world) => {
    await world.make("n1", ["10.5.1.0/24"]);
    const gate = world.gate();
    let patches = 0;
    gate.answer = async ({ method }) => {
      if (method !== "PATCH" || patches++ > 0) return undefined;
      await world.remove("n1");
      await world.make("n1", ["10.5.11.0/24"]);
    };
    const store = await world.open("n1", { cluster: { server: gate.url } });
    assert.equal((await store.acquire(request(1), world.signal)).key, "10.5.11.0-24");
    assert.equal(patches, 2);
    const tooLarge = { ...request(1), backendData: new Map([[4 as Family, "x".repeat(300_000)]]) };
    if (world.server.kind === "kube-apiserver") {
      await assert.rejects(store.acquire(tooLarge, world.signal), /Too long|must have at most/);
    }
  },
  "an overwrite annotation is what others are told, whether a device has it or not": async (
    world,
  ) => {
    await world.make(
      "n1",
      ["10.5.1.0/24", "fc00:5:0:1::/64"],
      flannel({
        "public-ip-overwrite": "203.0.113.1",
        "public-ipv6-overwrite": "2001:db8::1",
        "node-public-ip": "10.99.0.50",
        "node-public-ipv6": "fd99::50",
      }),
    );
    const store = await world.open("n1", { netConf: DUAL });
    assert.deepEqual(
      [...await store.publicIps(world.signal)].map(([family, address]) => `${family} ${address}`),
      ["4 10.99.0.50", "6 fd99::50"],
    );
    const lease = await store.acquire(request(1, [4, 6]), world.signal);
    assert.deepEqual([publicIp(lease), publicIp(lease, 6)], ["203.0.113.1", "2001:db8::1"]);
    const written = await world.annotations("n1");
    assert.equal(written[`${DEFAULT_PREFIX}/public-ip`], "203.0.113.1");
    assert.equal(written[`${DEFAULT_PREFIX}/public-ipv6`], "2001:db8::1");
    const follower = world.follow(store);
    await follower.sees(lease.key);
    const seen = () => publicIp(follower.leases.get(lease.key));
    await world.annotate("n1", flannel({ "public-ip-overwrite": "203.0.113.2" }));
    await eventually("the new one is told", () => seen() === "203.0.113.2");
    await world.annotate("n1", flannel({ "public-ip-overwrite": "nonsense" }));
    await eventually("the node's own is told", () => seen() === "10.99.0.1");
    assert.equal(world.said(/public-ip-overwrite "nonsense" is not an IPv4 address/).length, 1);
  },
  "annotations that somebody else changed are written again": async (world) => {
    await world.make("n1", ["10.5.1.0/24"]);
    const store = await world.open("n1");
    const { key } = await store.acquire(request(1), world.signal);
    const follower = world.follow(store);
    await follower.sees(key);
    const restored = async () => {
      const annotations = await world.annotations("n1");
      return JSON.stringify(Object.entries(annotations).sort()) ===
        JSON.stringify(Object.entries(vxlan(1)).sort());
    };
    const wrong: readonly Record<string, string | null>[] = [
      flannel({ "backend-data": '{"VNI":1,"VtepMAC":"02:ff:ff:ff:ff:ff"}' }),
      flannel({ "backend-data": "{" }),
      { [`${DEFAULT_PREFIX}/kube-subnet-manager`]: null, [`${DEFAULT_PREFIX}/public-ip`]: null },
      flannel({ "backend-v6-data": "null", "public-ipv6": "fd99::1" }),
    ];
    for (const annotations of wrong) {
      await world.annotate("n1", annotations);
      await eventually("they are as they were", restored);
    }
    await world.says(/somebody else changed the annotations .*backend-data of node n1/);
    await follower.sees(key);
  },
  "news from before the node's own write are no stranger's change": async (world) => {
    await world.make("n1", ["10.5.1.0/24"]);
    Deno.writeTextFileSync(world.tokenFile, await world.server.token());
    const access = findAccess({ kubeconfigFile: world.kubeconfig(), environment: () => undefined });
    const { log } = world;
    await using client = new KubernetesClient({
      access,
      log,
      metrics: storeMetrics(NO_METRICS, "kubernetes"),
    });
    const names = new AnnotationNames(DEFAULT_PREFIX);
    const api = new NodeApi(client, names);
    const own = new OwnNode("n1", { api, names, log, closed: client.closed });
    const publish = async (number: number) => {
      const node = (await own.read(world.signal))!;
      const subnets = [Cidr.parse("10.5.1.0/24")];
      await own.publish(requestedLease(request(number), subnets, "never"), node, world.signal);
      return (await own.read(world.signal))!;
    };
    const before = await publish(1);
    const after = await publish(2);
    own.saw(before);
    own.saw(after);
    assert.deepEqual(log.of("annotations-changed"), []);
    own.saw(before);
    assert.equal(log.of("annotations-changed").length, 1);
  },
  "a node whose annotations can't be read is left out, with one warning": async (world) => {
    const bad: Readonly<Record<string, readonly [Readonly<Record<string, string>>, RegExp]>> = {
      b1: [
        { ...vxlan(1), ...flannel({ "public-ip": "10.99.0" }) },
        /public-ip "10.99.0" is not an IPv4/,
      ],
      b2: [{ ...vxlan(1), ...flannel({ "backend-data": "{" }) }, /backend-data "{" is not JSON/],
      b3: [flannel({ "kube-subnet-manager": "true" }), /it has no annotation \S+\/public-ip$/],
      b4: [{ ...vxlan(1), ...flannel({ "public-ip": "fd99::1" }) }, /"fd99::1" is not an IPv4/],
    };
    const store = await world.open("n9");
    const follower = world.follow(store);
    await follower.sees();
    let subnet = 1;
    for (const [name, [annotations, why]] of Object.entries(bad)) {
      await world.make(name, [`10.5.${subnet++}.0/24`], annotations);
      await world.says(why);
      await world.annotate(name, { "other.example/beat": "1" });
    }
    await world.make("n5", ["10.5.5.0/24"], vxlan(5));
    await world.make("twin", ["10.5.5.0/24"], vxlan(6));
    await world.says(/node twin is not followed: it has the podCIDR of node n5/);
    await follower.sees("10.5.5.0-24");
    assert.equal(publicIp(follower.leases.get("10.5.5.0-24")), "10.99.0.5");
    await world.remove("n5");
    await eventually(
      "its twin's",
      () => publicIp(follower.leases.get("10.5.5.0-24")) === "10.99.0.6",
    );
    for (const [, why] of Object.values(bad)) assert.equal(world.said(why).length, 1);
  },
  "each right that is missing is named, and waited for": async (world) => {
    await world.make("n1", ["10.5.1.0/24"]);
    const steps: Readonly<Record<string, (store: KubernetesStore) => Promise<unknown>>> = {
      "list nodes": (store) => store.held(request(1), world.signal),
      "watch nodes": (store) => world.follow(store).sees("10.5.1.0-24"),
      "patch nodes/status": (store) => store.acquire(request(1), world.signal),
      "get pods": () => world.open("", { node: { pod: { namespace: "default", name: "agent" } } }),
    };
    // Events are a right to do without.
    const rules = [...RULES.filter(({ resource }) => resource !== "events"), POD_RULE];
    const rights = rules.flatMap(({ resource, verbs }) =>
      verbs.map((verb) => `${verb} ${resource}`)
    );
    assert.deepEqual(Object.keys(steps), rights, "the manifest's ClusterRole has what is needed");
    await (await world.open("n1")).acquire(request(1), world.signal);
    for (const [right, run] of Object.entries(steps)) {
      await world.annotate("n1", flannel({ "public-ip": "10.99.0.99" }));
      const [verb, resource] = right.split(" ");
      await world.server.grant(rules.map((rule) => ({
        ...rule,
        verbs: rule.verbs.filter((one) => one !== verb || rule.resource !== resource),
      })));
      const store = await world.open("n1");
      let done = false;
      const running = run(store).then(() => done = true);
      if (right === "get pods") running.catch(() => {});
      await world.says(
        new RegExp(
          `\\S*denim may not ${right}: .*needs - {apiGroups: \\[""\\], resources: \\[${resource}\\], verbs: \\[${verb}\\]}`,
        ),
      );
      if (right !== "watch nodes") assert.equal(done, false, right);
      await world.server.grant(rules);
      if (right === "get pods") await assert.rejects(running, /there is no pod default\/agent/);
      else await running;
    }
  },
  "a token that is no longer valid is read again, and a watch outlives it": async (world) => {
    await world.make("n1", ["10.5.1.0/24"], vxlan(1));
    const store = await world.open("n1");
    const follower = world.follow(store);
    await follower.sees("10.5.1.0-24");
    await world.server.revoke();
    const held = store.held(request(1), world.signal);
    await world.says(/it does not know who this is/);
    Deno.writeTextFileSync(world.tokenFile, await world.server.token());
    assert.equal((await held)?.key, "10.5.1.0-24");
    await world.make("n2", ["10.5.2.0/24"], vxlan(2));
    await follower.sees("10.5.1.0-24", "10.5.2.0-24");
    await world.says(/the Kubernetes API server answers, after/);
  },
  "certificates, tokens, plugins, and what fetch can't do": async (world) => {
    await world.make("n1", ["10.5.1.0/24"], vxlan(1));
    const token = await world.server.token();
    const { client } = world.server;
    const credential = { apiVersion: "client.authentication.k8s.io/v1", kind: "ExecCredential" };
    const plugin = (status: unknown) => ({
      exec: {
        apiVersion: credential.apiVersion,
        command: "sh",
        args: ["-c", 'test -n "$KUBERNETES_EXEC_INFO" && printf %s "$CREDENTIAL"'],
        env: [{ name: "CREDENTIAL", value: JSON.stringify({ ...credential, status }) }],
      },
    });
    const pem = (path: string) => btoa(Deno.readTextFileSync(path));
    const port = new URL(world.server.url).port;
    const users: Readonly<Record<string, unknown>> = {
      "token": { token },
      "plugin's token": plugin({ token }),
      ...client && {
        "certificate": { "client-certificate": client.cert, "client-key": client.key },
        "inline certificate": {
          "client-certificate-data": pem(client.cert),
          "client-key-data": pem(client.key),
        },
        "plugin's certificate": plugin({
          clientCertificateData: Deno.readTextFileSync(client.cert),
          clientKeyData: Deno.readTextFileSync(client.key),
        }),
      },
    };
    const clusters: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
      "inline CA": {
        "certificate-authority": undefined,
        "certificate-authority-data": pem(world.server.caFile),
      },
      "name": { server: `https://localhost:${port}` },
      "insecure": { "certificate-authority": undefined, "insecure-skip-tls-verify": true },
      "server name": { "tls-server-name": "kubernetes.test" },
    };
    const works = async (
      what: string,
      cluster: Readonly<Record<string, unknown>>,
      user: unknown,
    ) => {
      const store = await world.open("n1", { kubeconfigFile: world.kubeconfig(cluster, user) });
      const { key } = await store.acquire(request(1), world.signal);
      assert.equal(key, "10.5.1.0-24", what);
      await world.follow(store).sees("10.5.1.0-24");
    };
    for (const [what, user] of Object.entries(users)) await works(what, {}, user);
    for (const [what, cluster] of Object.entries(clusters)) {
      await works(what, cluster, users["token"]);
      if (client !== undefined && what !== "name") {
        await works(what, cluster, users["certificate"]);
      }
    }
    assert.deepEqual(world.said(/^(warn|error)/), []);
    const waits = async (cluster: Readonly<Record<string, unknown>>, why: RegExp) => {
      const store = await world.open("n1", {
        kubeconfigFile: world.kubeconfig(cluster, { token }),
      });
      const ending = new AbortController();
      const held = store.held(request(1), ending.signal);
      await world.says(why);
      ending.abort();
      await assert.rejects(held, { name: "AbortError" });
    };
    using strangers = new Certificates();
    const stranger = strangers.authority("stranger").cert;
    await waits({ "certificate-authority": stranger }, /signed by none of the CAs/);
    await waits({ "tls-server-name": "other.test" }, /for another name/);
    await waits({ "certificate-authority": undefined }, /signed by none of the CAs/);
  },
  "a proxy is gone through, for the watch too": async (world) => {
    await world.make("n1", ["10.5.1.0/24"], vxlan(1));
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const asked: string[] = [];
    const serving = (async () => {
      for await (const client of listener) void tunnel(client, asked);
    })();
    const { port } = listener.addr as Deno.NetAddr;
    const store = await world.open("n1", {
      cluster: { "proxy-url": `http://127.0.0.1:${port}` },
    });
    const follower = world.follow(store);
    await follower.sees("10.5.1.0-24");
    await world.make("n2", ["10.5.2.0/24"], vxlan(2));
    await follower.sees("10.5.1.0-24", "10.5.2.0-24");
    assert.match(asked[0]!, /^CONNECT 127.0.0.1:\d+ HTTP/);
    await store[Symbol.asyncDispose]();
    listener.close();
    await serving.catch(() => {});
  },
  "a pod finds its server, its token and its node": async (world) => {
    await world.make("n1", ["10.5.1.0/24"], vxlan(1));
    const directory = `${world.directory}/serviceaccount`;
    Deno.mkdirSync(directory);
    Deno.copyFileSync(world.server.caFile, `${directory}/ca.crt`);
    Deno.writeTextFileSync(`${directory}/token`, await world.server.token());
    const { hostname, port } = new URL(world.server.url);
    const environment: Readonly<Record<string, string>> = {
      KUBERNETES_SERVICE_HOST: hostname,
      KUBERNETES_SERVICE_PORT: port,
    };
    await world.server.grant([...RULES, POD_RULE]);
    await world.server.admin("POST", "/api/v1/namespaces/default/pods", {
      metadata: { name: "agent" },
      spec: {
        nodeName: "n1",
        containers: [{ name: "a", image: "a" }],
        automountServiceAccountToken: false,
      },
    });
    try {
      const store = await world.open("", {
        kubeconfigFile: undefined,
        environment: (name) => environment[name],
        serviceAccountDirectory: directory,
        node: { pod: { namespace: "default", name: "agent" } },
      });
      assert.equal((await store.held(request(1), world.signal))?.key, "10.5.1.0-24");
      assert.match(store.description, /^kubernetes: node n1, service account/);
    } finally {
      await world.server.admin(
        "DELETE",
        "/api/v1/namespaces/default/pods/agent?gracePeriodSeconds=0",
      );
    }
  },
  "the condition NetworkUnavailable is set, and what it was before is kept": async (world) => {
    await world.make("n1", ["10.5.1.0/24"]);
    const ready = { type: "Ready", status: "True", reason: "KubeletReady", message: "m" };
    await world.server.admin("PATCH", `${NODES}/n1/status`, { status: { conditions: [ready] } });
    const store = await world.open("n1");
    const conditions = async () => {
      const { status } = await world.node("n1");
      return (status.conditions ?? []).toSorted((a, b) => a["type"]! < b["type"]! ? -1 : 1);
    };
    await store.setNetworkUnavailable(false, world.signal);
    const [network, other, ...more] = await conditions();
    assert.deepEqual(more, []);
    assert.equal(other?.["reason"], "KubeletReady");
    const { lastHeartbeatTime, lastTransitionTime, ...rest } = network!;
    assert.deepEqual(rest, {
      type: CONDITION,
      status: "False",
      reason: "FlannelIsUp",
      message: "Flannel is running on this node",
    });
    assert.ok(Date.parse(lastHeartbeatTime!) === Date.parse(lastTransitionTime!));
    await store.setNetworkUnavailable(false, world.signal);
    assert.deepEqual((await conditions())[0], network);
    await store.setNetworkUnavailable(true, world.signal);
    assert.equal((await conditions())[0]?.["status"], "True");
    const silent = await world.open("n1", { setNetworkUnavailable: false });
    await silent.setNetworkUnavailable(false, world.signal);
    assert.equal((await conditions())[0]?.["status"], "True");
  },
  "what a server that is busy asks for is waited": async (world) => {
    await world.make("n1", ["10.5.1.0/24"], vxlan(1));
    const gate = world.gate();
    const store = await world.open("n1", { cluster: { server: gate.url } });
    const { key } = (await store.held(request(1), world.signal))!;
    const follower = world.follow(store);
    await follower.sees(key);
    for (const status of [429, 503]) {
      let refused = 0;
      gate.answer = ({ url }) => {
        if (refused > 0 || !url.includes("fieldSelector")) return undefined;
        refused++;
        return new Response("Too many requests, please try again later.\n", {
          status,
          headers: { "retry-after": "1" },
        });
      };
      const startMs = performance.now();
      assert.equal((await store.held(request(1), world.signal))?.key, key);
      assert.ok(performance.now() - startMs >= 1_000);
      assert.equal(refused, 1);
    }
    await world.says(/waiting for the Kubernetes API server: Too many requests, please try/);
  },
  "a node's podCIDR is read once, and many unknown ones with one list": async (world) => {
    const gate = world.gate();
    await world.make("n1", ["10.5.1.0/24"], vxlan(1));
    const store = await world.open("n1", { cluster: { server: gate.url } });
    await world.follow(store).sees("10.5.1.0-24");
    const reads = () => gate.requests.filter((request) => request.includes("metadata.name")).length;
    const before = reads();
    await world.make("n2", ["10.5.2.0/24"], vxlan(2));
    const again = world.follow(store);
    await again.sees("10.5.1.0-24", "10.5.2.0-24");
    for (let i = 0; i < 5; i++) await world.annotate("n2", { "other.example/beat": `${i}` });
    await world.annotate("n2", flannel({ "public-ip": "10.99.0.200" }));
    await eventually(
      "the change",
      () => publicIp(again.leases.get("10.5.2.0-24")) === "10.99.0.200",
    );
    // By each of the two watches at most.
    assert.ok(reads() - before <= 2, gate.requests.join("\n"));
    const names = Array.from({ length: 60 }, (_, index) => `m${index}`);
    await Promise.all(names.map((name, index) => world.make(name, [], vxlan(index + 10))));
    await Promise.all(names.map((name, index) => world.assign(name, `10.5.${index + 100}.0/24`)));
    const keys = names.map((_, index) => `10.5.${index + 100}.0-24`);
    await again.sees("10.5.1.0-24", "10.5.2.0-24", ...keys);
  },
  "a list that is outlived between its pages, and a state that the server has not, are asked for again":
    async (
      world,
    ) => {
      const names = Array.from({ length: 101 }, (_, index) => `m${index}`);
      await Promise.all(
        names.map((name, index) => world.make(name, [`10.5.${index}.0/24`], vxlan(index))),
      );
      const gate = world.gate();
      const refused = new Set<number>();
      const refuse = (code: number, message: string) => {
        if (refused.has(code)) return undefined;
        refused.add(code);
        return Response.json({ kind: "Status", message, code }, { status: code });
      };
      gate.answer = ({ url }) =>
        /[?&]continue=[^&]/.test(url)
          ? refuse(410, "The provided continue parameter is too old")
          : url.includes("NotOlderThan")
          ? refuse(504, "Timeout: Too large resource version: 9, current: 8")
          : undefined;
      const store = await world.open("n1", { cluster: { server: gate.url } });
      const follower = world.follow(store);
      const keys = names.map((_, index) => `10.5.${index}.0-24`);
      await follower.sees(...keys);
      await world.make("n1", ["10.5.200.0/24"], vxlan(200));
      await follower.sees(...keys, "10.5.200.0-24");
      assert.deepEqual([...refused], [410, 504]);
      assert.deepEqual(world.log.of("watch-restarted"), []);
      assert.deepEqual(world.said(/^(warn|error)/), []);
    },
  "a connection that falls silent is given up within 10 s": async (world) => {
    await world.make("n1", ["10.5.1.0/24"], vxlan(1));
    using proxy = new TcpProxy(world.server.url);
    const store = await world.open("n1", {
      cluster: { server: proxy.url.replace("http:", "https:") },
    });
    const follower = world.follow(store);
    await follower.sees("10.5.1.0-24");
    // While nothing happens the server is asked whether it is there: over the connection that the watch has.
    const { made } = proxy;
    let [octets, atMs, questions] = [proxy.received, performance.now(), 0];
    await eventually("it is asked twice", () => {
      if (proxy.received === octets) return questions === 2;
      if (performance.now() - atMs > 2_000) questions++;
      [octets, atMs] = [proxy.received, performance.now()];
      return false;
    }, 30_000);
    assert.equal(proxy.made, made);
    proxy.silence();
    const startMs = performance.now();
    await world.make("n2", ["10.5.2.0/24"], vxlan(2));
    const held = store.held(request(1), world.signal);
    await eventually("it is noticed", () => world.said(/it has fallen silent/).length > 0, 20_000);
    const noticedMs = performance.now() - startMs;
    proxy.mend();
    await follower.sees("10.5.1.0-24", "10.5.2.0-24");
    assert.equal((await held)?.key, "10.5.1.0-24");
    assert.equal(follower.events.filter(({ kind }) => kind === "snapshot").length, 1);
    console.log(
      `${world.server.kind}: a silent connection noticed after ${noticedMs.toFixed(0)} ms`,
    );
  },
  "of several servers behind one name one that answers is found": async (world) => {
    await world.make("n1", ["10.5.1.0/24"], vxlan(1));
    const port = Number(new URL(world.server.url).port);
    // Takes connections and never says a word.
    using dead = Deno.listen({ hostname: "127.0.0.2", port });
    const held: Deno.Conn[] = [];
    const taking = (async () => {
      for await (const connection of dead) held.push(connection);
    })();
    // Each time it asks: the one that is silent, then one that refuses, or not.
    let asked = 0;
    const addresses = () => asked++ === 0 ? ["127.0.0.2", "127.0.0.2"] : ["127.0.0.3", "127.0.0.1"];
    const store = await world.open("n1", {
      cluster: { server: `https://kubernetes.test:${port}` },
      resolve: (host) => Promise.resolve(host === "kubernetes.test" ? addresses() : []),
    });
    assert.equal((await store.held(request(1), world.signal))?.key, "10.5.1.0-24");
    dead.close();
    await taking.catch(() => {});
    for (const connection of held) connection.close();
  },
  "a server that was away, and lost its history, is followed on": async (world) => {
    await world.make("n1", ["10.5.1.0/24"]);
    await world.make("n2", ["10.5.2.0/24"], vxlan(2));
    await world.make("n3", ["10.5.3.0/24"], vxlan(3));
    using proxy = new TcpProxy(world.server.url);
    const metrics = new MetricsRegistry();
    const store = await world.open("n1", {
      cluster: { server: proxy.url.replace("http:", "https:") },
      metrics,
    });
    await store.acquire(request(1), world.signal);
    const follower = world.follow(store);
    await follower.sees("10.5.1.0-24", "10.5.2.0-24", "10.5.3.0-24");
    proxy.cut();
    await world.server.stop();
    await world.says(/waiting for the Kubernetes API server: https:\/\/127.0.0.1:\d+: /);
    await world.server.start();
    await world.remove("n2");
    await world.remove("n3");
    await world.make("n3", ["10.5.33.0/24"], vxlan(3));
    await world.make("n4", ["10.5.4.0/24"], vxlan(4));
    proxy.mend();
    await follower.sees("10.5.1.0-24", "10.5.33.0-24", "10.5.4.0-24");
    assert.equal(follower.events.filter(({ kind }) => kind === "snapshot").length, 2);
    await world.says(/the Kubernetes API server answers, after/);
    const counted = (what: string) =>
      metrics.value(`denim_store_${what}_total`, { store: "kubernetes" })!;
    assert.equal(counted("outages"), 1);
    assert.ok(counted("failures") > 0 && counted("requests") > counted("failures"));
    assert.ok(counted("watch_restarts") > 0);
    await store[Symbol.asyncDispose]();
  },
};

Deno.test("kubernetes", async (test) => {
  await using server = await startKubeServer();
  await server.grant(RULES);
  for (const [what, run] of Object.entries(CASES)) {
    await test.step(`${server.kind}: ${what}`, async () => {
      await using world = new World(server);
      await run(world);
    });
  }
});
