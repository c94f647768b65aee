import assert from "node:assert/strict";
import { CONTEXT, messagesOf } from "../../../tests/support/kernel_context.ts";
import { vxlanLink } from "../../../tests/support/vxlan_link.ts";
import { IpAddress } from "../../ip.ts";
import type { PlainTunnelLink, TunLink, VxlanInfo, VxlanLink } from "../../kernel_state.ts";
import { MacAddress } from "../../mac.ts";
import {
  linkAdoptable,
  linkEqual,
  type LinkState,
  sameLink,
  writeChangedLink,
  writeNewLink,
  writeRemovedLink,
} from "./link.ts";

const MAC = MacAddress.parse("02:0a:05:00:00:02");
const IPV6 = IpAddress.parse("fd99::1");
const TUN: TunLink = {
  kind: "link",
  name: "flannel0",
  mtuBytes: 1472,
  info: { type: "tun", queueLength: 1000 },
};

const IPIP: PlainTunnelLink = {
  kind: "link",
  name: "flannel.ipip",
  mtuBytes: 1480,
  info: { type: "ipip", local: IpAddress.parse("10.99.0.1") },
};
const WIREGUARD: PlainTunnelLink = {
  kind: "link",
  name: "flannel-wg",
  mtuBytes: 1420,
  info: { type: "wireguard", program: "wireguard-go" },
};

function vxlan(info: Partial<VxlanInfo> = {}, changes: Partial<VxlanLink> = {}): VxlanLink {
  return vxlanLink({ gbp: true, ...info }, { mac: MAC, ...changes });
}

function found(changes: Partial<LinkState> = {}): LinkState {
  const { outerDevice: _, ...info } = vxlan().info;
  return {
    index: 7,
    name: "flannel.1",
    mtuBytes: 1450,
    alias: "",
    mac: MAC,
    up: true,
    operUp: true,
    running: true,
    loopback: false,
    promiscuous: false,
    masterIndex: undefined,
    type: "vxlan",
    vxlan: { ...info, outerIndex: 9 },
    tun: undefined,
    ipip: undefined,
    queueLength: 1000,
    ...changes,
  };
}

function foundTun(changes: Partial<LinkState["tun"]> = {}): LinkState {
  const tun = { persistent: true, multiQueue: true, bareIp: true, ...changes };
  return found({ name: "flannel0", mtuBytes: 1472, mac: undefined, vxlan: undefined, tun });
}

function foundPlain(type: string, changes: Partial<LinkState> = {}): LinkState {
  return found({ type, mtuBytes: 1420, mac: undefined, vxlan: undefined, ...changes });
}

function foundIpip(local: string, remote = "0.0.0.0"): LinkState {
  const ipip = { local: IpAddress.parse(local), remote: IpAddress.parse(remote) };
  return foundPlain("ipip", { mtuBytes: 1480, ipip });
}

Deno.test("writeNewLink writes RTM_NEWLINK with all that a VXLAN device is made with", () => {
  assert.deepEqual(messagesOf((writer) => writeNewLink(writer, vxlan(), CONTEXT)), [
    [
      "16 0x600:", // NLM_F_CREATE | NLM_F_EXCL
      "00000000 00000000 01000000 01000000", // struct ifinfomsg with IFF_UP
      "0e000300 666c616e 6e656c2e 31000000", // IFLA_IFNAME
      "08000400 aa050000", // IFLA_MTU
      "0a000100 020a0500 00020000", // IFLA_ADDRESS
      "48001280 0a000100 76786c61 6e000000", // IFLA_LINKINFO, IFLA_INFO_KIND
      "38000280 08000100 01000000", // IFLA_INFO_DATA, IFLA_VXLAN_ID
      "06000f00 21180000", // IFLA_VXLAN_PORT
      "04001700", // IFLA_VXLAN_GBP
      "05001200 00000000", // IFLA_VXLAN_UDP_CSUM
      "08000300 09000000", // IFLA_VXLAN_LINK
      "08000400 0a630001", // IFLA_VXLAN_LOCAL
      "05000700 00000000", // IFLA_VXLAN_LEARNING
    ].join(" "),
  ]);
});

Deno.test("writeNewLink writes an IPIP device as flannel has it, and a WireGuard device by its type alone", () => {
  const made = (link: PlainTunnelLink) =>
    messagesOf((writer) => writeNewLink(writer, link, CONTEXT));
  const start = "16 0x600: 00000000 00000000 01000000 01000000";
  assert.deepEqual(made(IPIP), [
    [
      start,
      "11000300 666c616e 6e656c2e 69706970 00000000", // IFLA_IFNAME
      "08000400 c8050000", // IFLA_MTU
      "24001280 09000100 69706970 00000000", // IFLA_LINKINFO, IFLA_INFO_KIND
      "14000280 08000200 0a630001 05000a00 00000000", // IFLA_INFO_DATA: IFLA_IPTUN_LOCAL, IFLA_IPTUN_PMTUDISC
    ].join(" "),
  ]);
  assert.deepEqual(made(WIREGUARD), [
    `${start} 0f000300 666c616e 6e656c2d 77670000 08000400 8c050000 ` +
    "14001280 0e000100 77697265 67756172 64000000",
  ]);
});

Deno.test("writeChangedLink writes what differs: the tunnel by itself, the MAC only if it is another", () => {
  const change = (state: LinkState) =>
    messagesOf((writer) => writeChangedLink(writer, vxlan(), state, CONTEXT));
  const settings = "16 0x0: 00000000 07000000 01000000 01000000 08000400 aa050000";
  assert.deepEqual(change(found({ up: false })), [settings]);
  assert.deepEqual(change(found({ mac: undefined })), [`${settings} 0a000100 020a0500 00020000`]);
  assert.deepEqual(change(found({ vxlan: { ...found().vxlan!, learning: true } })), [
    "16 0x0: 00000000 07000000 00000000 00000000 2c001280 0a000100 76786c61 6e000000 " +
    "1c000280 08000300 09000000 08000400 0a630001 05000700 00000000",
    settings,
  ]);
  assert.deepEqual(
    messagesOf((writer) => writeRemovedLink(writer, 7)),
    ["17 0x0: 00000000 07000000 00000000 00000000"],
  );
});

Deno.test("linkEqual and linkAdoptable tell what is right, what can be changed, and what has to go", () => {
  const tunnel = (changes: Partial<LinkState["vxlan"]>) =>
    found({ vxlan: { ...found().vxlan!, ...changes } });
  for (
    const [what, wanted, state, expected] of [
      ["the same", vxlan(), found(), "right"],
      ["down", vxlan(), found({ up: false }), "changeable"],
      ["MTU", vxlan(), found({ mtuBytes: 1400 }), "changeable"],
      ["MAC", vxlan(), found({ mac: MacAddress.parse("02:00:00:00:00:77") }), "changeable"],
      ["local", vxlan(), tunnel({ local: IpAddress.parse("10.99.0.7") }), "changeable"],
      ["outer device", vxlan(), tunnel({ outerIndex: 8 }), "changeable"],
      ["renamed outer device", vxlan({ outerDevice: "wan0" }), tunnel({ outerIndex: 8 }), "right"],
      ["local's family", vxlan(), tunnel({ local: IPV6 }), "another"],
      ["VNI", vxlan(), tunnel({ vni: 2 }), "another"],
      ["port", vxlan(), tunnel({ port: 4789 }), "another"],
      ["GBP", vxlan(), tunnel({ gbp: false }), "another"],
      ["a TUN device", vxlan(), foundTun(), "another"],
      ["TUN, the same", TUN, foundTun(), "right"],
      ["queue length", TUN, { ...foundTun(), queueLength: 10 }, "changeable"],
      ["one queue", TUN, foundTun({ multiQueue: false }), "another"],
      ["not persistent", TUN, foundTun({ persistent: false }), "another"],
      ["TAP", TUN, foundTun({ bareIp: false }), "another"],
      ["WireGuard, the kernel's", WIREGUARD, foundPlain("wireguard"), "right"],
      ["WireGuard, a program's", WIREGUARD, {
        ...foundTun({ persistent: false, multiQueue: false }),
        mtuBytes: 1420,
      }, "right"],
      ["WireGuard, udp's TUN", WIREGUARD, { ...foundTun(), mtuBytes: 1420 }, "another"],
      ["WireGuard, MTU", WIREGUARD, foundPlain("wireguard", { mtuBytes: 1400 }), "changeable"],
      ["WireGuard, IPIP", WIREGUARD, foundIpip("10.99.0.1"), "another"],
      ["IPIP, the same", IPIP, foundIpip("10.99.0.1"), "right"],
      ["IPIP, down", IPIP, { ...foundIpip("10.99.0.1"), up: false }, "changeable"],
      ["IPIP, local", IPIP, foundIpip("10.99.0.2"), "another"],
      ["IPIP, remote", IPIP, foundIpip("10.99.0.1", "10.99.0.2"), "another"],
      ["IPIP, WireGuard", IPIP, foundPlain("wireguard"), "another"],
    ] as const
  ) {
    const equal = linkEqual(wanted, state, CONTEXT);
    const verdict = equal ? "right" : linkAdoptable(wanted, state) ? "changeable" : "another";
    assert.equal(verdict, expected, what);
  }
});

Deno.test("sameLink tells whether two ask for the same", () => {
  assert.ok(sameLink(vxlan(), vxlan()));
  assert.ok(sameLink(TUN, { ...TUN }));
  const others: readonly VxlanLink[] = [
    vxlan({}, { name: "flannel.2" }),
    vxlan({}, { mtuBytes: 1400 }),
    vxlan({}, { mac: MacAddress.parse("02:00:00:00:00:77") }),
    vxlan({ vni: 2 }),
    vxlan({ port: 4789 }),
    vxlan({ outerDevice: "wan0" }),
    vxlan({ local: IpAddress.parse("10.99.0.7") }),
    vxlan({ learning: true }),
    vxlan({ gbp: false }),
  ];
  for (const other of others) assert.ok(!sameLink(vxlan(), other), JSON.stringify(other));
  assert.ok(!sameLink(vxlan(), { ...TUN, name: "flannel.1", mtuBytes: 1450 }));
  assert.ok(!sameLink(TUN, { ...TUN, info: { type: "tun", queueLength: 10 } }));
  assert.ok(sameLink(IPIP, { ...IPIP }));
  assert.ok(!sameLink(IPIP, { ...IPIP, info: { type: "ipip", local: IPV6 } }));
  assert.ok(sameLink(WIREGUARD, { ...WIREGUARD }));
  assert.ok(!sameLink(WIREGUARD, { ...WIREGUARD, info: { type: "wireguard", program: "other" } }));
  assert.ok(!sameLink(WIREGUARD, { ...WIREGUARD, info: IPIP.info }));
});
