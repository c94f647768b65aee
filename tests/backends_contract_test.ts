/** Every backend of denim's own keeps the contract. */

import { backendContract } from "./contracts/backend.ts";
import { ip } from "./support/ip.ts";

backendContract("vxlan", {
  backend: { Type: "vxlan" },
  routes: true,
  changeData: (node) => {
    ip(node, "link set flannel.1 address 02:0a:0b:0c:0d:0e");
  },
});

backendContract("host-gw", { backend: { Type: "host-gw" }, routes: true });

backendContract("udp", { backend: { Type: "udp" }, outlivesAgent: false, publishes: true });

/** By whichever of the two there is: the kernel's WireGuard, or wireguard-go. */
backendContract("wireguard", {
  backend: { Type: "wireguard" },
  program: "wireguard-go",
  publishes: true,
  changeData: (node) => Deno.remove(`${node.directory}/wgkey`),
});

backendContract("ipip", { backend: { Type: "ipip" }, linkType: "ipip", ipv6: false, routes: true });

backendContract("alloc", { backend: { Type: "alloc" }, carries: false });

/** What flannel's documentation has as its simple example, in both families. */
backendContract("extension, as host-gw", {
  backend: {
    Type: "extension",
    SubnetAddCommand:
      '[ -z "$SUBNET" ] || ip route replace "$SUBNET" via "$PUBLIC_IP" || exit 1; ' +
      '[ -z "$IPV6SUBNET" ] || ip -6 route replace "$IPV6SUBNET" via "$PUBLIC_IPV6"',
    SubnetRemoveCommand: '[ -z "$SUBNET" ] || ip route del "$SUBNET"; ' +
      '[ -z "$IPV6SUBNET" ] || ip -6 route del "$IPV6SUBNET"',
  },
});

/** And its complex one. */
backendContract("extension, as VXLAN", {
  backend: {
    Type: "extension",
    MTU: 1450,
    PreStartupCommand: "ip link show ext0 >/dev/null 2>&1 || " +
      "ip link add ext0 mtu 1450 type vxlan id 9 dstport 8472 nolearning dev eth0; " +
      "ip -o link show ext0 | sed 's/.*ether \\([^ ]*\\).*/\\1/'",
    PostStartupCommand: 'ip addr replace "${SUBNET%/*}/32" dev ext0 && ip link set ext0 up',
    SubnetAddCommand: 'read VTEP; VIA="${SUBNET%/*}"; ' +
      'bridge fdb replace "$VTEP" dev ext0 dst "$PUBLIC_IP" && ' +
      'ip neigh replace "$VIA" dev ext0 lladdr "$VTEP" && ' +
      'ip route replace "$SUBNET" via "$VIA" dev ext0 onlink',
    SubnetRemoveCommand: 'ip route del "$SUBNET"',
  },
  ipv6: false,
  changeData: (node) => {
    ip(node, "link set ext0 address 02:0a:0b:0c:0d:0e");
  },
});
