import assert from "node:assert/strict";
import { CONTEXT, readWritten } from "../../../tests/support/kernel_context.ts";
import { forwardingKey, parseForwarding } from "./forwarding.ts";
import {
  NETCONFA_FORWARDING,
  NETCONFA_IFINDEX,
  NETCONFA_IFINDEX_ALL,
  RTM_NEWNETCONF,
} from "../uapi/rtnetlink.ts";
import { AF_INET, AF_INET6 } from "../uapi/socket.ts";

/** Reads RTM_NEWNETCONF as the kernel sends it. */
function parse(family: number, index: number, forwarding?: number) {
  return readWritten((writer) => {
    writer.begin(RTM_NEWNETCONF, 0).u8(family).u8(0).u16(0).u32Attribute(NETCONFA_IFINDEX, index);
    if (forwarding !== undefined) writer.u32Attribute(NETCONFA_FORWARDING, forwarding);
    writer.end();
  }, (reader) => parseForwarding(reader, CONTEXT));
}

Deno.test("parseForwarding reads the switches of devices and of all", () => {
  assert.deepEqual(parse(AF_INET, 9, 1), {
    kind: "forwarding",
    family: 4,
    device: "eth0",
    on: true,
  });
  const all = parse(AF_INET6, NETCONFA_IFINDEX_ALL, 0)!;
  assert.equal(all.on, false);
  assert.equal(forwardingKey(all), "IPv6 forwarding");
  assert.equal(forwardingKey({ ...all, device: "cni0" }), "IPv6 forwarding of cni0");
});

Deno.test("parseForwarding ignores other settings, families and devices", () => {
  assert.equal(parse(AF_INET, 9), undefined);
  assert.equal(parse(1, 9, 1), undefined);
  assert.equal(parse(AF_INET, 99, 1), undefined);
});
