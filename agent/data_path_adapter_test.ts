import { LinuxError } from "@denim/core/linux";
import { RuntimeError } from "@denim/core";
import assert from "node:assert/strict";
import { settled } from "../tests/support/fake_clock.ts";
import { FakeNode, lease, netConf, outerInterface } from "../tests/support/fake_data_paths.ts";
import { DataPathAdapter } from "./data_path_adapter.ts";
import type { DataPathManager } from "./data_path_manager.ts";

/** ENODEV of errno(3). */
const ENODEV = 19;

/** A node with the backend `a` whose adapter runs. */
function adapterTest(
  name: string,
  body: (node: FakeNode, adapter: DataPathAdapter, paths: DataPathManager) => Promise<void>,
): void {
  Deno.test(`data paths follow: ${name}`, async () => {
    await using node = new FakeNode();
    node.leases = [lease(1, "a"), lease(2, "a")];
    const paths = await node.start(netConf("a"));
    const { clock, log, outer, hostNetwork } = node;
    const onAddresses = () => void node.story.push("reconnect");
    const adapter = new DataPathAdapter({ paths, outer, hostNetwork, onAddresses, clock, log });
    node.tasks.add(adapter.run(node.tasks.signal));
    await body(node, adapter, paths);
  });
}

adapterTest(
  "two changes of net-conf in a row: the one between is left out",
  async (node, adapter) => {
    const { a, b, c } = node.backends;
    adapter.want(netConf("b"));
    adapter.want(netConf("c"));
    await settled();
    assert.deepEqual([a.atWork, b.sessions.length, c.atWork], [["a@eth0"], 0, ["c@eth0"]]);
    assert.deepEqual(node.story.at(-1), "published c");
  },
);

adapterTest(
  "net-conf changes again while the change before is made",
  async (node, adapter, paths) => {
    const { b, c } = node.backends;
    const opening = Promise.withResolvers<void>();
    b.beforeOpen = () => opening.promise;
    adapter.want(netConf("b"));
    await settled();
    adapter.want(netConf("c"));
    await settled();
    assert.deepEqual(c.sessions.length, 0, "one change at a time");
    opening.resolve();
    await settled();
    assert.deepEqual([b.atWork, c.atWork], [["b@eth0"], ["c@eth0"]]);
    assert.deepEqual(paths.all.map(({ backend }) => backend.type), ["c", "a", "b"]);
  },
);

adapterTest(
  "net-conf changes back while the store is out of reach",
  async (node, adapter, paths) => {
    const store = Promise.withResolvers<void>();
    node.store = store.promise;
    adapter.want(netConf("b"));
    await settled();
    adapter.want(netConf("a"));
    await settled();
    store.resolve();
    await settled();
    assert.equal(paths.current.backend.type, "a");
    assert.equal(node.backends.a.sessions.length, 1);
    assert.deepEqual(node.story.filter((line) => /^publ/.test(line)), ["published a"]);
  },
);

adapterTest(
  "the outer interface goes and comes back while a change is made",
  async (node, adapter) => {
    const { a, b } = node.backends;
    const opening = Promise.withResolvers<void>();
    b.beforeOpen = () => opening.promise;
    adapter.want(netConf("b"));
    await settled();
    const before = node.outer.actual;
    node.outer.actual = outerInterface("eth1", 19);
    adapter.look();
    node.outer.actual = before;
    adapter.look();
    opening.resolve();
    await settled();
    assert.deepEqual([a.atWork, b.atWork], [["a@eth0"], ["b@eth0"]]);
    assert.equal(b.sessions.length, 1);
    assert.deepEqual(node.story.filter((line) => line === "reconnect"), []);
  },
);

adapterTest(
  "a host turns out to be among the pods: the data path is made again",
  async (node, adapter) => {
    const { a } = node.backends;
    node.overlapsHosts = true;
    adapter.look();
    await settled();
    assert.deepEqual([a.sessions.length, a.sessions[0]!.closed, a.atWork], [2, true, ["a@eth0"]]);
    adapter.look();
    await settled();
    assert.equal(a.sessions.length, 2, "once");
  },
);

adapterTest(
  "another packet filter in net-conf costs no data path",
  async (node, adapter, paths) => {
    const { a } = node.backends;
    const nft = (EnableNFTables: boolean) => netConf("a", "", "10.5.0.0/16", { EnableNFTables });
    for (const wanted of [true, false]) {
      node.story.length = 0;
      adapter.want(nft(wanted));
      await settled();
      assert.equal(paths.config.enableNFTables, wanted);
      assert.deepEqual(node.story, ["devices a"], "the host is told, and nobody else");
    }
    assert.equal(a.sessions.length, 1);
  },
);

adapterTest("the outer interface is another one while a change is made", async (node, adapter) => {
  const { b } = node.backends;
  const opening = Promise.withResolvers<void>();
  b.beforeOpen = () => opening.promise;
  adapter.want(netConf("b"));
  await settled();
  node.outer.actual = outerInterface("eth1", 19);
  adapter.look();
  opening.resolve();
  await settled();
  assert.deepEqual(b.sessions.map(({ device, outer, closed }) => [device, outer.name, closed]), [
    ["b", "eth0", true],
    ["b", "eth1", false],
  ]);
  assert.deepEqual(node.story.filter((line) => line === "reconnect"), ["reconnect"]);
  assert.equal(node.kernel.view, "10.5.1.0→a 10.5.2.0→a a b");
});

adapterTest(
  "the outer interface changes while the store is out of reach",
  async (node, adapter) => {
    const { b } = node.backends;
    const store = Promise.withResolvers<void>();
    node.store = store.promise;
    adapter.want(netConf("b"));
    await settled();
    node.outer.actual = outerInterface("eth1", 19);
    adapter.look();
    await settled();
    assert.deepEqual(b.atWork, ["b@eth1"], "the store may be in reach by the new one alone");
    assert.deepEqual(node.story.filter((line) => line === "reconnect"), ["reconnect"]);
    store.resolve();
    await settled();
  },
);

adapterTest(
  "a net-conf that fails is tried once, and the one before goes on",
  async (node, adapter) => {
    const { a } = node.backends;
    const tried: string[] = [];
    a.beforeOpen = (option) => {
      tried.push(option);
      if (option === "2") throw new RuntimeError("port taken");
    };
    adapter.want(netConf("a", "2"));
    await settled();
    assert.deepEqual([tried, a.atWork], [["2", "2", ""], ["a@eth0"]], "it made room in vain");
    assert.equal(node.kernel.view, "10.5.1.0→a 10.5.2.0→a a");
    adapter.look();
    await node.clock.advance(60_000);
    assert.equal(tried.length, 3, "each try costs packets");
    assert.deepEqual(node.complaints, ["error net-conf-refused"]);
    node.outer.actual = outerInterface("eth1", 19);
    adapter.look();
    await settled();
    assert.deepEqual(tried.slice(3), ["2", "2", ""], "with another interface it may succeed");
    assert.deepEqual(a.atWork, ["a@eth1"]);
    a.beforeOpen = () => {};
    adapter.want(netConf("a", "3"));
    await settled();
    assert.deepEqual(a.atWork, ["a3@eth1"]);
  },
);

adapterTest(
  "a data path that cannot be rebuilt is tried again, ever later",
  async (node, adapter) => {
    const { a } = node.backends;
    const triedAtMs: number[] = [];
    a.beforeOpen = () => {
      triedAtMs.push(node.clock.nowMs());
      throw new RuntimeError("no memory");
    };
    node.outer.actual = outerInterface("eth1", 19);
    adapter.look();
    await node.clock.advance(1_600);
    assert.deepEqual(
      triedAtMs,
      [0, 0, 100, 300, 700, 1_500],
      "at once a second time without the old one",
    );
    assert.deepEqual(node.complaints, ["error data-path-failed"]);
    a.beforeOpen = () => {};
    await node.clock.advance(1_600);
    assert.deepEqual(a.atWork, ["a@eth1"]);
    assert.equal(node.kernel.view, "10.5.1.0→a 10.5.2.0→a a");
    assert.equal(node.clock.sleepers, 0, "no retry is left");
    let tries = 0;
    a.beforeOpen = () => {
      if (tries++ < 2) throw new RuntimeError("no memory");
    };
    node.outer.actual = outerInterface("eth2", 20);
    adapter.look();
    await node.clock.advance(100);
    assert.deepEqual(a.atWork, ["a@eth2"], "the waits start from the shortest");
    assert.equal(node.complaints.length, 2, "it is said again");
  },
);

adapterTest(
  "an outer interface that cannot be read is no reason to rebuild",
  async (node, adapter) => {
    node.outer.onRefresh = () => {
      throw new LinuxError(ENODEV, "list addresses");
    };
    node.outer.actual = outerInterface("eth1", 19);
    adapter.look();
    await node.clock.advance(250);
    assert.deepEqual(node.complaints, ["error outer-interface-unreadable"]);
    assert.equal(node.backends.a.sessions.length, 1);
    node.outer.onRefresh = () => {};
    adapter.look();
    await settled();
    assert.deepEqual(node.backends.a.atWork, ["a@eth1"]);
    assert.equal(node.clock.sleepers, 0, "no retry is left");
  },
);

for (
  const [what, spoil] of [
    ["the outer interface", ({ outer }: FakeNode, fail: () => never) => outer.onRefresh = fail],
    ["a backend", ({ backends }: FakeNode, fail: () => never) => backends.b.beforeOpen = fail],
  ] as const
) {
  Deno.test(`data paths follow: a defect in ${what} ends the node, and is not retried`, async () => {
    const node = new FakeNode();
    const paths = await node.start(netConf("a"));
    const { clock, log, outer, hostNetwork } = node;
    const adapter = new DataPathAdapter({
      paths,
      outer,
      hostNetwork,
      onAddresses: () => {},
      clock,
      log,
    });
    node.tasks.add(adapter.run(node.tasks.signal));
    spoil(node, () => {
      throw new TypeError("undefined is not a function");
    });
    adapter.want(netConf("b"));
    await assert.rejects(node.tasks.join(), TypeError);
    assert.deepEqual([node.complaints, node.clock.sleepers], [[], 0]);
    assert.deepEqual([node.kernel.view, node.backends.a.atWork], ["a", ["a@eth0"]]);
  });
}
