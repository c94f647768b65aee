import assert from "node:assert/strict";
import { nodeContext } from "../tests/support/node_context.ts";
import { tunPeerState, tunState } from "./backend.ts";
import { nexthopId } from "./kernel_state.ts";
import { parseLease } from "./lease.ts";

const DUAL = { EnableIPv6: true, IPv6Network: "fc00:5::/48" };
const OWN = parseLease(
  "10.5.1.0-24&fc00:5:0:1::-64",
  '{"PublicIP":"10.5.9.1","PublicIPv6":"fd99::1"}',
);
const OTHER = parseLease(
  "10.5.2.0-24&fc00:5:0:2::-64",
  '{"PublicIP":"10.5.9.2","PublicIPv6":"fd99::2"}',
);
const PEER = { key: OTHER.key, halves: OTHER.halves.map((half) => ({ ...half, data: undefined })) };

Deno.test("a tunnel in user space: a route for the network, or one for each subnet among the hosts", () => {
  for (const overlapsHosts of [false, true]) {
    const node = nodeContext({ netConf: DUAL, overlapsHosts });
    const routes = tunState(node, { name: "tun0", mtuBytes: 1400 }, OWN)
      .flatMap((object) => object.kind === "route" ? `${object.destination}` : []);
    assert.deepEqual(routes, overlapsHosts ? [] : ["10.5.0.0/16", "fc00:5::/48"]);
    assert.deepEqual(
      tunPeerState(node, () => "tun0", PEER),
      !overlapsHosts ? [] : PEER.halves.flatMap(({ subnet }) => {
        const id = nexthopId(subnet);
        return [
          { kind: "nexthop", id, device: "tun0", via: subnet.address },
          { kind: "route", destination: subnet, nexthopId: id },
        ];
      }),
    );
  }
});
