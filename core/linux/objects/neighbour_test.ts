import assert from "node:assert/strict";
import { CONTEXT, messagesOf, readWritten } from "../../../tests/support/kernel_context.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { IpAddress } from "../../ip.ts";
import type { Neighbour } from "../../kernel_state.ts";
import { MacAddress } from "../../mac.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { fdbKind } from "./fdb.ts";
import { findLink } from "./link.ts";
import { neighbourKind, neighbourMac } from "./neighbour.ts";

function neighbour(address: string): Neighbour {
  const mac = MacAddress.parse("02:0a:05:00:00:02");
  return { kind: "neighbour", device: "flannel.1", address: IpAddress.parse(address), mac };
}

// struct ndmsg with NUD_PERMANENT, NDA_DST, NDA_LLADDR
const MESSAGES = [
  [
    "10.5.2.0",
    "28 0x500: 02000000 07000000 80000000 08000100 0a050200 0a000200 020a0500 00020000",
    "29 0x0: 02000000 07000000 80000000 08000100 0a050200",
  ],
  [
    "fc00:5:0:2::",
    "28 0x500: 0a000000 07000000 80000000 14000100 fc000005 00000002 00000000 00000000 " +
    "0a000200 020a0500 00020000",
    "29 0x0: 0a000000 07000000 80000000 14000100 fc000005 00000002 00000000 00000000",
  ],
] as const;

Deno.test("neighbourKind writes RTM_NEWNEIGH and RTM_DELNEIGH, and reads what it writes", () => {
  for (const [text, put, remove] of MESSAGES) {
    const object = neighbour(text);
    const write = (writer: Parameters<typeof neighbourKind.put>[0]) =>
      neighbourKind.put(writer, object, CONTEXT, false);
    assert.deepEqual(messagesOf(write), [put]);
    assert.deepEqual(
      messagesOf((writer) => neighbourKind.remove!(writer, object, CONTEXT)),
      [remove],
    );
    const read = readWritten(write, (reader) => neighbourKind.parse(reader, CONTEXT))!;
    assert.equal(neighbourKind.key(read), `neighbour flannel.1 ${object.address}`);
    assert.ok(neighbourKind.equal(object, read));
    assert.equal(readWritten(write, (reader) => fdbKind.parse(reader, CONTEXT)), undefined);
  }
});

Deno.test("neighbourKind compares the MAC and whether the entry is permanent", () => {
  const wanted = neighbour("10.5.2.0");
  const mac = MacAddress.parse("02:0a:05:00:00:99");
  assert.ok(neighbourKind.equal(wanted, wanted));
  assert.ok(!neighbourKind.equal(wanted, { ...wanted, mac }));
  assert.ok(!neighbourKind.equal(wanted, { ...wanted, permanent: false }));
});

Deno.test("neighbourKind takes permanent entries of denim's devices alone", () => {
  const entry = neighbour("10.5.2.0");
  assert.ok(neighbourKind.ours({ ...entry, permanent: true }, CONTEXT, false));
  assert.ok(!neighbourKind.ours({ ...entry, permanent: false }, CONTEXT, false));
  const elsewhere = readWritten(
    (writer) => neighbourKind.put(writer, { ...entry, device: "eth0" }, CONTEXT, false),
    (reader) => neighbourKind.parse(reader, CONTEXT),
  );
  assert.equal(elsewhere, undefined);
});

rootTest("neighbourMac finds a neighbour behind its device, and none where there is none", () => {
  using namespace = new ScratchNamespace();
  namespace.addOuterDevice();
  namespace.ip("neigh add 10.99.0.2 lladdr 02:0a:05:00:00:02 dev eth0 nud permanent");
  namespace.run(() => {
    using socket = new NetlinkSocket();
    const { index } = findLink(socket, "eth0")!;
    const macOf = (address: string) => neighbourMac(socket, index, IpAddress.parse(address));
    assert.equal(`${macOf("10.99.0.2")}`, "02:0a:05:00:00:02");
    assert.equal(macOf("10.99.0.3"), undefined);
    assert.equal(macOf("fd99::2"), undefined);
    assert.equal(neighbourMac(socket, 999, IpAddress.parse("10.99.0.2")), undefined, "no device");
  });
});
