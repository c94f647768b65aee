/** denim's nftables tables in the real kernel; `nft` looks at them, and disturbs them. */

import assert from "node:assert/strict";
import { inOwnProcess, WITHOUT_CAPABILITIES } from "../../../tests/support/own_process.ts";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { Cidr, FAMILIES, type Family } from "../../ip.ts";
import { RuntimeError } from "../../errors.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { Reconciler } from "../reconciler/reconciler.ts";
import { NETLINK_NETFILTER } from "../uapi/netlink.ts";
import {
  NFGENMSG_LEN,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
} from "../uapi/nfnetlink.ts";
import { NFT_MSG_GETGEN, NFTA_GEN_ID } from "../uapi/nf_tables.ts";
import type { Masquerade } from "../../kernel_state.ts";
import { masqueradeRules, masqueradeTable } from "./masquerade.ts";
import { fromBe32 } from "./nft_codec.ts";
import { beginNft, type FoundNftTable, networksOf, type NftTable } from "./nft_table.ts";
import { Nftables } from "./nftables.ts";
import { nftText } from "../../../tests/support/nft_text.ts";

/** Of prefix lengths that end within an octet: others are compiled to another form by `nft` than by denim. */
function masqueradeOf(family: Family, subnet = 3): Masquerade {
  return {
    kind: "masquerade",
    family,
    networks: [Cidr.parse(family === 4 ? "10.4.0.0/15" : "fc00:4::/31")],
    subnets: [Cidr.parse(family === 4 ? `10.5.${subnet}.0/25` : `fc00:5:0:${subnet}::/65`)],
    fullyRandom: true,
  };
}

const nameOf = (family: Family) => `${family === 4 ? "ip" : "ip6"} denim`;

/** A namespace with both tables in place, and `nft` in it. */
class Node implements Disposable {
  readonly #namespace = new ScratchNamespace();
  readonly nftables = this.#namespace.run(() => new Nftables());

  run<T>(fn: () => T extends Promise<unknown> ? never : T): T {
    return this.#namespace.run(fn);
  }

  nft(script: string): string {
    return this.run(() => sh('printf %s "$1" | nft -f -', [script]));
  }

  /** Puts the table, or removes it; why that failed. */
  apply(action: "put" | "remove", object: NftTable): Error | undefined {
    const step = { action, object, key: this.nftables.key(object), mayReplace: true };
    const [failure, ...more] = this.nftables.apply([step]);
    assert.deepEqual(more, []);
    if (failure !== undefined) assert.equal(failure.step, step);
    return failure?.error;
  }

  put(object: NftTable): void {
    assert.equal(this.apply("put", object), undefined);
  }

  isRight(wanted: NftTable): boolean {
    const found = this.nftables.dump().find(({ family }) => family === wanted.family);
    return found !== undefined && this.nftables.equal(wanted, found);
  }

  /** What `nft` lists of the table. */
  list(family: Family): string {
    return this.nft(`list table ${nameOf(family)}`);
  }

  /** Everything in the namespace but denim's tables, with counters and handles. */
  others(): string {
    const { nftables } = JSON.parse(this.run(() => sh("nft -j list ruleset")));
    // deno-lint-ignore no-explicit-any -- nft's JSON
    return JSON.stringify(nftables.filter((entry: any) => {
      const [object] = Object.values(entry) as { name?: string; table?: string }[];
      return !("metainfo" in entry) && (object!.table ?? object!.name) !== "denim";
    }));
  }

  [Symbol.dispose](): void {
    this.nftables[Symbol.dispose]();
    this.#namespace[Symbol.dispose]();
  }
}

/** Hears what others do to denim's tables. */
class Listener implements AsyncDisposable {
  readonly heard: { readonly event: "found" | "gone"; readonly object: FoundNftTable }[] = [];
  readonly #stop = new AbortController();
  readonly #listening: Promise<void>;

  constructor(nftables: Nftables) {
    const hear = (event: "found" | "gone") => (object: FoundNftTable) =>
      void this.heard.push({ event, object });
    this.#listening = nftables.listen({
      found: hear("found"),
      gone: hear("gone"),
      restored: () => assert.fail("nothing is carried"),
      lost: () => assert.fail("events were lost"),
    }, this.#stop.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#listening;
  }
}

rootTest("nft lists the tables as the rules say", () => {
  using node = new Node();
  for (const family of FAMILIES) {
    const masquerade = masqueradeOf(family);
    node.put(masqueradeTable(masquerade));
    assert.deepEqual(node.list(family).trim().split("\n").map((line) => line.trim()), [
      `table ${nameOf(family)} {`,
      "chain postrouting {",
      "type nat hook postrouting priority srcnat; policy accept;",
      ...masqueradeRules(masquerade).map(nftText),
      "}",
      "}",
    ]);
    assert.ok(node.isRight(masqueradeTable(masquerade)));
    assert.ok(!node.isRight(masqueradeTable({ ...masquerade, fullyRandom: false })));
    assert.ok(!node.isRight(masqueradeTable(masqueradeOf(family, 4))));
  }
});

rootTest("the same rule in nft's words is the same rule", () => {
  using node = new Node();
  for (const family of FAMILIES) {
    const table = masqueradeTable(masqueradeOf(family));
    node.put(table);
    const texts = masqueradeRules(masqueradeOf(family)).map(nftText);
    texts.forEach((text, index) => {
      // IPv6's multicast network ends with an octet.
      if (text.includes("ff00::/8")) return;
      node.nft(`replace rule ${nameOf(family)} postrouting handle ${index + 2} ${text}`);
      assert.ok(node.isRight(table), text);
    });
  }
});

rootTest("any prefix length is read back as it was written", () => {
  using node = new Node();
  for (const family of FAMILIES) {
    const lengths = family === 4 ? [0, 1, 8, 15, 31, 32] : [0, 1, 12, 64, 127, 128];
    for (const length of lengths) {
      const networks = [Cidr.parse(`${family === 4 ? "0.0.0.0" : "::"}/${length}`)];
      const table = masqueradeTable({ ...masqueradeOf(family), networks });
      node.put(table);
      assert.ok(node.isRight(table), `${networks}`);
      assert.ok(
        networksOf(node.nftables.dump()[0]!).some((cidr) => cidr.equals(networks[0]!)),
        `${networks}`,
      );
      assert.equal(node.apply("remove", table), undefined);
    }
  }
});

/**
 * What others may do to a table with the one chain postrouting, whose handle is 1 and whose rules have the handles
 * from 2.
 */
function disturbancesOf(family: Family): readonly [what: string, script: string][] {
  const table = nameOf(family);
  const [saddr, daddr] = ["saddr", "daddr"].map((side) => `${family === 4 ? "ip" : "ip6"} ${side}`);
  const { networks: [network], subnets: [subnet] } = masqueradeOf(family);
  const replace = (handle: number, rule: string) =>
    `replace rule ${table} postrouting handle ${handle} ${rule}`;
  const [mark, fromOwn, toOwn] = masqueradeRules(masqueradeOf(family)).map(nftText);
  const deleteChain = `flush chain ${table} postrouting; delete chain ${table} postrouting`;
  return [
    ["a rule deleted", `delete rule ${table} postrouting handle 3`],
    ["the chain flushed", `flush chain ${table} postrouting`],
    ["the table's rules flushed", `flush table ${table}`],
    ["a rule added at the end", `add rule ${table} postrouting accept`],
    ["a rule added at the start", `insert rule ${table} postrouting return`],
    ["two rules in another order", `${replace(3, toOwn!)}; ${replace(4, fromOwn!)}`],
    ["a rule replaced", replace(3, "accept")],
    ["a rule's network", replace(3, fromOwn!.replace(`${subnet}`, `${network}`))],
    [
      "a rule's prefix length",
      replace(3, fromOwn!.replace(`${subnet}`, `${subnet!.address}/${subnet!.prefixLength + 1}`)),
    ],
    ["a rule's side of the packet", replace(3, fromOwn!.replace(daddr!, saddr!))],
    ["a rule's comparison", replace(3, fromOwn!.replace(saddr!, `${saddr} !=`))],
    ["a rule's verdict", replace(3, fromOwn!.replace("return", "accept"))],
    ["a rule's comment", replace(3, fromOwn!.replace("pods", "hosts"))],
    ["a comment taken away", replace(3, fromOwn!.replace(/ comment.*/, ""))],
    ["a counter added", replace(3, fromOwn!.replace("return", "counter return"))],
    ["the mark", replace(2, mark!.replaceAll("4", "8"))],
    ["the mark's mask", replace(2, mark!.replace("4", "c"))],
    [
      "masquerade not at random",
      replace(
        7,
        `${saddr} != ${network} ${daddr} ${network} masquerade ` +
          `comment "from hosts to other nodes' pods"`,
      ),
    ],
    [
      "masquerade with other ports",
      replace(7, `${saddr} != ${network} meta l4proto udp masquerade to :1-9 fully-random`),
    ],
    ["the policy", `chain ${table} postrouting { policy drop; }`],
    ["the table switched off", `add table ${table} { flags dormant; }`],
    ["a chain added", `add chain ${table} other`],
    [
      "a base chain added",
      `add chain ${table} other { type filter hook input priority 0; policy drop; }`,
    ],
    ["a set added", `add set ${table} numbers { type mark; }`],
    ["a counter object added", `add counter ${table} hits`],
    ["the chain deleted", deleteChain],
    [
      "the chain made at another place",
      `${deleteChain}; ` +
      `add chain ${table} postrouting { type nat hook postrouting priority 99; }; ` +
      `add rule ${table} postrouting return`,
    ],
    ["the table deleted", `delete table ${table}`],
    ["an empty table in its place", `delete table ${table}; add table ${table}`],
    ["everything flushed", "flush ruleset"],
  ];
}

/** Others' tables, one of the same name in another family, with counters that must go on counting. */
const OTHERS = `
  table inet denim { chain postrouting { type filter hook postrouting priority 0; counter packets 5 bytes 500; }; }
  table ip kube-proxy { counter hits { packets 7 bytes 700; }; chain services { counter packets 9 bytes 900 return; }; }
  table ip6 kube-proxy { chain postrouting { type nat hook postrouting priority srcnat; counter packets 3 bytes 300; }; }
`;

for (const family of FAMILIES) {
  rootTest(`what others change in the table is heard and put right, IPv${family}`, async (t) => {
    using node = new Node();
    await using listener = new Listener(node.nftables);
    const { heard } = listener;
    const table = masqueradeTable(masqueradeOf(family));
    node.put(table);
    const listed = node.list(family);
    for (const [what, script] of disturbancesOf(family)) {
      await t.step(what, async () => {
        // The whole table afresh: its chain has the handle 1, its rules those from 2.
        assert.equal(node.apply("remove", table), undefined);
        node.put(table);
        node.nft(OTHERS);
        heard.length = 0;
        node.nft(script);
        await eventually("the change is heard", () => heard.length > 0);
        const { event, object } = heard.at(-1)!;
        assert.equal(node.nftables.key(object), node.nftables.key(table));
        const gone = script.endsWith(`delete table ${nameOf(family)}`) ||
          script === "flush ruleset";
        assert.equal(event, gone ? "gone" : "found");
        if (!gone) assert.ok(!node.nftables.equal(table, object));
        assert.ok(!node.isRight(table));
        const others = node.others();
        node.put(table);
        assert.ok(node.isRight(table));
        assert.equal(node.list(family), listed);
        assert.equal(node.others(), others);
        node.nft("flush ruleset");
      });
    }
  });
}

rootTest("others' tables and one's own steps are not heard of", async () => {
  using node = new Node();
  const [ipv4, ipv6] = FAMILIES.map((family) => masqueradeTable(masqueradeOf(family)));
  node.put(ipv4!);
  node.put(ipv6!);
  await using listener = new Listener(node.nftables);
  node.put(masqueradeTable(masqueradeOf(4, 9)));
  node.put(ipv4!);
  assert.equal(node.apply("remove", ipv4!), undefined);
  node.nft(OTHERS);
  node.nft("delete table inet denim; flush table ip kube-proxy");
  // Events come in order: what is heard first is what others did to denim's table first.
  node.nft("flush table ip6 denim");
  await eventually("the change is heard", () => listener.heard.length > 0);
  assert.deepEqual(listener.heard.map(({ object }) => object.family), [6]);
});

rootTest(
  "the reconciler keeps both tables, and removes one that is not wanted any more",
  async () => {
    using node = new Node();
    const log = new RecordingLog();
    using reconciler = new Reconciler<NftTable>({
      log,
      open: () => ({ tables: { nftTable: node.nftables }, [Symbol.dispose]: () => {} }),
    });
    const tables = FAMILIES.map((family) => masqueradeTable(masqueradeOf(family)));
    node.nft(OTHERS);
    const others = node.others();
    reconciler.set("host", tables);
    assert.deepEqual(reconciler.check(), { changes: 2, failures: [] });
    assert.deepEqual(reconciler.check(), { changes: 0, failures: [] });
    const stop = new AbortController();
    const running = reconciler.run(stop.signal);
    try {
      for (const family of FAMILIES) {
        node.nft(`flush chain ${nameOf(family)} postrouting`);
        await eventually("put right", () => tables.every((table) => node.isRight(table)));
      }
      node.nft("delete table ip denim; delete table ip6 denim");
      await eventually("put right", () => tables.every((table) => node.isRight(table)));
      const renewed = masqueradeTable(masqueradeOf(4, 9));
      reconciler.set("host", [renewed]);
      assert.deepEqual(reconciler.apply(), { changes: 2, failures: [] });
      assert.ok(node.isRight(renewed));
      assert.deepEqual(node.nftables.dump().map(({ family }) => family), [4]);
      assert.equal(node.others(), others);
    } finally {
      stop.abort();
      await running;
    }
  },
);

rootTest("the networks of rules that nft compiled are read too", () => {
  using node = new Node();
  for (const family of FAMILIES) {
    const { networks, subnets } = masqueradeOf(family);
    const octets = family === 4 ? "10.5.0.0/16" : "fc00:5::/32";
    const rules = [octets, ...networks, ...subnets].map((network) =>
      `add rule ${nameOf(family)} any ${family === 4 ? "ip" : "ip6"} saddr ${network} return`
    );
    node.nft(`add table ${nameOf(family)}; add chain ${nameOf(family)} any; ${rules.join("; ")}`);
    const found = node.nftables.dump().find((table) => table.family === family)!;
    const expected = [octets, ...networks.map(String), ...subnets.map(String)];
    assert.deepEqual(networksOf(found).map(String), expected);
  }
});

rootTest("flanneld's table goes only once denim's are in place", () => {
  using namespace = new ScratchNamespace();
  const wanted = FAMILIES.map((family) => masqueradeTable(masqueradeOf(family)));
  using nftables: Nftables = namespace.run(() =>
    new Nftables({
      replacesFlannel: () => true,
      requireInPlace: (stays) => {
        if (!wanted.every((table) => nftables.isInPlace(table))) throw new RuntimeError(stays);
      },
    })
  );
  const listed = () => namespace.run(() => sh("nft list tables"));
  namespace.run(() => sh("nft add table ip flannel-ipv4"));
  const left = nftables.dump().find(({ name }) => name === "flannel-ipv4")!;
  const remove = () =>
    nftables.apply([{ action: "remove", object: left, key: nftables.key(left) }])
      .map(({ error }) => error.message);
  const put = (object: NftTable) =>
    nftables.apply([{ action: "put", object, key: nftables.key(object), mayReplace: false }]);
  const tooEarly = ["nftables table ip flannel-ipv4"];
  assert.deepEqual(remove(), tooEarly);
  assert.deepEqual(put(wanted[0]!), []);
  assert.deepEqual(remove(), tooEarly);
  assert.deepEqual(put(wanted[1]!), []);
  assert.match(listed(), /flannel-ipv4/);
  assert.deepEqual(remove(), []);
  assert.doesNotMatch(listed(), /flannel-ipv4/);
  assert.deepEqual(nftables.dump().map(({ name }) => name), ["denim", "denim"]);
});

rootTest("each step is one transaction, and a step that fails changes nothing", () => {
  using node = new Node();
  using socket = node.run(() => new NetlinkSocket(NETLINK_NETFILTER));
  const generation = () =>
    socket.get(
      "ask for the generation",
      (writer) => beginNft(writer, NFT_MSG_GETGEN, 0, 4).end(),
      (reader) => fromBe32(reader.readAttributes(NFGENMSG_LEN).bytesAttribute(NFTA_GEN_ID)!),
    )!;
  let last = generation();
  const generations = () => {
    const before = last;
    last = generation();
    return last - before;
  };
  const table = masqueradeTable(masqueradeOf(4));
  node.put(table);
  assert.equal(generations(), 1, "made");
  node.put(masqueradeTable(masqueradeOf(4, 9)));
  assert.equal(generations(), 1, "its rules replaced");
  node.nft("add chain ip denim other");
  assert.equal(generations(), 1);
  node.put(table);
  assert.equal(generations(), 1, "replaced whole");
  const listed = node.list(4);
  // A NAT chain can't stand before connection tracking.
  const wrong: NftTable = {
    ...table,
    chains: table.chains.map((chain) => ({ ...chain, hook: 9 })),
  };
  assert.match(
    node.apply("put", wrong)!.message,
    /^put nftables table ip denim: .*\(E[A-Z]+\)$/,
  );
  assert.equal(generations(), 0, "failed");
  assert.equal(node.list(4), listed);
  assert.equal(node.apply("remove", table), undefined);
  assert.equal(generations(), 1, "removed");
  assert.equal(node.apply("remove", table), undefined);
  assert.equal(generations(), 0, "gone already");
  assert.deepEqual(node.nftables.dump(), []);
});

rootTest(
  "an error of the whole transaction, under which kernels answer nothing else, is told at once",
  () => {
    const moduleOf = (path: string) => JSON.stringify(import.meta.resolve(path));
    const code = `
    const { NetlinkSocket } = await import(${moduleOf("../netlink/netlink_socket.ts")});
    const { MessageWriter } = await import(${moduleOf("../netlink/netlink_codec.ts")});
    using socket = new NetlinkSocket(${NETLINK_NETFILTER});
    const batch = new MessageWriter();
    for (const type of [${NFNL_MSG_BATCH_BEGIN}, ${NFNL_MSG_BATCH_END}]) {
      batch.begin(type, 0).u32(${NFNL_SUBSYS_NFTABLES} << 24).end();
    }
    for (const { index, error } of socket.transact(batch)) console.log(index, error.code);`;
    assert.equal(inOwnProcess(code, [], WITHOUT_CAPABILITIES), "0 EPERM\n");
  },
);
