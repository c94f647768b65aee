import assert from "node:assert/strict";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { vxlanLink } from "../../../tests/support/vxlan_link.ts";
import { IpAddress } from "../../ip.ts";
import type { Link } from "../../kernel_state.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { openTunnelSockets } from "../tunnel/udp_socket.ts";
import { findDeviceObstacle } from "./device_obstacles.ts";
import { udpPortHolder } from "./udp_port_holder.ts";

const VXLAN = vxlanLink();
const TUN: Link = {
  kind: "link",
  name: "flannel0",
  mtuBytes: 1400,
  info: { type: "tun", queueLength: 9 },
};

for (
  const [what, link, commands, goes, text] of [
    ["nothing", VXLAN, [], undefined, undefined],
    [
      "the device as it should be",
      VXLAN,
      ["link add flannel.1 type vxlan id 1 dstport 8472 dev eth0 local 10.99.0.1"],
      undefined,
      undefined,
    ],
    [
      "one with another VNI, which the kernel lets share the port",
      VXLAN,
      ["link add x type vxlan id 2 dstport 8472 dev eth0"],
      undefined,
      undefined,
    ],
    [
      "one with the VNI and port",
      VXLAN,
      ["link add x type vxlan id 1 dstport 8472 dev eth0"],
      false,
      /^device x has VNI 1 and UDP port 8472; remove it \(ip link del x\)/,
    ],
    [
      "another kind of device by the name",
      VXLAN,
      ["link add flannel.1 type bridge"],
      true,
      /^device flannel\.1 is there .*: the agent deletes it/,
    ],
    [
      "a device by a TUN device's name",
      TUN,
      ["link add flannel0 type bridge"],
      true,
      /^device flannel0 is there/,
    ],
  ] as const
) {
  rootTest(`in a device's way: ${what}`, () => {
    using namespace = new ScratchNamespace();
    namespace.addOuterDevice();
    for (const command of commands) namespace.ip(command);
    namespace.run(() => {
      using socket = new NetlinkSocket();
      const obstacle = findDeviceObstacle(socket, link);
      assert.equal(obstacle?.goes, goes);
      if (text !== undefined) assert.match(obstacle!.text, text);
    });
  });
}

rootTest("in a device's way: a program that has its UDP port is named", () => {
  using namespace = new ScratchNamespace();
  namespace.addOuterDevice({ ipv6: true });
  for (const address of ["10.99.0.1", "fd99::1"]) {
    namespace.run(() => {
      assert.equal(udpPortHolder(8472), undefined);
      using _socket = openTunnelSockets(IpAddress.parse(address), 8472, 1, false)[0]!;
      const holder = udpPortHolder(8472);
      assert.ok(typeof holder === "object");
      assert.equal(holder.pid, Deno.pid);
      using socket = new NetlinkSocket();
      const { goes, text } = findDeviceObstacle(socket, VXLAN)!;
      assert.ok(!goes);
      assert.equal(
        text,
        `${holder.name} (process ${Deno.pid}) has UDP port 8472; stop it, or choose another Port in net-conf's Backend`,
      );
    });
  }
});
