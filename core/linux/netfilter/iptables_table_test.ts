/** Rules in iptables' form in the real kernel; iptables' own programs look at them, and disturb them. */

import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { TempFolder } from "../../../tests/support/temp_folder.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { Cidr, FAMILIES, type Family } from "../../ip.ts";
import type { KernelObject } from "../../kernel_state.ts";
import { Reconciler } from "../reconciler/reconciler.ts";
import type { IptablesVariant } from "./iptables_chain.ts";
import { NetfilterTables } from "./netfilter_tables.ts";

const NETWORKS: Readonly<Record<Family, string>> = { 4: "10.5.0.0/16", 6: "fc00:5::/48" };
const SUBNETS: Readonly<Record<Family, string>> = { 4: "10.5.3.0/24", 6: "fc00:5:0:3::/64" };
const MULTICAST: Readonly<Record<Family, string>> = { 4: "224.0.0.0/4", 6: "ff00::/8" };
const VARIANTS = ["nft", "legacy"] as const;

const masquerades = (engine?: "nftables" | "iptables"): KernelObject[] =>
  FAMILIES.map((family) => ({
    kind: "masquerade",
    family,
    networks: [Cidr.parse(NETWORKS[family])],
    subnets: [Cidr.parse(SUBNETS[family])],
    fullyRandom: true,
    engine,
  }));
const forwards = (): KernelObject[] =>
  FAMILIES.map((family) => ({
    kind: "podForward",
    family,
    networks: [Cidr.parse(NETWORKS[family])],
  }));

/** A namespace in which a reconciler keeps netfilter's tables; `iptables` is one of the two there. */
class Node implements AsyncDisposable {
  readonly #namespace = new ScratchNamespace();
  readonly #stop = new AbortController();
  #running = Promise.resolve();
  readonly log = new RecordingLog();
  readonly reconciler: Reconciler;

  /** `variant` is which iptables the program is; it is asked itself unless given. */
  constructor(variant?: IptablesVariant, resyncMs = 60_000) {
    this.reconciler = this.#namespace.run(() =>
      new Reconciler({
        log: this.log,
        open: (desired) =>
          new NetfilterTables({
            desired,
            log: this.log,
            inCluster: (cidr) =>
              Object.values(NETWORKS).some((network) => Cidr.parse(network).contains(cidr)),
            iptablesResyncMs: resyncMs,
            ...variant && { iptablesVariant: () => variant },
          }),
      })
    );
  }

  sh(script: string): string {
    return this.#namespace.run(() => sh(script));
  }

  /** Has an owner want this alone, and makes it so. */
  want(owner: string, objects: readonly KernelObject[]): void {
    this.reconciler.set(owner, objects);
    assert.deepEqual(this.reconciler.apply().failures, []);
  }

  start(): void {
    assert.deepEqual(this.reconciler.check().failures, []);
    this.#running = this.reconciler.run(this.#stop.signal);
  }

  /** What an iptables prints of a table, without numbers: policies, chains, rules. */
  saved(variant: IptablesVariant, family: Family, table: string): string[] {
    const name = family === 4 ? "iptables" : "ip6tables";
    return this.sh(`${name}-${variant} -t ${table} -S`).trim().split("\n")
      .filter((line) => !line.startsWith("-P "));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
    this.reconciler[Symbol.dispose]();
    this.#namespace[Symbol.dispose]();
  }
}

function masqueradeLines(family: Family): string[] {
  const [network, subnet] = [NETWORKS[family], SUBNETS[family]];
  const words = '-m comment --comment "denim masq" -j';
  const rules = [
    `-m mark --mark 0x4000/0x4000 ${words} RETURN`,
    `-s ${subnet} -d ${network} ${words} RETURN`,
    `-s ${network} -d ${subnet} ${words} RETURN`,
    `! -s ${network} -d ${subnet} ${words} RETURN`,
    `-s ${network} ! -d ${MULTICAST[family]} ${words} MASQUERADE --random-fully`,
    `! -s ${network} -d ${network} ${words} MASQUERADE --random-fully`,
  ];
  return [
    "-N FLANNEL-POSTRTG",
    `-A POSTROUTING ${words} FLANNEL-POSTRTG`,
    ...rules.map((rule) => `-A FLANNEL-POSTRTG ${rule}`),
  ];
}

function forwardLines(family: Family): string[] {
  const words = '-m comment --comment "denim forward" -j';
  return [
    "-N FLANNEL-FWD",
    `-A FORWARD ${words} FLANNEL-FWD`,
    `-A FLANNEL-FWD -s ${NETWORKS[family]} ${words} ACCEPT`,
    `-A FLANNEL-FWD -d ${NETWORKS[family]} ${words} ACCEPT`,
  ];
}

/** flanneld's rules: today's (pkg/trafficmngr/iptables/iptables.go), and those before v0.20 (network/iptables.go). */
const flannelRules = (iptables: string, network: string) => {
  const masq = '-m comment --comment "flanneld masq" -j';
  const forward = '-m comment --comment "flanneld forward" -j';
  return {
    today: `
      ${iptables} -t nat -N FLANNEL-POSTRTG
      ${iptables} -t nat -A POSTROUTING ${masq} FLANNEL-POSTRTG
      ${iptables} -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 ${masq} RETURN
      ${iptables} -t nat -A FLANNEL-POSTRTG -s ${network} -j MASQUERADE --random-fully
      ${iptables} -N FLANNEL-FWD
      ${iptables} -A FORWARD ${forward} FLANNEL-FWD
      ${iptables} -A FLANNEL-FWD -s ${network} ${forward} ACCEPT`,
    before: `
      ${iptables} -t nat -A POSTROUTING -s ${network} -d ${network} ${masq} RETURN
      ${iptables} -t nat -A POSTROUTING -s ${network} ${masq} MASQUERADE --random-fully
      ${iptables} -A FORWARD -s ${network} ${forward} ACCEPT`,
  };
};

const programOf = (variant: IptablesVariant, family: Family) =>
  `${family === 4 ? "iptables" : "ip6tables"}-${variant}`;
/** Rules of somebody else's, and what they have counted. */
const withOthers = (variant: IptablesVariant) =>
  FAMILIES.map((family) => {
    const source = family === 4 ? "192.0.2.0/24" : "2001:db8::/32";
    return ["nat POSTROUTING", "filter FORWARD"].map((place) => {
      const [table, chain] = place.split(" ");
      return `${
        programOf(variant, family)
      } -t ${table} -A ${chain} -c 7 700 -s ${source} -j ACCEPT`;
    }).join("\n");
  }).join("\n");
const othersOf = (node: Node, variant: IptablesVariant) =>
  FAMILIES.map((family) =>
    node.sh(
      `${programOf(variant, family)}-save -c | grep -F "j ACCEPT" | grep -v flannel -i`,
    )
  ).join("");

for (const variant of VARIANTS) {
  rootTest(`iptables-${variant} prints the rules as flannel has them`, async () => {
    await using node = new Node(variant);
    node.want("pods", masquerades("iptables"));
    for (const family of FAMILIES) {
      assert.deepEqual(node.saved(variant, family, "nat"), masqueradeLines(family));
      node.sh(`${programOf(variant, family)} -P FORWARD DROP`);
    }
    node.want("forward", forwards());
    for (const family of FAMILIES) {
      assert.deepEqual(node.saved(variant, family, "filter"), forwardLines(family));
    }
    assert.deepEqual(node.reconciler.check(), { changes: 0, failures: [] });
    // They can be removed by the program, rule by rule.
    for (const family of FAMILIES) {
      node.sh(`set -e; ${programOf(variant, family)}-save | grep -E "^-A .*denim" |
        while read -r rule; do
          case $rule in *" masq"*) table=nat;; *) table=filter;; esac
          eval "${programOf(variant, family)} -t $table -D $(echo "$rule" | cut -c4-)"
        done`);
      assert.deepEqual(node.saved(variant, family, "nat"), ["-N FLANNEL-POSTRTG"]);
    }
    node.reconciler.check();
    node.want("pods", []);
    node.want("forward", []);
    for (const family of FAMILIES) {
      for (const table of ["nat", "filter"]) {
        assert.deepEqual(node.saved(variant, family, table), []);
      }
    }
  });

  const faults: readonly (readonly [what: string, script: (iptables: string) => string])[] = [
    ["a rule is deleted", (it) => `${it} -t nat -D FLANNEL-POSTRTG 2`],
    ["a rule is altered", (it) => `${it} -t nat -R FLANNEL-POSTRTG 1 -j RETURN`],
    ["a rule is put before all", (it) => `${it} -t nat -I FLANNEL-POSTRTG -j RETURN`],
    ["the chain is flushed", (it) => `${it} -t nat -F FLANNEL-POSTRTG`],
    ["the parent's rule is deleted", (it) => `${it} -t nat -D POSTROUTING 2`],
    [
      "the parent's rule is there twice",
      (it) => `${it} -t nat -A POSTROUTING -m comment --comment "denim masq" -j FLANNEL-POSTRTG`,
    ],
    ["the table is flushed", (it) => `${it} -t nat -F; ${it} -t nat -X`],
    ["forwarding is flushed", (it) => `${it} -F FLANNEL-FWD`],
  ];
  rootTest(
    `iptables-${variant}: what others change is right again, and what is theirs stays`,
    async (t) => {
      await using node = new Node(variant);
      node.sh(withOthers(variant));
      for (const family of FAMILIES) node.sh(`${programOf(variant, family)} -P FORWARD DROP`);
      node.want("pods", [...masquerades("iptables"), ...forwards()]);
      node.start();
      const right = () =>
        FAMILIES.every((family) =>
          [...masqueradeLines(family), ...forwardLines(family)].every((line) =>
            [...node.saved(variant, family, "nat"), ...node.saved(variant, family, "filter")]
              .filter((found) => found === line).length === 1
          ) && !node.saved(variant, family, "nat").includes("-A FLANNEL-POSTRTG -j RETURN")
        );
      assert.ok(right());
      for (const [what, script] of faults) {
        await t.step(what, async () => {
          const before = othersOf(node, variant);
          assert.match(before, /\[7:700\]/);
          for (const family of FAMILIES) node.sh(script(programOf(variant, family)));
          assert.ok(!right(), "the fault is one");
          await eventually("they are right again", right);
          if (!what.startsWith("the table")) assert.equal(othersOf(node, variant), before);
        });
      }
      if (variant === "nft") {
        for (const script of ["nft delete table ip nat", "nft flush ruleset"]) {
          await t.step(script, async () => {
            node.sh(script);
            for (const family of FAMILIES) node.sh(`${programOf(variant, family)} -P FORWARD DROP`);
            await eventually("they are right again", right);
          });
        }
      }
    },
  );

  rootTest(`iptables-${variant}: pods' packets pass while FORWARD's policy is DROP`, async () => {
    await using node = new Node(variant);
    node.want("pods", forwards());
    node.start();
    const made = (family: Family) => node.saved(variant, family, "filter");
    const policy = (family: Family, policy: string) =>
      node.sh(`${programOf(variant, family)} -P FORWARD ${policy}`);
    for (const family of FAMILIES) {
      assert.deepEqual(made(family), [], "nothing drops");
      policy(family, "DROP");
      await eventually(
        "they pass",
        () => made(family).join() === forwardLines(family).join(),
      );
      policy(family, "ACCEPT");
      await eventually("nothing is left", () => made(family).length === 0);
    }
  });

  rootTest(`iptables-${variant}: flanneld's rules go once denim's are in place`, async (t) => {
    const scripts = FAMILIES.map((family) =>
      flannelRules(programOf(variant, family), NETWORKS[family])
    );
    for (const form of ["today", "before"] as const) {
      for (const engine of ["nftables", "iptables"] as const) {
        await t.step(`${form}, denim by ${engine}`, async () => {
          await using node = new Node(variant);
          node.sh(withOthers(variant));
          const others = othersOf(node, variant);
          for (const script of scripts) node.sh(`set -e; ${script[form]}`);
          const left = () =>
            FAMILIES.flatMap((family) =>
              ["nat", "filter"].flatMap((table) => node.saved(variant, family, table))
            ).filter((line) => /flanneld|FLANNEL/.test(line) && !line.includes("denim"));
          const before = left();
          assert.deepEqual(node.reconciler.check(), { changes: 0, failures: [] });
          assert.deepEqual(left(), before, "an agent that does neither leaves them");
          node.reconciler.set("pods", [...masquerades(engine), ...forwards()]);
          assert.deepEqual(node.reconciler.check().failures, []);
          const chains = engine === "iptables" ? ["-N FLANNEL-POSTRTG", "-N FLANNEL-POSTRTG"] : [];
          assert.deepEqual(left(), chains);
          assert.equal(othersOf(node, variant), others);
        });
      }
    }
  });

  rootTest(`iptables-${variant}: another engine leaves no rule of the one before`, async () => {
    await using node = new Node(variant);
    const tables = () => node.sh("nft list tables").match(/ip6? denim/g) ?? [];
    const chains = () => FAMILIES.flatMap((family) => node.saved(variant, family, "nat"));
    node.want("pods", masquerades());
    assert.equal(tables().length, 2);
    node.want("pods", masquerades("iptables"));
    assert.deepEqual(tables(), []);
    assert.deepEqual(chains(), FAMILIES.flatMap(masqueradeLines));
    node.want("pods", masquerades("nftables"));
    assert.equal(tables().length, 2);
    assert.deepEqual(chains(), []);
  });
}

/** Runs a function where no program is on PATH, but for those in a folder. */
function withoutPrograms<T>(fn: () => T, folder = "/nonexistent"): T {
  const path = Deno.env.get("PATH")!;
  Deno.env.set("PATH", folder);
  try {
    return fn();
  } finally {
    Deno.env.set("PATH", path);
  }
}

const MISSING = /no program iptables-legacy-\S+ on PATH.* install the package iptables/;

rootTest(
  "iptables-legacy without its programs: what they'd do is named, and all else is done",
  async () => {
    await using node = new Node("legacy");
    const [iptables, network] = ["iptables-legacy", NETWORKS[4]];
    node.sh(`set -e; ${flannelRules(iptables, network).today}; ${iptables} -P FORWARD DROP`);
    const left = node.sh(`${iptables}-save | grep -v "^#"`);
    node.reconciler.set("pods", [...masquerades(), ...forwards()]);
    const { failures: [failure, ...more] } = withoutPrograms(() => node.reconciler.check());
    assert.match(failure!, /^put iptables-legacy chain FLANNEL-FWD of table filter: /);
    assert.match(failure!, MISSING);
    assert.deepEqual(more, []);
    assert.equal(node.sh("nft list tables").match(/ip6? denim/g)?.length, 2);
    const named = node.log.records.filter(({ event }) => event === "iptables-rules-left");
    assert.deepEqual(named.map(({ message }) => MISSING.test(message)), [true, true]);
    assert.equal(node.sh(`${iptables}-save | grep -v "^#"`), left);
    // The programs are there again.
    assert.deepEqual(node.reconciler.check().failures, []);
    assert.deepEqual(node.saved("legacy", 4, "nat"), []);
    assert.deepEqual(node.saved("legacy", 4, "filter"), forwardLines(4));
  },
);

rootTest("an engine that can't take over leaves the one before in place", async () => {
  await using node = new Node("legacy");
  node.want("pods", masquerades("nftables"));
  const before = node.sh("nft list ruleset");
  node.reconciler.set("pods", masquerades("iptables"));
  const { failures } = withoutPrograms(() => node.reconciler.apply());
  assert.equal(failures.length, 4, failures.join("\n"));
  assert.match(failures[0]!, MISSING);
  assert.match(
    failures[2]!,
    /nftables table ip6? denim stays until denim's own rules are in place/,
  );
  assert.equal(node.sh("nft list ruleset"), before);
  assert.deepEqual(node.reconciler.check().failures, []);
  assert.equal(node.sh("nft list tables"), "");
  assert.deepEqual(node.saved("legacy", 4, "nat"), masqueradeLines(4));
});

rootTest("iptables is iptables-legacy, under its plain name alone", async () => {
  using folder = new TempFolder();
  for (const name of ["iptables", "ip6tables"]) {
    for (const suffix of ["", "-save", "-restore"]) {
      Deno.symlinkSync(
        Deno.realPathSync("/usr/sbin/iptables-legacy"),
        `${folder.path}/${name}${suffix}`,
      );
    }
  }
  await using node = new Node();
  for (const objects of [masquerades("iptables"), []]) {
    withoutPrograms(() => node.want("pods", objects), folder.path);
    for (const family of FAMILIES) {
      const lines = objects.length === 0 ? [] : masqueradeLines(family);
      assert.deepEqual(node.saved("legacy", family, "nat"), lines);
      assert.deepEqual(node.saved("nft", family, "nat"), []);
    }
  }
});

rootTest("what the size of a large table does not tell is found in time all the same", async () => {
  await using node = new Node("legacy", 500);
  const rules = "-A POSTROUTING -s 192.0.2.1/32 -j ACCEPT\n".repeat(2000);
  node.sh(`iptables-legacy-restore --noflush <<'END'\n*nat\n${rules}COMMIT\nEND\n`);
  node.want("pods", masquerades("iptables"));
  node.start();
  const altered =
    "FLANNEL-POSTRTG 1 -m mark --mark 0x4000/0x4000 -m comment --comment 'denim masq' -j ACCEPT";
  node.sh(`iptables-legacy -t nat -R ${altered}`);
  const list = () => node.saved("legacy", 4, "nat").filter((line) => /denim|-N/.test(line));
  assert.notDeepEqual(list(), masqueradeLines(4));
  await eventually("it is right again", () => list().join() === masqueradeLines(4).join());
});
