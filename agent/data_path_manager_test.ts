import { ConfigError, type Family, IpAddress, parseLease, RuntimeError } from "@denim/core";
import assert from "node:assert/strict";
import { settled } from "../tests/support/fake_clock.ts";
import { FakeNode, lease, netConf, outerInterface, OWN } from "../tests/support/fake_data_paths.ts";
import { HOLD_MS } from "./data_paths.ts";
import { HEARD_MS, RETIRE_LOOK_MS, RETIRE_PATIENCE_MS } from "./data_path_manager.ts";

/** Two other nodes, which run `a`. */
const BOTH = [lease(1, "a"), lease(2, "a")];

function nodeTest(name: string, body: (node: FakeNode) => Promise<void>): void {
  Deno.test(`data paths: ${name}`, async () => {
    await using node = new FakeNode();
    node.leases = BOTH;
    await body(node);
  });
}

nodeTest("the new one is built, then reaches peers, and only then is published", async (node) => {
  const paths = await node.start(netConf("a"));
  assert.equal(node.kernel.view, "10.5.1.0→a 10.5.2.0→a a");
  const store = Promise.withResolvers<void>();
  node.store = store.promise;
  node.leases = [lease(1, "b"), lease(2, "a")];
  await paths.changeTo(netConf("b"));
  assert.deepEqual(node.story, ["devices b a"], "the change does not wait for the store");
  store.resolve();
  await settled();
  assert.deepEqual(node.story.slice(1), ["leases read", "published b"]);
  assert.equal(node.kernel.view, "10.5.1.0→b 10.5.2.0→a a b");
  assert.deepEqual(node.backends.b.sessions[0]!.told, ["+10.5.1.0-24"]);
  assert.deepEqual(node.complaints, []);
});

nodeTest(
  "two with one route for the whole network: former peers get routes of their own",
  async (node) => {
    const { a, b } = node.backends;
    a.routesNetwork = b.routesNetwork = true;
    const paths = await node.start(netConf("a"));
    assert.equal(node.kernel.view, "10.5.0.0→a a");
    // Even one that can't be had does not cost the one before its route.
    node.kernel.refuses = (object) =>
      object.kind === "link" && object.name === "b" ? "no b" : undefined;
    await assert.rejects(paths.changeTo(netConf("b")), /no b/);
    assert.equal(node.kernel.view, "10.5.0.0→a a");
    node.kernel.refuses = () => undefined;
    node.leases = [lease(1, "b"), lease(2, "a")];
    const store = Promise.withResolvers<void>();
    node.store = store.promise;
    await paths.changeTo(netConf("b"));
    assert.equal(node.kernel.view, "10.5.0.0→b 10.5.1.0→a 10.5.2.0→a a b");
    store.resolve();
    await settled();
    assert.equal(node.kernel.view, "10.5.0.0→b 10.5.2.0→a a b");
    // And back, while the former one is still there.
    await paths.changeTo(netConf("a"));
    await settled();
    assert.equal(node.kernel.view, "10.5.0.0→a 10.5.1.0→b a b");
    node.leases = BOTH;
    paths.apply(node.snapshot);
    assert.equal(node.kernel.view, "10.5.0.0→a a b");
  },
);

nodeTest("a build that fails leaves nothing, and changes nothing", async (node) => {
  const { a, b } = node.backends;
  const paths = await node.start(netConf("a"));
  const { view } = node.kernel;
  b.beforeOpen = () => Promise.reject(new RuntimeError("port taken"));
  await assert.rejects(paths.changeTo(netConf("b")), /port taken/);
  b.beforeOpen = () => {};
  node.kernel.refuses = (object) =>
    object.kind === "link" && object.name === "b" ? "no b" : undefined;
  await assert.rejects(paths.changeTo(netConf("b")), /^RuntimeError: no b$/);
  await assert.rejects(paths.changeTo(netConf("nil")), ConfigError);
  await assert.rejects(paths.changeTo(netConf("b", "", "10.6.0.0/16")), /does not fit it; drain/);
  await settled();
  assert.equal(node.kernel.view, view);
  assert.deepEqual([a.atWork, b.atWork], [["a@eth0"], []]);
  assert.deepEqual([paths.current.backend.type, paths.all.length], ["a", 1]);
  assert.deepEqual(node.story, []);
  assert.equal(node.metrics.value("denim_data_path_changes_total", { result: "failed" }), 4);
  assert.equal(node.metrics.value("denim_data_path_changes_total", { result: "done" }), 0);
});

nodeTest("what fails already is not the new one's fault", async (node) => {
  const paths = await node.start(netConf("a"));
  node.kernel.refuses = (object) =>
    object.kind === "link" && object.name === "a" ? "no a" : undefined;
  await paths.changeTo(netConf("b"));
  assert.equal(paths.current.backend.type, "b");
});

nodeTest("one that takes another's place has it make room if it must", async (node) => {
  const { a } = node.backends;
  const paths = await node.start(netConf("a"));
  a.beforeOpen = () => {
    if (a.atWork.length > 0) throw new RuntimeError("port taken");
  };
  await paths.changeTo(netConf("a", "2"));
  await settled();
  assert.deepEqual(a.atWork, ["a2@eth0"]);
  assert.equal(node.kernel.view, "10.5.1.0→a2 10.5.2.0→a2 a2");
  assert.deepEqual(node.story, ["devices a2", "published a", "leases read"]);
  assert.deepEqual([paths.all.length, node.log.of("data-path-changed").length], [1, 1]);
});

nodeTest(
  "the device of one that is replaced stays until its peers are the next one's",
  async (node) => {
    const paths = await node.start(netConf("a"));
    const store = Promise.withResolvers<void>();
    node.store = store.promise;
    await paths.changeTo(netConf("a", "2"));
    assert.equal(node.kernel.view, "10.5.1.0→a 10.5.2.0→a a a2");
    store.resolve();
    await settled();
    assert.equal(node.kernel.view, "10.5.1.0→a2 10.5.2.0→a2 a2");
  },
);

nodeTest("a replacement that fails twice: the one before is built again", async (node) => {
  const { a } = node.backends;
  const paths = await node.start(netConf("a"));
  const tried: string[] = [];
  a.beforeOpen = (option) => {
    tried.push(option);
    if (option === "2") throw new RuntimeError("port taken");
  };
  await assert.rejects(paths.changeTo(netConf("a", "2")), /port taken/);
  assert.deepEqual([tried, a.atWork, paths.current.closed], [["2", "2"], [], true]);
  // A peer that comes meanwhile is not forgotten.
  node.leases = [...BOTH, lease(3, "a")];
  paths.apply({ kind: "changes", put: [lease(3, "a")], removed: [] });
  await paths.changeTo(paths.config);
  await settled();
  assert.deepEqual([tried, a.atWork, paths.current.closed], [["2", "2", ""], ["a@eth0"], false]);
  assert.equal(node.kernel.view, "10.5.1.0→a 10.5.2.0→a 10.5.3.0→a a");
  assert.deepEqual(a.sessions.at(-1)!.told, ["+10.5.1.0-24", "+10.5.2.0-24", "+10.5.3.0-24"]);
  assert.equal(paths.all.length, 1);
});

nodeTest("wrong options cost the one before nothing", async (node) => {
  const { a } = node.backends;
  const paths = await node.start(netConf("a"));
  a.beforeOpen = () => Promise.reject(new ConfigError("an MTU too small"));
  await assert.rejects(paths.changeTo(netConf("a", "2")), /too small/);
  assert.deepEqual(a.atWork, ["a@eth0"]);
});

nodeTest("a defect is not tried again, and the one before goes on", async (node) => {
  const { a } = node.backends;
  const paths = await node.start(netConf("a"));
  let tries = 0;
  a.beforeOpen = () => {
    tries++;
    throw new TypeError("undefined is not a function");
  };
  await assert.rejects(paths.changeTo(netConf("a", "2")), TypeError);
  assert.deepEqual([tries, a.atWork, node.kernel.view], [1, ["a@eth0"], "10.5.1.0→a 10.5.2.0→a a"]);
});

nodeTest("a former one retires after two looks at which it had no peer", async (node) => {
  const { a } = node.backends;
  const paths = await node.start(netConf("a"));
  await paths.changeTo(netConf("b"));
  await node.clock.advance(10 * RETIRE_LOOK_MS);
  assert.deepEqual(a.atWork, ["a@eth0"], "it has peers");
  const put = (...leases: readonly ReturnType<typeof lease>[]) =>
    paths.apply({ kind: "changes", put: leases, removed: [] });
  put(lease(1, "b"), lease(2, "b"));
  await node.clock.advance(RETIRE_LOOK_MS);
  put(lease(2, "a"));
  await node.clock.advance(RETIRE_LOOK_MS);
  put(lease(2, "b"));
  await node.clock.advance(RETIRE_LOOK_MS);
  assert.deepEqual(a.atWork, ["a@eth0"], "quiet for one look, then not, then one again");
  await node.clock.advance(RETIRE_LOOK_MS);
  assert.deepEqual([a.atWork, node.log.of("data-path-retired").length], [[], 1]);
  assert.equal(node.kernel.view, "10.5.1.0→b 10.5.2.0→b b");
  assert.deepEqual([paths.all.length, node.clock.sleepers], [1, 0]);
  assert.equal(node.story.at(-1), "devices b");
});

nodeTest("a former one with peers retires when its patience is over", async (node) => {
  const paths = await node.start(netConf("a"));
  await paths.changeTo(netConf("b"));
  await node.clock.advance(RETIRE_PATIENCE_MS - 1);
  assert.equal(node.kernel.view, "10.5.1.0→a 10.5.2.0→a a b");
  assert.equal(node.metrics.value("denim_peers", { state: "former" }), 2);
  await node.clock.advance(RETIRE_LOOK_MS);
  assert.equal(node.kernel.view, "b");
  assert.deepEqual(node.backends.a.atWork, []);
  const peers = ["current", "former", "refused"].map((state) =>
    node.metrics.value("denim_peers", { state })
  );
  assert.deepEqual(peers, [0, 0, 2]);
  assert.equal(node.metrics.value("denim_data_paths"), 1);
});

nodeTest(
  "a former one that is wanted again is used as it is, and does not retire",
  async (node) => {
    const { a, b } = node.backends;
    node.leases = [];
    const paths = await node.start(netConf("a"));
    await paths.changeTo(netConf("b"));
    await node.clock.advance(RETIRE_LOOK_MS);
    await paths.changeTo(netConf("a"));
    await node.clock.advance(5 * RETIRE_LOOK_MS);
    assert.deepEqual([a.sessions.length, a.atWork, b.atWork], [1, ["a@eth0"], []]);
    assert.equal(node.kernel.view, "a");
    await paths.changeTo(netConf("b"));
    await node.clock.advance(2 * RETIRE_LOOK_MS);
    assert.deepEqual([a.atWork, b.atWork, paths.all.length], [[], ["b@eth0"], 1]);
  },
);

nodeTest("of one backend there is one open: a former one makes room too", async (node) => {
  const { a } = node.backends;
  const paths = await node.start(netConf("a"));
  await paths.changeTo(netConf("b"));
  await settled();
  a.beforeOpen = () => {
    if (a.atWork.length > 0) throw new RuntimeError("port taken");
  };
  await paths.changeTo(netConf("a", "2"));
  await settled();
  assert.deepEqual(a.atWork, ["a2@eth0"]);
  assert.equal(node.kernel.view, "10.5.1.0→a2 10.5.2.0→a2 a2 b");
  assert.deepEqual(paths.all.map(({ backend }) => backend.type), ["a", "b"]);
  node.leases = [];
  paths.apply(node.snapshot);
  await node.clock.advance(RETIRE_PATIENCE_MS);
  assert.deepEqual(node.log.of("data-path-retired").length, 1, "b alone was still to retire");
});

nodeTest("two changes while the store is out of reach: the last one is published", async (node) => {
  const paths = await node.start(netConf("a"));
  const store = Promise.withResolvers<void>();
  node.store = store.promise;
  await paths.changeTo(netConf("b"));
  await paths.changeTo(netConf("c"));
  await node.clock.advance(RETIRE_PATIENCE_MS);
  assert.equal(node.kernel.view, "10.5.1.0→a 10.5.2.0→a a b c", "peers are reached as before");
  store.resolve();
  await settled();
  assert.deepEqual(node.story.filter((line) => line.startsWith("published")), ["published c"]);
  node.leases = [];
  await node.clock.advance(RETIRE_PATIENCE_MS);
  assert.deepEqual(paths.all.map(({ backend }) => backend.type), ["c"]);
});

nodeTest("the last run's data path is kept for peers that still use it", async (node) => {
  node.leases = [];
  const paths = await node.start(netConf("b"));
  await paths.keepFormer(OWN);
  node.leases = BOTH;
  paths.apply(node.snapshot);
  assert.equal(node.kernel.view, "10.5.1.0→a 10.5.2.0→a a b");
  node.leases = [];
  paths.apply(node.snapshot);
  await node.clock.advance(2 * RETIRE_LOOK_MS);
  assert.equal(node.kernel.view, "b");
  await paths.keepFormer({ ...OWN, backendType: "b" });
  await paths.keepFormer({ ...OWN, backendType: "" });
  await paths.keepFormer(undefined);
  assert.deepEqual([paths.all.length, node.complaints], [1, []]);
});

for (
  const [what, spoil, why] of [
    ["wrong options", () => {}, /Option/],
    [
      "a backend that refuses",
      ({ backends: { a } }: FakeNode) => {
        a.beforeOpen = () => Promise.reject(new RuntimeError("no device left"));
      },
      /no device left/,
    ],
    ["a kernel that refuses", ({ kernel }: FakeNode) => {
      kernel.refuses = (object) =>
        object.kind === "link" && object.name === "a" ? "no a" : undefined;
    }, /no a/],
    ["a backend that this agent does not have", () => {}, /no backend "ipip"/],
  ] as const
) {
  nodeTest(`a former data path that cannot be read: ${what}`, async (node) => {
    node.leases = [];
    const paths = await node.start(netConf("b"));
    spoil(node);
    const [half] = OWN.halves;
    const backendData = what === "wrong options" ? { Option: 7 } : {};
    const backendType = /agent/.test(what) ? "ipip" : "a";
    await paths.keepFormer({ ...OWN, backendType, halves: [{ ...half!, backendData }] });
    assert.deepEqual(node.complaints, ["warn former-data-path-lost"]);
    assert.match(node.log.of("former-data-path-lost")[0]!.message, why);
    assert.deepEqual([node.kernel.view, paths.all.length, node.backends.a.atWork], ["b", 1, []]);
  });
}

nodeTest("peers are asked for again only if the backend follows the underlay", async (node) => {
  node.backends.b.followsUnderlay = true;
  const paths = await node.start(netConf("a"));
  assert.equal(paths.followsUnderlay, false);
  node.leases = [lease(1, "b"), lease(2, "a")];
  await paths.changeTo(netConf("b"));
  await settled();
  assert.equal(paths.followsUnderlay, true);
  node.kernel.delete("10.5.1.0-24");
  node.kernel.delete("10.5.2.0-24");
  paths.refreshPeers();
  assert.equal(node.kernel.view, "10.5.1.0→b a b");
});

nodeTest("peers matter until the last data path that reaches any is gone", async (node) => {
  node.backends.b.reachesPeers = false;
  node.leases = [];
  const paths = await node.start(netConf("a"));
  assert.equal(paths.reachesPeers, true);
  await paths.changeTo(netConf("b"));
  await settled();
  assert.equal(paths.reachesPeers, true, "the former one reaches those that have not changed yet");
  node.story.length = 0;
  await node.clock.advance(2 * RETIRE_LOOK_MS);
  assert.equal(paths.reachesPeers, false);
  assert.deepEqual(node.story, ["devices b", "leases read"]);
});

/** A store may have other subnets to give than net-conf would choose. */
const UNUSUAL: readonly (readonly [what: string, subnets: string, families: boolean])[] = [
  ["the network's first subnet", "10.5.0.0-24", false],
  ["a subnet of another length", "10.5.7.64-26", false],
  ["a subnet of one family alone", "10.5.7.0-24", true],
];

for (const [what, key, dual] of UNUSUAL) {
  nodeTest(`a lease has ${what}: the node follows net-conf all the same`, async (node) => {
    const addresses = new Map<Family, IpAddress>([
      ...node.outer.current.addresses,
      [6, IpAddress.parse("fd99::9")],
    ]);
    node.outer.current = { ...node.outer.current, addresses, publicIps: addresses };
    node.own = parseLease(key, '{"PublicIP":"10.99.0.9","BackendType":"a"}');
    const config = (type: string, network?: string) =>
      netConf(type, "", network, dual ? { EnableIPv6: true, IPv6Network: "fc00:5::/48" } : {});
    const paths = await node.start(config("a"));
    await paths.changeTo(config("b"));
    assert.equal(paths.current.backend.type, "b");
    await assert.rejects(paths.changeTo(config("a", "10.6.0.0/16")), /does not fit it; drain/);
  });
}

nodeTest("before the node is ready all of it can be removed", async (node) => {
  const paths = await node.start(netConf("a"));
  assert.equal(paths.isNew(), false);
  paths.clear();
  assert.equal(node.kernel.view, "");
  assert.equal(paths.isNew(), true);
});

nodeTest("a change of the outer interface rebuilds the current one", async (node) => {
  const paths = await node.start(netConf("a"));
  node.outer.current = outerInterface("eth1", 19);
  await paths.changeTo(paths.config);
  await settled();
  assert.deepEqual(node.backends.a.atWork, ["a@eth1"]);
  assert.deepEqual(node.story, ["devices a", "published a", "leases read"]);
  await paths.changeTo(paths.config);
  assert.equal(node.backends.a.sessions.length, 2, "once is enough");
});

nodeTest(
  "one that takes packets from peers alone reaches them once they heard of this node",
  async (node) => {
    const { b } = node.backends;
    b.refusesStrangers = true;
    const paths = await node.start(netConf("a"));
    node.leases = [lease(1, "b"), lease(2, "a")];
    await paths.changeTo(netConf("b"));
    await node.clock.advance(HEARD_MS - 1);
    assert.equal(node.story.at(-1), "published b");
    assert.equal(node.kernel.view, "10.5.1.0@b 10.5.1.0→a 10.5.2.0→a a b");
    // One that changes meanwhile may not have heard of this node's change either.
    paths.apply({ kind: "changes", put: [lease(2, "b"), lease(3, "b")], removed: [] });
    assert.equal(
      node.kernel.view,
      "10.5.1.0@b 10.5.1.0→a 10.5.2.0@b 10.5.2.0→a 10.5.3.0@b 10.5.3.0→b a b",
      "a new one was reached by nothing before",
    );
    paths.apply({ kind: "changes", put: [], removed: ["10.5.2.0-24"] });
    await node.clock.advance(1);
    assert.equal(node.kernel.view, "10.5.1.0@b 10.5.1.0→b 10.5.3.0@b 10.5.3.0→b a b");
    assert.deepEqual(b.sessions[0]!.told, [
      "+10.5.1.0-24",
      "+10.5.2.0-24",
      "+10.5.3.0-24",
      "-10.5.2.0-24",
    ]);
    paths.apply({ kind: "changes", put: [lease(2, "a")], removed: [] });
    paths.apply({ kind: "changes", put: [lease(2, "b")], removed: [] });
    assert.match(node.kernel.view, /10\.5\.2\.0→b/, "by now all have heard");
    await node.clock.advance(3 * RETIRE_LOOK_MS);
    assert.equal(node.clock.sleepers, 0);
  },
);

nodeTest(
  "a former one that takes packets from peers alone takes theirs for a while",
  async (node) => {
    const { a, b } = node.backends;
    a.refusesStrangers = true;
    const paths = await node.start(netConf("a"));
    const { told } = a.sessions[0]!;
    told.length = 0;
    await paths.changeTo(netConf("b"));
    await settled();
    paths.apply({ kind: "changes", put: [lease(1, "b")], removed: [] });
    assert.equal(node.kernel.view, "10.5.1.0@a 10.5.1.0→b 10.5.2.0@a 10.5.2.0→a a b");
    assert.deepEqual([told, b.sessions[0]!.told], [[], ["+10.5.1.0-24"]]);
    await node.clock.advance(HOLD_MS);
    assert.equal(node.kernel.view, "10.5.1.0→b 10.5.2.0@a 10.5.2.0→a a b");
    assert.deepEqual(told, ["-10.5.1.0-24"]);
    // One that leaves the cluster goes at once, and nothing is left of a data path that retires.
    paths.apply({ kind: "changes", put: [lease(2, "b")], removed: [] });
    paths.apply({ kind: "changes", put: [], removed: ["10.5.2.0-24"] });
    assert.equal(node.kernel.view, "10.5.1.0→b a b");
    assert.deepEqual(told.slice(1), ["-10.5.2.0-24"]);
    paths.apply({ kind: "changes", put: [lease(2, "a")], removed: [] });
    await node.clock.advance(RETIRE_LOOK_MS - 1);
    paths.apply({ kind: "changes", put: [lease(2, "b")], removed: [] });
    await node.clock.advance(RETIRE_LOOK_MS + 1);
    assert.equal(node.kernel.view, "10.5.1.0→b 10.5.2.0→b b");
    await node.clock.advance(HOLD_MS);
    assert.equal(node.clock.sleepers, 0);
  },
);

nodeTest("a peer between two data paths follows a change back, and a third one", async (node) => {
  for (const backend of Object.values(node.backends)) backend.refusesStrangers = true;
  const paths = await node.start(netConf("a"));
  node.leases = [lease(1, "b"), lease(2, "a")];
  await paths.changeTo(netConf("b"));
  await settled();
  assert.equal(node.kernel.view, "10.5.1.0@a 10.5.1.0@b 10.5.1.0→a 10.5.2.0@a 10.5.2.0→a a b");
  // It goes back before it was reached by b.
  paths.apply({ kind: "changes", put: [lease(1, "a")], removed: [] });
  assert.equal(node.kernel.view, "10.5.1.0@a 10.5.1.0@b 10.5.1.0→a 10.5.2.0@a 10.5.2.0→a a b");
  await node.clock.advance(HOLD_MS);
  assert.equal(node.kernel.view, "10.5.1.0@a 10.5.1.0→a 10.5.2.0@a 10.5.2.0→a a b");
  node.leases = [lease(1, "c"), lease(2, "b")];
  await paths.changeTo(netConf("c"));
  await settled();
  assert.equal(
    node.kernel.view,
    "10.5.1.0@a 10.5.1.0@c 10.5.1.0→a 10.5.2.0@a 10.5.2.0@b 10.5.2.0→b a b c",
  );
  node.leases = [lease(1, "c"), lease(2, "c")];
  paths.apply(node.snapshot);
  assert.match(
    node.kernel.view,
    /^10\.5\.1\.0@a 10\.5\.1\.0@c 10\.5\.1\.0→a 10\.5\.2\.0@b 10\.5\.2\.0@c 10\.5\.2\.0→b /,
  );
  await node.clock.advance(RETIRE_PATIENCE_MS);
  assert.equal(node.kernel.view, "10.5.1.0@c 10.5.1.0→c 10.5.2.0@c 10.5.2.0→c c");
  const { a, b, c } = node.backends;
  for (const { sessions: [session] } of [a, b]) {
    const left = new Set<string>();
    for (const text of session!.told) {
      if (text.startsWith("+")) left.add(text.slice(1));
      else left.delete(text.slice(1));
    }
    assert.deepEqual([...left], []);
  }
  assert.deepEqual(c.sessions[0]!.told, ["+10.5.1.0-24", "+10.5.2.0-24"]);
  assert.equal(node.clock.sleepers, 0);
});
