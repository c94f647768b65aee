import assert from "node:assert/strict";
import { Cidr } from "@denim/core/ip";
import type { SubnetEnv } from "@denim/core/subnet-env";
import { ConfObject, type JsonObject } from "./conf_object.ts";
import { type BridgeConf, isDelegated, readBridgeConf, renderDelegate } from "./delegate_conf.ts";
import { readArgs } from "./environment.ts";
import { readNetworkConf } from "./network_conf.ts";

const ENV: SubnetEnv = {
  halves: [{ networks: [Cidr.parse("10.5.0.0/16")], subnet: Cidr.parse("10.5.38.0/24") }],
  mtuBytes: 1450,
  ipMasq: false,
};
const DUAL: SubnetEnv = {
  ...ENV,
  halves: [...ENV.halves, {
    networks: [Cidr.parse("fc00:5::/48"), Cidr.parse("fc00:6::/48")],
    subnet: Cidr.parse("fc00:5:0:e::/64"),
  }],
};

function render(conf: JsonObject, env = ENV): ConfObject {
  const json = new ConfObject({ cniVersion: "1.0.0", name: "cbr0", ...conf }, "");
  return renderDelegate(readNetworkConf(json), env);
}

function read(conf: JsonObject, env = ENV, args = ""): BridgeConf {
  return readBridgeConf(render(conf, env), readArgs(args));
}

Deno.test("renderDelegate fills in what flannel fills in", () => {
  assert.deepEqual(render({}).json, {
    name: "cbr0",
    type: "bridge",
    cniVersion: "1.0.0",
    mtu: 1450,
    isGateway: true,
    denimMasquerade: true,
    ipMasq: false,
    ipam: {
      type: "host-local",
      ranges: [[{ subnet: "10.5.38.0/24" }]],
      routes: [{ dst: "10.5.0.0/16" }],
    },
  });
});

Deno.test("renderDelegate keeps the user's own, and both families", () => {
  const { json } = render({
    delegate: { mtu: 1400, isGateway: false, bridge: "br1", hairpinMode: null },
    ipam: { routes: [{ dst: "0.0.0.0/0", gw: "10.5.38.9" }], dataDir: "/d", ranges: [] },
    runtimeConfig: { mac: "02:00:00:00:00:01" },
    args: { cni: {} },
    dns: { domain: "a.b" },
  }, DUAL);
  assert.deepEqual(json, {
    name: "cbr0",
    type: "bridge",
    cniVersion: "1.0.0",
    mtu: 1400,
    isGateway: false,
    denimMasquerade: true,
    ipMasq: false,
    bridge: "br1",
    runtimeConfig: { mac: "02:00:00:00:00:01" },
    args: { cni: {} },
    dns: { domain: "a.b" },
    ipam: {
      type: "host-local",
      dataDir: "/d",
      ranges: [[{ subnet: "10.5.38.0/24" }], [{ subnet: "fc00:5:0:e::/64" }]],
      routes: [
        { dst: "0.0.0.0/0", gw: "10.5.38.9" },
        { dst: "10.5.0.0/16" },
        { dst: "fc00:5::/48" },
        { dst: "fc00:6::/48" },
      ],
    },
  });
});

Deno.test("renderDelegate asks another plugin to masquerade if the agent does not", () => {
  const delegateOf = (delegate: JsonObject, ipMasq: boolean) =>
    render({ delegate, ipam: { type: "static" } }, { ...ENV, ipMasq }).json;
  const { isGateway, ipMasq, ipam } = delegateOf({ type: "ptp" }, false);
  assert.deepEqual([isGateway, ipMasq], [undefined, true]);
  assert.deepEqual(ipam, {
    type: "static",
    ranges: [[{ subnet: "10.5.38.0/24" }]],
    routes: [{ dst: "10.5.0.0/16" }],
  });
  assert.equal(delegateOf({ type: "ptp" }, true).ipMasq, false);
  assert.equal(delegateOf({ type: "ptp", ipMasq: true }, true).ipMasq, true);
  assert.equal(delegateOf({}, false).ipMasq, true, "the bridge plugin's, for an ipam of its own");
});

/** What becomes of `ipMasq` and `ipMasqBackend`, if the agent masquerades and if it does not. */
const MASQUERADES: readonly (readonly [
  conf: JsonObject,
  agentDoes: boolean,
  who: "denim" | "bridge" | "nobody",
])[] = [
  [{}, false, "denim"],
  [{}, true, "nobody"],
  [{ delegate: { ipMasq: true } }, true, "denim"],
  [{ delegate: { ipMasq: false } }, false, "nobody"],
  [{ delegate: { ipMasq: null } }, false, "denim"],
  [{ delegate: { IPMasq: true } }, true, "denim"],
  [{ delegate: { ipmasq: false } }, false, "nobody"],
  // flannel knows the keys of `delegate` alone, and those of the bridge plugin are beside each other.
  [{ ipMasq: true }, true, "denim"],
  [{ ipMasq: false }, false, "nobody"],
  [{ ipMasq: false, delegate: { ipMasq: true } }, true, "denim"],
  [{ delegate: { ipMasqBackend: "nftables" } }, false, "denim"],
  [{ delegate: { ipMasqBackend: "nftables" } }, true, "nobody"],
  [{ delegate: { ipMasqBackend: "iptables" } }, false, "bridge"],
  [{ delegate: { ipMasqBackend: "iptables" } }, true, "nobody"],
  [{ delegate: { ipMasqBackend: "iptables", ipMasq: true } }, true, "bridge"],
  [{ delegate: { ipMasqBackend: "iptables", ipMasq: false } }, false, "nobody"],
  [{ ipMasqBackend: "iptables", ipMasq: true }, true, "bridge"],
  [{ ipMasqBackend: "iptables", delegate: { ipMasqBackend: "nftables" } }, false, "denim"],
  [{ delegate: { vlan: 5 } }, false, "bridge"],
];
for (const [conf, agentDoes, who] of MASQUERADES) {
  const agent = agentDoes ? "beside an agent that does" : "without the agent";
  Deno.test(`who masquerades ${agent}: ${JSON.stringify(conf)}`, () => {
    const rendered = render(conf, { ...ENV, ipMasq: agentDoes });
    const { ipMasq, denimMasquerade } = rendered.json;
    assert.deepEqual(
      { ipMasq, denimMasquerade },
      { ipMasq: who === "bridge", denimMasquerade: who === "denim" ? true : undefined },
    );
    assert.equal(isDelegated(rendered), who === "bridge");
    if (who !== "bridge") {
      assert.equal(readBridgeConf(rendered, readArgs("")).isMasqueraded, who === "denim");
    }
  });
}

Deno.test("readBridgeConf has the bridge plugin's defaults", () => {
  const { ipam, ...conf } = read({});
  assert.deepEqual(conf, {
    name: "cbr0",
    bridge: "cni0",
    isGateway: true,
    isDefaultGateway: false,
    forceAddress: false,
    hairpinMode: false,
    promiscMode: false,
    enableDad: false,
    mtuBytes: 1450,
    mac: undefined,
    isMasqueraded: true,
    addressDirectory: "/var/lib/cni/networks/cbr0",
    dns: undefined,
  });
  assert.equal(
    JSON.stringify(ipam.ranges),
    JSON.stringify([{
      subnet: "10.5.38.0/24",
      first: "10.5.38.1",
      last: "10.5.38.254",
      gateway: "10.5.38.1",
    }]),
  );
});

Deno.test("readBridgeConf: a default gateway is a gateway; IPv6 has no broadcast address", () => {
  const conf = read({ delegate: { isDefaultGateway: true, isGateway: false, mtu: 0 } }, DUAL);
  assert.equal(conf.isGateway, true);
  assert.equal(conf.mtuBytes, undefined);
  assert.equal(`${conf.ipam.ranges[1]!.last}`, "fc00:5:0:e:ffff:ffff:ffff:ffff");
});

Deno.test("readBridgeConf: the runtime's MAC goes before args.cni's, and that before CNI_ARGS'", () => {
  const mac = (last: number) => `02:00:00:00:00:0${last}`;
  const env = `MAC=${mac(1)}`;
  const args = { cni: { mac: mac(2) } };
  assert.equal(`${read({}, ENV, env).mac}`, mac(1));
  assert.equal(`${read({ args }, ENV, env).mac}`, mac(2));
  assert.equal(`${read({ args, runtimeConfig: { mac: mac(3) } }, ENV, env).mac}`, mac(3));
});

Deno.test("readBridgeConf collects every wish for an address", () => {
  const conf = read(
    { args: { cni: { ips: ["10.5.38.8/24"] } }, runtimeConfig: { ips: ["fc00:5:0:e::8"] } },
    DUAL,
    "IP=10.5.38.7",
  );
  assert.deepEqual(conf.ipam.requested.map(String), ["10.5.38.7", "10.5.38.8", "fc00:5:0:e::8"]);
});

Deno.test("readBridgeConf reads routes with all that they say", () => {
  const route = { dst: "10.9.0.0/16", gw: "10.5.38.9", mtu: 1400, advmss: 1360, priority: 5 };
  const [first] = read({ ipam: { routes: [{ ...route, table: 100, scope: 0 }] } }).ipam.routes;
  assert.equal(JSON.stringify(first), JSON.stringify({ ...route, table: 100, scope: 0 }));
});

for (
  const [name, conf, code, message] of [
    [
      "delegate.name",
      { delegate: { name: "x" } },
      7,
      /delegate\.name must be left out/,
    ],
    ["delegate.ipam", { delegate: { ipam: {} } }, 7, /delegate\.ipam must be left out/],
    [
      "itself as its delegate",
      { type: "denim", delegate: { type: "denim" } },
      7,
      /delegate\.type is "denim"; it must be the name of another plugin than this one/,
    ],
    ["a type that is not a text", { delegate: { type: 5 } }, 7, /delegate\.type is 5/],
    ["hairpin and promisc", { delegate: { hairpinMode: true, promiscMode: true } }, 7, /both/],
    ["a bridge without a name for it", { delegate: { bridge: "a/b" } }, 7, /delegate\.bridge/],
    ["an MTU that no device has", { delegate: { mtu: 65_536 } }, 7, /mtu is 65536; .* to 65535/],
    ["an MTU in words", { delegate: { mtu: "1500" } }, 7, /delegate\.mtu is "1500"/],
    ["a wrong MAC", { runtimeConfig: { mac: "x" } }, 7, /runtimeConfig\.mac is "x"/],
    ["a route to nowhere", { ipam: { routes: [{}] } }, 7, /ipam\.routes\[0\]\.dst is missing/],
    [
      "a gateway of the other family",
      { ipam: { routes: [{ dst: "10.0.0.0/8", gw: "fc00::1" }] } },
      7,
      /ipam\.routes\[0\]\.gw is "fc00::1"; it must be an IPv4 address/,
    ],
    ["ipMasq in words", { delegate: { ipMasq: "true" } }, 7, /delegate\.ipMasq is "true"/],
    [
      "a way to masquerade that there is none of",
      { delegate: { ipMasqBackend: "ebtables" } },
      7,
      /delegate\.ipMasqBackend is "ebtables"; it must be "nftables" or "iptables"/,
    ],
    ["the same at the top", { ipMasqBackend: 5 }, 7, /^ipMasqBackend is 5; it must be "nftables"/],
    ["a name that is a path", { name: "../x" }, 7, /name is "\.\.\/x"/],
    ["no name", { name: null }, 7, /name is missing|name is null/],
    ["a bridge with a name for many", { delegate: { bridge: "br%d" } }, 7, /delegate\.bridge/],
  ] as const
) {
  Deno.test(`a configuration is refused: ${name}`, () => {
    assert.throws(() => read(conf as JsonObject), (error: { code?: number; message?: string }) => {
      assert.match(error.message!, message);
      assert.equal(error.code, code);
      return true;
    });
  });
}

/** What asks for what only the bridge plugin does, and how an error names it. */
const BEYOND: readonly (readonly [JsonObject, RegExp])[] = [
  [{ delegate: { vlan: 5 } }, /delegate\.vlan is 5, which denim does not do itself/],
  [{ delegate: { VLAN: "5" } }, /delegate\.vlan is "5"/],
  [{ delegate: { vlanTrunk: [{ id: 5 }] } }, /delegate\.vlanTrunk is \[{"id":5}\]/],
  [{ delegate: { macspoofchk: true } }, /delegate\.macspoofchk is true/],
  [{ delegate: { portIsolation: true } }, /delegate\.portIsolation is true/],
  [
    { delegate: { disableContainerInterface: true } },
    /delegate\.disableContainerInterface is true/,
  ],
  [{ delegate: { ipMasqBackend: "iptables" } }, /delegate\.ipMasqBackend is "iptables"/],
  [{ ipam: { type: "dhcp" } }, /delegate\.ipam\.type is "dhcp"/],
  [{ ipam: { subnet: "10.0.0.0/8" } }, /delegate\.ipam\.subnet is "10\.0\.0\.0\/8"/],
  [{ ipam: { rangeStart: "10.5.38.9" } }, /delegate\.ipam\.rangeStart is/],
  [{ ipam: { rangeEnd: "10.5.38.9" } }, /delegate\.ipam\.rangeEnd is/],
  [{ ipam: { gateway: "10.5.38.9" } }, /delegate\.ipam\.gateway is/],
  [{ runtimeConfig: { ipRanges: [[{}]] } }, /delegate\.runtimeConfig\.ipRanges is/],
];
for (const [conf, message] of BEYOND) {
  Deno.test(`the bridge plugin does what denim does not: ${JSON.stringify(conf)}`, () => {
    const rendered = render(conf);
    assert.ok(isDelegated(rendered));
    assert.equal(rendered.get("ipMasq"), true, "flannel's default for a plugin that masquerades");
    assert.throws(() => read(conf), { code: 2, message });
  });
}

/** Keys that neither denim nor the plugins that it replaces know, and those that are switched off. */
const IGNORED: readonly JsonObject[] = [
  { delegate: { _comment: "pods", addIf: "eth0", hairpinmod: true, preserveDefaultVlan: true } },
  { delegate: { ipMasqBackend: "nftables", capabilities: { mac: true }, prevResult: {} } },
  { delegate: { vlan: 0, vlanTrunk: [], macspoofchk: false, portIsolation: null, ipMasq: false } },
  { ipam: { "unknown-param": "value", $comment: ["a"], name: "x", type: "host-local" } },
  { ipam: { subnet: "", gateway: null, type: "" } },
  { ipam: { routes: [{ dst: "10.9.0.0/16", comment: "to the office" }] } },
  { runtimeConfig: { portMappings: [{ hostPort: 80 }], ipRanges: [], bandwidth: { x: 1 } } },
  { args: { cni: { labels: ["a"] }, other: {} }, dns: { comment: "none" }, comment: 5 },
];
for (const conf of IGNORED) {
  Deno.test(`a configuration is taken, and what is unknown or off ignored: ${JSON.stringify(conf)}`, () => {
    assert.ok(!isDelegated(render(conf)));
    assert.equal(read(conf).isGateway, true);
  });
}

Deno.test("renderDelegate lowers an MTU of subnet.env that no pod's device can have", () => {
  const mtuOf = (mtuBytes: number, delegate: JsonObject = {}) =>
    render({ delegate }, { ...ENV, mtuBytes }).get("mtu");
  assert.equal(mtuOf(65_536), 65_535);
  assert.equal(mtuOf(65_536, { type: "ptp" }), 65_535);
  assert.equal(mtuOf(65_535), 65_535);
  // A user's own is a user's to mend.
  assert.equal(mtuOf(1450, { mtu: 65_536 }), 65_536);
});

Deno.test("a subnet too small for a pod is refused", () => {
  const halves = [{ ...ENV.halves[0]!, subnet: Cidr.parse("10.5.38.0/31") }];
  assert.throws(() => read({}, { ...ENV, halves }), { code: 7, message: /too small for pods/ });
});
