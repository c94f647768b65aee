import { Cidr, IpAddress, type Lease, RuntimeError } from "@denim/core";
import assert from "node:assert/strict";
import { FakeClock, settled } from "../../tests/support/fake_clock.ts";
import type { MeshReport } from "../mesh/mesh_report.ts";
import type { ProbedHalf } from "../mesh/prober.ts";
import { PeerList } from "../peer_list.ts";
import type { StatusReport } from "../status_report.ts";
import { PageFeed, type PageNews } from "./page_feed.ts";

const WAY = { backend: "vxlan", mtuBytes: 1450, hasDeviceAddress: true, devices: ["flannel.1"] };
const QUIET: MeshReport = { nodes: 3, shared: true, troubles: [], overflowing: [] };
const WELL: ProbedHalf = {
  health: "ok",
  sinceMs: 5,
  roundTripMs: 0.2512,
  loss: 0,
  pathMtuBytes: 1450,
};

/** A node of which a test changes what it likes. */
function fakeNode() {
  const peers = new PeerList();
  const put = (number: number) => {
    const subnet = Cidr.parse(`10.5.${number}.0/24`);
    const publicIp = IpAddress.parse(`10.99.0.${number}`);
    peers.put({ key: `10.5.${number}.0-24`, halves: [{ subnet, publicIp, data: null }] }, [], WAY);
  };
  put(2);
  put(3);
  return {
    peers,
    put,
    lease: { key: "10.5.1.0-24" } as Lease,
    found: new Map<string, ProbedHalf>(),
    health(key: string) {
      return [this.found.get(key) ?? WELL];
    },
    mesh: () => Promise.resolve(QUIET),
  };
}

/** Reads the events of a stream. */
function follow(feed: PageFeed) {
  const { body } = feed.follow();
  const reader = body!.pipeThrough(new TextDecoderStream()).getReader();
  return {
    async next(): Promise<PageNews | undefined> {
      const { value } = await reader.read();
      if (value === undefined) return undefined;
      assert.match(value, /^data: .*\n\n$/, "one event");
      return JSON.parse(value.slice("data: ".length));
    },
    leave: () => reader.cancel(),
  };
}

function open() {
  const [node, clock] = [fakeNode(), new FakeClock()];
  const status = { version: "1" } as StatusReport;
  const feed = new PageFeed({
    status: () => status,
    node: () => node,
    samples: () => [{ name: "denim_x_total", help: "X.", type: "counter", labels: {}, value: 1 }],
    devices: () => [],
    clock,
  });
  const tick = async () => {
    await settled();
    await clock.advance(1000);
  };
  return { node, feed, tick };
}

Deno.test("page feed: first everything, then what is different", async () => {
  const { node, feed, tick } = open();
  const page = follow(feed);
  const first = await page.next();
  assert.equal(first?.isAll, true);
  assert.equal(first.own, "10.5.1.0-24");
  assert.deepEqual(first.values, [1]);
  assert.deepEqual(first.peers?.[0]?.toSpliced(2, 1), [
    "10.5.2.0-24",
    "vxlan",
    [["10.5.2.0/24", "10.99.0.2", null, false]],
    [["ok", 5, 0.25, 0, 1450]],
  ]);
  await tick();
  const second = await page.next();
  assert.deepEqual(second?.mesh?.report, QUIET, "what the store said meanwhile");
  await tick();
  assert.deepEqual(Object.keys((await page.next())!), ["atMs"], "nothing is different");
  node.found.set("10.5.3.0-24", { ...WELL, health: "mtu", sinceMs: 7 });
  node.put(4);
  node.peers.delete("10.5.2.0-24");
  await tick();
  const { peers, healths, gone, status } = (await page.next())!;
  assert.deepEqual(peers?.map(([key]) => key), ["10.5.4.0-24"]);
  assert.deepEqual(healths, [["10.5.3.0-24", [["mtu", 7, 0.25, 0, 1450]]]]);
  assert.deepEqual(gone, ["10.5.2.0-24"]);
  assert.equal(status, undefined);
  const late = await follow(feed).next();
  assert.deepEqual(
    late?.peers?.map(([key, , , , healths]) => [key, healths[0]?.[0]]),
    [["10.5.3.0-24", "mtu"], ["10.5.4.0-24", "ok"]],
    "who comes later has everything at once",
  );
  feed[Symbol.dispose]();
});

Deno.test("page feed: a store that does not tell keeps what is known, and says why", async () => {
  const { node, feed, tick } = open();
  const page = follow(feed);
  await page.next();
  await tick();
  await page.next();
  node.mesh = () => Promise.reject(new RuntimeError("etcd is out of reach"));
  let news: PageNews | undefined;
  for (let turn = 0; turn < 4 && news?.mesh === undefined; turn++) {
    await tick();
    news = await page.next();
  }
  assert.deepEqual(news?.mesh, { report: QUIET, error: "etcd is out of reach" });
  feed[Symbol.dispose]();
});

Deno.test("page feed: too many are refused, who leaves makes room, the end ends all", async () => {
  const { feed } = open();
  const pages = Array.from({ length: 32 }, () => follow(feed));
  assert.equal(feed.follow().status, 503);
  await pages[0]!.leave();
  assert.equal(feed.followers, 31);
  const last = follow(feed);
  await last.next();
  feed[Symbol.dispose]();
  assert.equal(await last.next(), undefined);
  assert.equal(feed.follow().status, 503, "no more after the end");
});

Deno.test("page feed: who does not read is sent away, and keeps nobody else waiting", async () => {
  const { feed, tick } = open();
  feed.follow();
  const reader = follow(feed);
  for (let turn = 0; turn < 40; turn++) {
    await reader.next();
    await tick();
  }
  assert.equal(feed.followers, 1);
  feed[Symbol.dispose]();
});
