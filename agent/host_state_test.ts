import { Cidr, type Family } from "@denim/core";
import assert from "node:assert/strict";
import { forwardState, hostState, masqueradeState } from "./host_state.ts";

Deno.test("a node forwards by each device in IPv4, and as a whole in IPv6", () => {
  const state = hostState([{ family: 4 }, { family: 6 }], ["eth0", "flannel.1"]);
  assert.deepEqual(state, [
    { kind: "forwarding", family: 4, device: "all" },
    { kind: "forwarding", family: 4, device: "eth0" },
    { kind: "forwarding", family: 4, device: "flannel.1" },
    { kind: "forwarding", family: 6, device: "all" },
  ]);
});

Deno.test("the pods' bridge has the first address of each subnet", () => {
  const subnets = ["10.5.7.0/24", "fd05:0:0:7::/64"].map((text) => Cidr.parse(text));
  const addresses = hostState([], [], subnets).map((object) =>
    "address" in object && "prefixLength" in object && `${object.address}/${object.prefixLength}`
  );
  assert.deepEqual(addresses, ["10.5.7.1/24", "fd05:0:0:7::1/64"]);
});

const NETWORKS: Readonly<Record<Family, Cidr>> = {
  4: Cidr.parse("10.5.0.0/16"),
  6: Cidr.parse("fc00:5::/48"),
};
const SUBNETS: Readonly<Record<Family, Cidr>> = {
  4: Cidr.parse("10.5.7.0/24"),
  6: Cidr.parse("fc00:5:0:7::/64"),
};
const configOf = (family: Family) => ({ family, network: NETWORKS[family] });
const wantedOf = (family: Family, fullyRandom: boolean) => ({
  kind: "masquerade",
  family,
  networks: [NETWORKS[family]],
  subnets: [SUBNETS[family]],
  engine: undefined,
  fullyRandom,
});

const MASQUERADES: readonly (readonly [
  what: string,
  families: readonly Family[],
  subnets: readonly Family[],
  fullyRandom: boolean | undefined,
  wanted: readonly Family[],
])[] = [
  ["both families", [4, 6], [4, 6], true, [4, 6]],
  ["IPv4 alone", [4], [4], true, [4]],
  ["IPv6 alone", [6], [6], true, [6]],
  ["source ports in order", [4, 6], [4, 6], false, [4, 6]],
  ["a family without a subnet yet", [4, 6], [4], true, [4]],
  ["a subnet of a family that net-conf no longer has", [6], [4, 6], true, [6]],
  ["switched off", [4, 6], [4, 6], undefined, []],
];

for (const [what, families, subnets, fullyRandom, wanted] of MASQUERADES) {
  Deno.test(`masquerade: ${what}`, () => {
    const state = masqueradeState(
      { families: families.map(configOf), enableNFTables: undefined },
      subnets.map((family) => SUBNETS[family]),
      fullyRandom === undefined ? undefined : { fullyRandom },
    );
    assert.deepEqual(state, wanted.map((family) => wantedOf(family, fullyRandom!)));
  });
}

Deno.test("net-conf may choose what masquerades", () => {
  for (const [enableNFTables, engine] of [[true, "nftables"], [false, "iptables"]] as const) {
    const families = [configOf(4)];
    const state = masqueradeState({ families, enableNFTables }, [SUBNETS[4]], {
      fullyRandom: true,
    });
    assert.deepEqual(state, [{ ...wantedOf(4, true), engine }]);
  }
});

Deno.test("pods' packets pass in each family that net-conf enables", () => {
  assert.deepEqual(
    forwardState([6, 4].map((family) => configOf(family as Family))),
    [4, 6].map((family) => ({
      kind: "podForward",
      family,
      networks: [configOf(family as Family).network],
    })),
  );
});
