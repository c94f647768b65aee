import assert from "node:assert/strict";
import { Cidr, type Family, IpAddress } from "../../ip.ts";
import type { Masquerade } from "../../kernel_state.ts";
import { KUBE_PROXY_MARK, masqueradeRules } from "./masquerade.ts";
import { nftText } from "../../../tests/support/nft_text.ts";
import type { Rule } from "./rule.ts";

const CASES: Readonly<Record<Family, Masquerade>> = {
  4: {
    kind: "masquerade",
    family: 4,
    networks: [Cidr.parse("10.5.0.0/16")],
    subnets: [Cidr.parse("10.5.3.0/24")],
    fullyRandom: true,
  },
  6: {
    kind: "masquerade",
    family: 6,
    networks: [Cidr.parse("fc00:5::/48")],
    subnets: [Cidr.parse("fc00:5:0:3::/64")],
    fullyRandom: false,
  },
};

/** What the rules say of a packet, by the first whose matches all hold. */
function fate(rules: readonly Rule[], from: string, to: string, mark = 0): string {
  const [saddr, daddr] = [IpAddress.parse(from), IpAddress.parse(to)];
  const rule = rules.find(({ matches }) =>
    matches.every((match) =>
      match.kind === "mark"
        ? (mark & match.mask) === match.value
        : match.network.contains(match.kind === "saddr" ? saddr : daddr) !== (match.not ?? false)
    )
  );
  return rule?.verdict.kind ?? "nothing";
}

Deno.test("the rules are flannel's, in flannel's order", () => {
  assert.deepEqual(masqueradeRules(CASES[4]).map(nftText), [
    'meta mark & 0x00004000 == 0x00004000 return comment "kube-proxy masquerades it itself"',
    'ip saddr 10.5.3.0/24 ip daddr 10.5.0.0/16 return comment "from this node\'s pods to pods"',
    'ip saddr 10.5.0.0/16 ip daddr 10.5.3.0/24 return comment "from pods to this node\'s pods"',
    'ip saddr != 10.5.0.0/16 ip daddr 10.5.3.0/24 return comment "from hosts to this node\'s pods"',
    'ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random comment "from pods to the outside"',
    'ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random comment "from hosts to other nodes\' pods"',
  ]);
  assert.deepEqual(masqueradeRules(CASES[6]).map(nftText), [
    'meta mark & 0x00004000 == 0x00004000 return comment "kube-proxy masquerades it itself"',
    'ip6 saddr fc00:5:0:3::/64 ip6 daddr fc00:5::/48 return comment "from this node\'s pods to pods"',
    'ip6 saddr fc00:5::/48 ip6 daddr fc00:5:0:3::/64 return comment "from pods to this node\'s pods"',
    'ip6 saddr != fc00:5::/48 ip6 daddr fc00:5:0:3::/64 return comment "from hosts to this node\'s pods"',
    'ip6 saddr fc00:5::/48 ip6 daddr != ff00::/8 masquerade comment "from pods to the outside"',
    'ip6 saddr != fc00:5::/48 ip6 daddr fc00:5::/48 masquerade comment "from hosts to other nodes\' pods"',
  ]);
});

Deno.test("each kind of packet, both families", () => {
  const places = {
    4: {
      own: "10.5.3.7",
      peer: "10.5.9.7",
      host: "10.99.0.1",
      outside: "192.0.2.1",
      group: "239.1.1.1",
    },
    6: {
      own: "fc00:5:0:3::7",
      peer: "fc00:5:0:9::7",
      host: "fd99::1",
      outside: "2001:db8::1",
      group: "ff05::1",
    },
  } as const;
  for (const family of [4, 6] as const) {
    const rules = masqueradeRules(CASES[family]);
    const { own, peer, host, outside, group } = places[family];
    const expected: readonly [from: string, to: string, verdict: string][] = [
      [own, own, "return"],
      [own, peer, "return"],
      [peer, own, "return"],
      [outside, own, "return"],
      [host, own, "return"],
      [own, outside, "masquerade"],
      [own, host, "masquerade"],
      [own, group, "nothing"],
      [host, peer, "masquerade"],
      [outside, peer, "masquerade"],
      // A peer's pods that go out by this node, as flannel has it.
      [peer, outside, "masquerade"],
      [peer, peer, "masquerade"],
      [host, outside, "nothing"],
      [host, group, "nothing"],
    ];
    for (const [from, to, verdict] of expected) {
      assert.equal(fate(rules, from, to), verdict, `${from} → ${to}`);
      for (const others of [0, 0x8000, 1]) {
        const mark = KUBE_PROXY_MARK | others;
        assert.equal(fate(rules, from, to, mark), "return", `${from} → ${to}, mark ${mark}`);
      }
      assert.equal(fate(rules, from, to, 0x8000), verdict, `${from} → ${to}, a stranger's mark`);
    }
  }
});

Deno.test("two networks are one cluster: no packet between their pods is masqueraded", () => {
  const rules = masqueradeRules({
    kind: "masquerade",
    family: 4,
    networks: [Cidr.parse("10.5.0.0/16"), Cidr.parse("10.6.0.0/16")],
    subnets: [Cidr.parse("10.5.3.0/24"), Cidr.parse("10.6.3.0/24")],
    fullyRandom: true,
  });
  const own = ["10.5.3.7", "10.6.3.7"], peers = ["10.5.9.7", "10.6.9.7"];
  for (const pod of own) {
    for (const other of [...own, ...peers]) {
      assert.equal(fate(rules, pod, other), "return", `${pod} → ${other}`);
      assert.equal(fate(rules, other, pod), "return", `${other} → ${pod}`);
    }
    assert.equal(fate(rules, "192.0.2.1", pod), "return");
    assert.equal(fate(rules, pod, "192.0.2.1"), "masquerade");
    assert.equal(fate(rules, pod, "239.1.1.1"), "nothing");
  }
  for (const peer of peers) assert.equal(fate(rules, "10.99.0.1", peer), "masquerade");
});

Deno.test("hosts among the pods: what they send stays as it is, and pods reach them by this node's address", () => {
  const rules = masqueradeRules({
    ...CASES[4],
    networks: [Cidr.parse("10.0.0.0/8")],
    hosts: ["10.0.1.1", "10.0.0.254"].map((text) => IpAddress.parse(text)),
  });
  for (
    const [from, to, verdict] of [
      ["10.0.1.1", "10.0.1.2", "return"],
      ["10.0.1.1", "10.0.0.254", "return"],
      ["10.0.1.1", "192.0.2.1", "return"],
      ["192.0.2.9", "10.0.0.254", "return"],
      ["10.5.3.7", "10.0.0.254", "masquerade"],
      ["10.5.3.7", "10.5.9.7", "return"],
      ["10.5.9.7", "10.5.3.7", "return"],
      ["10.5.3.7", "192.0.2.1", "masquerade"],
    ] as const
  ) assert.equal(fate(rules, from, to), verdict, `${from} → ${to}`);
});
