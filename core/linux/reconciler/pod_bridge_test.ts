import assert from "node:assert/strict";
import { rootTest } from "../../../tests/support/root_test.ts";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import type { KernelState, PodGateway, PodNetwork } from "../../kernel_state.ts";
import type { AddressState } from "../objects/address.ts";
import type { LinkState } from "../objects/link.ts";
import { NO_GATEWAY_ALIAS } from "../objects/pod_link.ts";
import { choosePodBridge } from "./pod_bridge.ts";
import { Reconciler } from "./reconciler.ts";
import { readSysctl, writeSysctl } from "../sys/sysctl.ts";

const NETWORKS: readonly PodNetwork[] = [
  { network: Cidr.parse("10.5.0.0/16"), subnetLength: 24 },
  { network: Cidr.parse("fc00:5::/48"), subnetLength: 64 },
];
const GATEWAYS: readonly PodGateway[] = [
  { kind: "podGateway", address: IpAddress.parse("10.5.3.1"), prefixLength: 24 },
  { kind: "podGateway", address: IpAddress.parse("fc00:5:0:3::1"), prefixLength: 64 },
];

/** Devices as `name: addresses`, or `name (kind): addresses`; bridges with a port unless they say "empty"; `!` marks one. */
function devices(texts: readonly string[]): { links: LinkState[]; addresses: AddressState[] } {
  const links: Partial<LinkState>[] = [], addresses: Partial<AddressState>[] = [];
  texts.forEach((text, place) => {
    const [, name, mark, kind = "bridge", rest] = /^(\S+?)(!)?(?: \((\w+)\))?: ?(.*)$/.exec(text)!;
    const index = place + 1;
    const alias = mark === undefined ? "" : NO_GATEWAY_ALIAS;
    links.push({ index, name: name!, type: kind === "empty" ? "bridge" : kind, alias });
    if (kind === "bridge") links.push({ index: 100 + index, masterIndex: index, type: "veth" });
    for (const address of rest!.split(" ").filter(Boolean)) {
      addresses.push({ index, scope: 0, address: IpAddress.parse(address) });
    }
  });
  return { links: links as LinkState[], addresses: addresses as AddressState[] };
}

Deno.test("choosePodBridge() tells the pod bridge from others", async (t) => {
  for (
    const [there, before, expected] of [
      [["cni0: 10.5.3.1"], "", "cni0"],
      [["docker0: 172.17.0.1", "pods0: fc00:5:0:3::1"], "", "pods0"],
      [["pods0: 10.5.3.1", "cni0: 10.5.3.1"], "", "cni0"],
      [["eth0 (veth): 10.5.3.1"], "", "none"],
      // Docker's, with flanneld's options.
      [["docker0: 10.5.3.1"], "", "none"],
      // An earlier lease's, or none at all while pods are on it.
      [["cni0: 10.5.9.1"], "", "cni0, assumed"],
      [["cni0:"], "", "cni0, assumed"],
      [["cni0 (empty):"], "", "none"],
      [["cni0 (empty): 10.5.9.1"], "", "cni0, assumed"],
      // Another cluster's, an operator's, or no bridge.
      [["cni0: 10.6.3.1"], "", "none"],
      [["cni0: 10.5.9.1 192.168.1.1"], "", "none"],
      [["cni0 (dummy): 10.5.9.1"], "", "none"],
      [["pods0: 10.5.9.1"], "", "none"],
      // One that the plugin has marked, however well it is known.
      [["cni0!:"], "", "none"],
      [["cni0!: 10.5.3.1"], "", "none"],
      [["cni0!: 10.5.3.1"], "cni0", "none"],
      [["cni0!: 10.5.3.1", "pods0: 10.5.3.1"], "cni0, assumed", "pods0"],
      // Once seen, whatever happens to it.
      [["pods0:", "cni0: 10.5.3.1"], "pods0", "pods0"],
      [["cni0: 192.168.1.1"], "cni0", "cni0"],
      [["cni0 (empty):"], "pods0", "none"],
      // What was only assumed gives way.
      [["cni0: 10.5.3.1", "pods0: 10.5.3.1"], "cni0, assumed", "pods0"],
      [["cni0: 10.5.3.1", "pods0:"], "cni0, assumed", "cni0, assumed"],
      [["cni0: 10.5.3.1 10.6.3.1"], "cni0, assumed", "none"],
    ] as const
  ) {
    await t.step(`${there.join(", ")}; before: ${before || "none"}`, () => {
      const { links, addresses } = devices(there);
      const [name, assumed] = before.split(", ");
      const link = links.find((it) => it.name === name) ?? { index: 99 } as LinkState;
      const known = before === "" ? undefined : { link, assumed: assumed !== undefined };
      const chosen = choosePodBridge(links, addresses, GATEWAYS, NETWORKS, known);
      const text = chosen && chosen.link.name + (chosen.assumed ? ", assumed" : "");
      assert.equal(text ?? "none", expected);
    });
  }
  assert.equal(choosePodBridge([], [], [], NETWORKS, undefined), undefined);
});

/** A namespace with a reconciler that runs in it. */
class BridgedNode implements AsyncDisposable {
  readonly ns = new ScratchNamespace();
  readonly log = new RecordingLog();
  readonly reconciler: Reconciler;
  readonly #stop = new AbortController();
  #running = Promise.resolve();

  constructor() {
    this.reconciler = this.ns.run(() => new Reconciler({ log: this.log }));
    this.reconciler.networks = NETWORKS;
  }

  start(state: KernelState = GATEWAYS): void {
    this.reconciler.set("host", state);
    assert.deepEqual(this.reconciler.check().failures, []);
    this.#running = this.reconciler.run(this.#stop.signal);
  }

  run(commands: string): void {
    for (const command of commands.split("; ")) this.ns.ip(command);
  }

  /** As the CNI plugin makes it, with a pod. */
  makeBridge(name = "cni0", addresses = ["10.5.3.1/24", "fc00:5:0:3::1/64"]): void {
    this.run(`link add ${name} type bridge; link set ${name} up`);
    for (const address of addresses) this.ns.ip(`addr add ${address} dev ${name}`);
    this.run(`link add p-${name} type veth peer name q-${name}; link set p-${name} master ${name}`);
    this.run(`link set p-${name} up; link set q-${name} up`);
  }

  addresses(name = "cni0"): string {
    // deno-lint-ignore no-explicit-any -- iproute2's JSON
    return this.ns.ipJson(`addr show dev ${name} scope global`).flatMap(({ addr_info }: any) =>
      // deno-lint-ignore no-explicit-any -- iproute2's JSON
      (addr_info as any[]).filter(({ local }) => local).map(({ local, prefixlen }) =>
        `${local}/${prefixlen}`
      )
    ).toSorted().join(" ");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
    this.reconciler[Symbol.dispose]();
    this.ns[Symbol.dispose]();
  }
}

const RIGHT = "10.5.3.1/24 fc00:5:0:3::1/64";

rootTest("the pod bridge is kept up, forwarding, and with its addresses", async (t) => {
  await using node = new BridgedNode();
  const { ns } = node;
  node.start();
  node.makeBridge();
  const isUp = () => ns.ipJson("link show cni0")[0].flags.includes("UP");
  for (
    const fault of [
      "addr del 10.5.3.1/24 dev cni0",
      "addr del fc00:5:0:3::1/64 dev cni0",
      "addr flush dev cni0",
      "link set cni0 down",
      "addr flush dev cni0; link set cni0 down",
      "addr add 10.5.9.1/24 dev cni0",
      "addr add fc00:5:0:9::1/64 dev cni0",
      "addr del 10.5.3.1/24 dev cni0; addr add 10.5.3.1/16 dev cni0",
      "addr del fc00:5:0:3::1/64 dev cni0; addr add fc00:5:0:3::1/48 dev cni0",
      // The first of its network: the kernel takes the others away with it.
      "addr del 10.5.3.1/24 dev cni0; addr add 10.5.3.9/24 dev cni0; addr add 10.5.3.1/24 dev cni0",
    ]
  ) {
    await t.step(fault, async () => {
      node.run(fault);
      await eventually("the repair", () => node.addresses() === RIGHT && isUp(), 1000);
      // It stays so.
      assert.equal(node.reconciler.check().changes, 0);
      assert.equal(node.addresses(), RIGHT);
    });
  }
  await t.step("forwarding", async () => {
    const forwarding = "net/ipv4/conf/cni0/forwarding";
    ns.run(() => writeSysctl(forwarding, "0"));
    await eventually("the repair", () => ns.run(() => readSysctl(forwarding)) === "1", 1000);
  });
  await t.step("an operator's address stays", async () => {
    node.run("addr flush dev cni0; addr add 192.168.7.1/24 dev cni0");
    const all = `10.5.3.1/24 192.168.7.1/24 fc00:5:0:3::1/64`;
    await eventually("the repair", () => node.addresses() === all, 1000);
    assert.equal(node.reconciler.check().changes, 0);
    assert.equal(node.addresses(), all);
    ns.ip("addr del 192.168.7.1/24 dev cni0");
  });
  await t.step("another name", async () => {
    node.run("link set cni0 down; link set cni0 name pods0; addr flush dev pods0");
    await eventually("the repair", () => node.addresses("pods0") === RIGHT, 1000);
  });
  await t.step("it goes, and comes again", async () => {
    node.run("link del pods0; link del p-cni0");
    assert.deepEqual(node.reconciler.check().failures, []);
    node.makeBridge();
    ns.ip("addr flush dev cni0");
    await eventually("the repair", () => node.addresses() === RIGHT, 1000);
  });
  assert.deepEqual(node.log.events.filter((event) => event !== "warn drift-repaired"), []);
});

rootTest("a bridge that an earlier run left gets this run's addresses, others' none", async (t) => {
  for (
    const [name, there, expected] of [
      ["cni0", ["10.5.9.1/24", "fc00:5:0:9::1/64"], RIGHT],
      ["cni0", [], RIGHT],
      ["pods0", ["10.5.3.1/24", "10.5.9.1/24"], RIGHT],
      ["cni0", ["10.6.3.1/24"], "10.6.3.1/24"],
      ["docker0", [], ""],
    ] as const
  ) {
    await t.step(`${name}: ${there.join(" ") || "nothing"}`, async () => {
      await using node = new BridgedNode();
      node.makeBridge(name, [...there]);
      node.start();
      assert.equal(node.addresses(name), expected);
    });
  }
});

rootTest("a bridge that was only assumed to be the pods' gives way to the true one", async () => {
  await using node = new BridgedNode();
  node.makeBridge("cni0", ["10.5.9.1/24"]);
  node.start();
  assert.equal(node.addresses("cni0"), RIGHT);
  node.makeBridge("pods0");
  await eventually("the change", () => node.addresses("cni0") === "", 1000);
  assert.equal(node.addresses("pods0"), RIGHT);
});

rootTest("a bridge that is only just being made is left to who makes it", async () => {
  await using node = new BridgedNode();
  node.start();
  node.run("link add cni0 type bridge; link set cni0 up");
  assert.equal(node.reconciler.check().changes, 0);
  assert.equal(node.addresses(), "");
  // A pod on it: its maker is done with it.
  node.run("link add p type veth peer name q; link set p master cni0");
  await eventually("its addresses", () => node.addresses() === RIGHT, 1000);
});

rootTest("a bridge that comes with an earlier lease's address loses it", async () => {
  await using node = new BridgedNode();
  node.start();
  node.makeBridge("cni0", ["10.5.9.1/24"]);
  await eventually("its addresses", () => node.addresses() === RIGHT, 1000);
});
