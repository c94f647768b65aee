import assert from "node:assert/strict";
import { CONTEXT, messagesOf, readWritten } from "../../../tests/support/kernel_context.ts";
import { IpAddress } from "../../ip.ts";
import type { FdbEntry } from "../../kernel_state.ts";
import { MacAddress } from "../../mac.ts";
import type { MessageWriter } from "../netlink/netlink_codec.ts";
import { fdbKind } from "./fdb.ts";
import { neighbourKind } from "./neighbour.ts";

const ENTRY: FdbEntry = {
  kind: "fdb",
  device: "flannel.1",
  mac: MacAddress.parse("02:0a:05:00:00:02"),
  remote: IpAddress.parse("10.99.0.2"),
};
const write = (writer: MessageWriter) => fdbKind.put(writer, ENTRY, CONTEXT, false);

Deno.test("fdbKind writes RTM_NEWNEIGH and RTM_DELNEIGH of AF_BRIDGE with NTF_SELF, and reads what it writes", () => {
  // struct ndmsg, NDA_LLADDR, NDA_DST
  const body = "07000000 07000000 80000200 0a000200 020a0500 00020000 08000100 0a630002";
  assert.deepEqual(messagesOf(write), [`28 0x500: ${body}`]);
  assert.deepEqual(
    messagesOf((writer) => fdbKind.remove!(writer, ENTRY, CONTEXT)),
    [`29 0x0: ${body}`],
  );
  const read = readWritten(write, (reader) => fdbKind.parse(reader, CONTEXT))!;
  assert.equal(fdbKind.key(read), "fdb flannel.1 02:0a:05:00:00:02");
  assert.ok(fdbKind.equal(ENTRY, read));
  assert.equal(readWritten(write, (reader) => neighbourKind.parse(reader, CONTEXT)), undefined);
});

Deno.test("fdbKind compares the remote VTEP and whether the entry is permanent", () => {
  assert.ok(fdbKind.equal(ENTRY, ENTRY));
  assert.ok(!fdbKind.equal(ENTRY, { ...ENTRY, remote: IpAddress.parse("10.99.0.77") }));
  assert.ok(!fdbKind.equal(ENTRY, { ...ENTRY, permanent: false }));
  assert.ok(fdbKind.ours({ ...ENTRY, permanent: true }, CONTEXT, false));
  assert.ok(!fdbKind.ours({ ...ENTRY, permanent: false }, CONTEXT, false));
});
