import assert from "node:assert/strict";
import { rootTest } from "../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../tests/support/scratch_namespace.ts";
import { IpAddress } from "../ip.ts";
import { findLink, listLinks, writeLinkHeader, writeRemovedLink } from "./link.ts";
import { NetlinkSocket } from "./netlink_socket.ts";
import { routeTo } from "./route.ts";
import { RTM_GETLINK } from "./uapi/rtnetlink.ts";

rootTest(
  "an answer that was not read to its end is not taken for that to the next question",
  () => {
    using ns = new ScratchNamespace();
    // More than one datagram's worth.
    for (let number = 0; number < 50; number++) {
      ns.ip(`link add a${number} type veth peer name b${number}`);
    }
    using socket = ns.run(() => new NetlinkSocket());
    const all = listLinks(socket).length;
    const giveUp = () =>
      socket.dump(
        "links",
        (writer) => writeLinkHeader(writer.begin(RTM_GETLINK, 0), {}).end(),
        () => {
          throw new RangeError("unreadable");
        },
      );
    const questions = [
      () => assert.equal(listLinks(socket).length, all),
      () => assert.equal(findLink(socket, "b7")?.name, "b7"),
      () =>
        assert.throws(
          () => socket.request("remove", (writer) => writeRemovedLink(writer, 99_999)),
          { code: "ENODEV" },
        ),
    ];
    for (const ask of questions) {
      assert.throws(giveUp, RangeError);
      ask();
      ask();
    }
  },
);

rootTest("an IPv4 route by an IPv6 gateway has a gateway (RFC 5549)", () => {
  using ns = new ScratchNamespace();
  ns.ip("link add eth0 type veth peer name eth1");
  ns.ip("addr add 10.99.0.1/32 dev eth0");
  ns.ip("link set eth0 up");
  ns.ip("link set eth1 up");
  ns.ip("route add 10.88.0.0/16 via inet6 fe80::1 dev eth0 onlink");
  using socket = ns.run(() => new NetlinkSocket());
  assert.equal(`${routeTo(socket, IpAddress.parse("10.88.0.1"))?.gateway}`, "fe80::1");
});
