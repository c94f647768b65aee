import { Cidr, IpAddress, MacAddress } from "@denim/core";
import type { AddressState, LinkState } from "@denim/core/linux";
import assert from "node:assert/strict";
import type { ListedPeer } from "../peer_list.ts";
import { type KernelView, packetWays } from "./packet_way.ts";

const MAC = MacAddress.parse("02:0a:00:00:00:02");
const [SUBNET, OWN] = [Cidr.parse("10.5.2.0/24"), Cidr.parse("10.5.1.0/24")];
const PEER: ListedPeer = {
  key: "10.5.2.0-24",
  way: { backend: "vxlan", mtuBytes: 1450, hasDeviceAddress: true, devices: ["flannel.1"] },
  halves: [{
    subnet: SUBNET,
    publicIp: IpAddress.parse("172.16.0.2"),
    device: "flannel.1",
    isDirect: false,
  }],
  changedAtMs: 0,
};

function link(index: number, name: string, changes: Partial<LinkState> = {}): LinkState {
  return { index, name, mtuBytes: 1500, mac: MAC, type: undefined, ...changes } as LinkState;
}

/** A node with a bridge, a VXLAN device and an outer interface, as far as it is asked. */
function view(changes: Partial<KernelView> = {}): KernelView {
  const vxlan = { vni: 1, port: 8472 } as NonNullable<LinkState["vxlan"]>;
  const on = (index: number, address: string) =>
    ({ index, address: IpAddress.parse(address) }) as AddressState;
  return {
    links: [
      link(1, "eth0"),
      link(2, "br-other", { type: "bridge" }),
      link(3, "cni0", { type: "bridge", mtuBytes: 1450 }),
      link(4, "flannel.1", { type: "vxlan", mtuBytes: 1450, vxlan }),
    ],
    addresses: [
      on(1, "10.99.0.1"),
      on(2, "192.168.0.1"),
      on(3, "10.5.1.1"),
      on(4, "10.5.1.0"),
    ],
    kernel: {
      routeTo: (address) =>
        SUBNET.contains(address)
          ? { device: "flannel.1", gateway: SUBNET.address }
          : { device: "eth0", gateway: IpAddress.parse("10.99.0.254") },
    },
    macBehind: ({ name }) => name === "flannel.1" ? MAC : undefined,
    ...changes,
  };
}

const outer = { name: "eth0" };

Deno.test("packet's way: each station as the kernel has it", () => {
  assert.deepEqual(packetWays(PEER, [OWN], outer, view()), [{
    fromSubnet: "10.5.1.0/24",
    bridge: {
      name: "cni0",
      type: "bridge",
      mtuBytes: 1450,
      mac: `${MAC}`,
      address: "10.5.1.1",
      vxlan: null,
    },
    to: "10.5.2.2",
    toSubnet: "10.5.2.0/24",
    via: "10.5.2.0",
    device: {
      name: "flannel.1",
      type: "vxlan",
      mtuBytes: 1450,
      mac: `${MAC}`,
      address: "10.5.1.0",
      vxlan: { vni: 1, port: 8472 },
    },
    peerMac: `${MAC}`,
    isDirect: false,
    publicIp: "172.16.0.2",
    outer: {
      name: "eth0",
      type: null,
      mtuBytes: 1500,
      mac: `${MAC}`,
      address: "10.99.0.1",
      vxlan: null,
    },
    router: "10.99.0.254",
  }]);
});

Deno.test("packet's way: what the kernel lacks is left open, a direct route is told from a tunnel", () => {
  const direct = {
    routeTo: () => ({ device: "eth0", gateway: IpAddress.parse("172.16.0.2") }),
  };
  const [way] = packetWays(PEER, [OWN], outer, view({ kernel: direct, addresses: [] }));
  assert.deepEqual([way!.isDirect, way!.bridge, way!.outer!.address], [true, null, null]);
  const [lost] = packetWays(PEER, [OWN], outer, view({ kernel: { routeTo: () => undefined } }));
  assert.deepEqual([lost!.device, lost!.via, lost!.outer, lost!.isDirect], [
    null,
    null,
    null,
    false,
  ]);
  assert.deepEqual(packetWays(PEER, [Cidr.parse("fd00::/64")], outer, view()), []);
});
