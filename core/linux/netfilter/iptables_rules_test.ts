import assert from "node:assert/strict";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { Cidr, FAMILIES, type Family } from "../../ip.ts";
import {
  forwardChain,
  type IptablesChain,
  jumpText,
  masqueradeChain,
  restoreText,
} from "./iptables_rules.ts";

const NETWORKS: Readonly<Record<Family, readonly [network: string, subnet: string]>> = {
  4: ["10.5.0.0/16", "10.5.3.0/24"],
  6: ["fc00:5::/48", "fc00:5:0:3::/64"],
};

function chainsOf(family: Family, fullyRandom = true): IptablesChain[] {
  const [network, subnet] = NETWORKS[family].map(Cidr.parse);
  return [
    masqueradeChain({
      kind: "masquerade",
      family,
      networks: [network!],
      subnets: [subnet!],
      fullyRandom,
    }),
    forwardChain([network!]),
  ];
}

const RULES_4 =
  `-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.3.0/24 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 10.5.3.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.3.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
`;
const RULES_6 =
  `-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s fc00:5:0:3::/64 -d fc00:5::/48 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s fc00:5::/48 -d fc00:5:0:3::/64 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s fc00:5::/48 -d fc00:5:0:3::/64 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s fc00:5::/48 ! -d ff00::/8 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s fc00:5::/48 -d fc00:5::/48 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
`;
const FORWARD_4 = `-A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
`;
const FORWARD_6 = FORWARD_4.replaceAll("10.5.0.0/16", "fc00:5::/48");
const RULES = { 4: [RULES_4, FORWARD_4], 6: [RULES_6, FORWARD_6] } as const;

Deno.test("the text is what flannel gives iptables-restore, both families", () => {
  for (const family of FAMILIES) {
    const [masquerade, forward] = RULES[family];
    assert.equal(
      restoreText(chainsOf(family), new Set()),
      `*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
${masquerade}COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
${forward}COMMIT
`,
    );
    assert.equal(
      restoreText(chainsOf(family, false).slice(0, 1), new Set(["FLANNEL-POSTRTG"])),
      `*nat
:FLANNEL-POSTRTG - [0:0]
-D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
${masquerade.replaceAll(" --random-fully", "")}COMMIT
`,
    );
  }
});

rootTest("iptables-restore takes the text again and again, and leaves others' rules alone", () => {
  using ns = new ScratchNamespace();
  for (const family of FAMILIES) {
    const program = family === 4 ? "iptables" : "ip6tables";
    const run = (script: string, ...args: string[]) => ns.run(() => sh(script, args));
    const saved = () =>
      run(`${program}-save`).split("\n").filter((line) => line.startsWith("-A ")).sort();
    run(`${program} -t nat -A POSTROUTING -o lo -j ACCEPT; ${program} -A FORWARD -i lo -j DROP`);
    const others = saved();
    const chains = chainsOf(family);
    const jumps = chains.map(jumpText);
    const restore = (found: boolean) =>
      run(
        `printf %s "$1" | ${program}-restore --noflush`,
        restoreText(chains, new Set(found ? chains.map(({ name }) => name) : [])),
      );
    const expected = [
      ...others,
      ...jumps.map((jump) => `-A ${jump}`),
      ...RULES[family].join("").trimEnd().split("\n"),
    ].sort();
    restore(false);
    assert.deepEqual(saved(), expected);
    // A stranger's rule in denim's chain goes; a jump that is there is not doubled.
    run(`${program} -A FLANNEL-FWD -j DROP`);
    restore(true);
    assert.deepEqual(saved(), expected);
  }
});
