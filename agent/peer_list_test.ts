import { Cidr, IpAddress, type Peer, subnetRoute } from "@denim/core";
import assert from "node:assert/strict";
import { PeerList } from "./peer_list.ts";

const SUBNET = Cidr.parse("10.5.2.0/24");
const PUBLIC_IP = IpAddress.parse("10.99.0.2");
const PEER: Peer<unknown> = {
  key: "10.5.2.0-24",
  halves: [{ subnet: SUBNET, publicIp: PUBLIC_IP, data: undefined }],
};

Deno.test("peers: one whose own address is its gateway is direct, unless that is a tunnel's", () => {
  const way = {
    backend: "ipip",
    mtuBytes: 1480,
    hasDeviceAddress: true,
    devices: ["flannel.ipip"],
  };
  const list = new PeerList();
  for (
    const [device, via, isDirect] of [
      ["eth0", PUBLIC_IP, true],
      ["flannel.ipip", PUBLIC_IP, false],
      ["flannel.1", SUBNET.address, false],
    ] as const
  ) {
    list.put(PEER, subnetRoute(SUBNET, device, via), way);
    assert.deepEqual([...list][0]!.halves[0], {
      subnet: SUBNET,
      publicIp: PUBLIC_IP,
      device,
      isDirect,
    });
  }
});
