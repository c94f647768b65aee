import assert from "node:assert/strict";
import { CONTEXT, messagesOf, readWritten } from "../../../tests/support/kernel_context.ts";
import { deviceUpKind } from "./device_up.ts";
import { writeLinkHeader } from "./link.ts";
import { IFF_UP, RTM_NEWLINK } from "../uapi/rtnetlink.ts";

const UP = { kind: "deviceUp", device: "cni0" } as const;

Deno.test("deviceUpKind sets IFF_UP of the device, and nothing else", () => {
  const messages = messagesOf((writer) => deviceUpKind.put(writer, UP, CONTEXT, false));
  // struct ifinfomsg: family, type, index, flags, change
  assert.deepEqual(messages, ["16 0x0: 00000000 08000000 01000000 01000000"]);
});

Deno.test("deviceUpKind reads the pod bridge's state alone", () => {
  const parse = (index: number, flags: number) =>
    readWritten(
      (writer) => writeLinkHeader(writer.begin(RTM_NEWLINK, 0), { index, flags }).end(),
      (reader) => deviceUpKind.parse(reader, CONTEXT),
    );
  assert.ok(deviceUpKind.equal(UP, parse(8, IFF_UP)!));
  assert.ok(!deviceUpKind.equal(UP, parse(8, 0)!));
  assert.ok(deviceUpKind.equal(UP, UP), "as just put");
  assert.equal(parse(9, IFF_UP), undefined);
});

Deno.test("deviceUpKind is a setting: nothing removes it", () => {
  assert.ok(!deviceUpKind.ours(UP, CONTEXT, true));
  assert.equal(deviceUpKind.remove, undefined);
});
