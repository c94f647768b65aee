import assert from "node:assert/strict";
import { inOwnProcess, WITHOUT_CAPABILITIES } from "../../../tests/support/own_process.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { IpAddress } from "../../ip.ts";
import {
  findLink,
  listLinks,
  parseLink,
  writeLinkHeader,
  writeRemovedLink,
} from "../objects/link.ts";
import { NetlinkSocket } from "./netlink_socket.ts";
import { writeNewBridge } from "../objects/pod_link.ts";
import { routeTo } from "../objects/route.ts";
import { RTM_GETLINK } from "../uapi/rtnetlink.ts";

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

rootTest("a dump that changes never let come to an end is none", () => {
  using ns = new ScratchNamespace();
  // More than the datagrams that the kernel has ready when the first is read.
  for (let number = 0; number < 100; number++) {
    ns.ip(`link add a${number} type veth peer name b${number}`);
  }
  using socket = ns.run(() => new NetlinkSocket());
  using stranger = ns.run(() => new NetlinkSocket());
  let questions = 0;
  const dump = (interruptions: number) =>
    socket.dump(
      "list devices",
      (writer) => {
        questions++;
        writeLinkHeader(writer.begin(RTM_GETLINK, 0), {}).end();
      },
      (reader) => {
        const { name } = parseLink(reader)!;
        if (name === "lo" && questions <= interruptions) {
          stranger.request("make", (writer) => writeNewBridge(writer, `new${questions}`, {}));
        }
        return name;
      },
    );
  assert.equal(dump(19).length, 201 + 19, "the twentieth is whole");
  assert.equal(questions, 20);
  questions = 0;
  for (const { index, name } of listLinks(stranger)) {
    if (name.startsWith("new")) {
      stranger.request("remove", (writer) => writeRemovedLink(writer, index));
    }
  }
  assert.throws(() => dump(Infinity), {
    code: "EBUSY",
    message: /^list devices: interrupted by changes 20 times in a row/,
  });
});

rootTest("what can't be opened to its end leaves no descriptor behind", () => {
  const descriptors = 'const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;';
  const noDevice = inOwnProcess(
    `const { PacketSocket } = await import(Deno.args[0]);
    ${descriptors}
    const before = descriptors(), codes = [];
    for (let count = 0; count < 3; count++) {
      try {
        new PacketSocket(99_999);
      } catch (error) {
        codes.push(error.code);
      }
    }
    console.log(...codes, descriptors() - before);`,
    [import.meta.resolve("../sys/packet_socket.ts")],
  );
  assert.equal(noDevice, "ENODEV ENODEV ENODEV 0\n");
  // Without capabilities the monitor's socket opens, but refuses its buffer's size.
  const noRight = inOwnProcess(
    `const { Reconciler } = await import(Deno.args[0]);
    ${descriptors}
    const attempt = () => {
      try {
        return new Reconciler({ log: console });
      } catch (error) {
        return error.code;
      }
    };
    const first = attempt(), before = descriptors();
    attempt();
    console.log(first, descriptors() - before);`,
    [import.meta.resolve("../reconciler/reconciler.ts")],
    WITHOUT_CAPABILITIES,
  );
  assert.equal(noRight, "EPERM 0\n");
});

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
