import assert from "node:assert/strict";
import { CONTEXT, messagesOf, readWritten } from "../../../tests/support/kernel_context.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import { type Nexthop, nexthopId } from "../../kernel_state.ts";
import { nexthopKey, nexthopKind } from "./nexthop.ts";
import { RTPROT_DENIM } from "./object_kind.ts";

const ID = nexthopId(Cidr.parse("10.5.2.0/24"));

function nexthop(via: string, device = "flannel.1", id = ID): Nexthop {
  return { kind: "nexthop", id, device, via: IpAddress.parse(via) };
}

// struct nhmsg with protocol 155 and RTNH_F_ONLINK, NHA_ID, NHA_OIF, NHA_GATEWAY
const MESSAGES = [
  ["10.5.2.0", "02009b00 04000000 08000100 0002050a 08000500 07000000 08000600 0a050200"],
  [
    "fc00:5:0:2::",
    "0a009b00 04000000 08000100 0002050a 08000500 07000000 14000600 fc000005 00000002 00000000 00000000",
  ],
] as const;

Deno.test("nexthopKind writes RTM_NEWNEXTHOP and RTM_DELNEXTHOP, and reads what it writes", () => {
  for (const [via, body] of MESSAGES) {
    const object = nexthop(via);
    const put = (mayReplace: boolean) =>
      messagesOf((writer) => nexthopKind.put(writer, object, CONTEXT, mayReplace));
    assert.deepEqual(put(false), [`104 0x600: ${body}`], "NLM_F_CREATE | NLM_F_EXCL");
    assert.deepEqual(put(true), [`104 0x500: ${body}`], "NLM_F_CREATE | NLM_F_REPLACE");
    const read = readWritten(
      (writer) => nexthopKind.put(writer, object, CONTEXT, false),
      (reader) => nexthopKind.parse(reader, CONTEXT),
    )!;
    assert.equal(nexthopKind.key(read), nexthopKey(ID));
    assert.ok(nexthopKind.equal(object, read));
  }
  assert.deepEqual(
    messagesOf((writer) => nexthopKind.remove!(writer, nexthop("10.5.2.0"), CONTEXT)),
    ["105 0x0: 00000000 00000000 08000100 0002050a"],
  );
});

Deno.test("nexthopKind compares device, gateway and who made it", () => {
  const wanted = nexthop("10.5.2.0");
  assert.ok(nexthopKind.equal(wanted, wanted));
  assert.ok(!nexthopKind.equal(wanted, nexthop("10.5.2.1")));
  assert.ok(!nexthopKind.equal(wanted, nexthop("10.5.2.0", "eth0")));
  assert.ok(!nexthopKind.equal(wanted, { ...wanted, protocol: 3 }));
});

Deno.test("nexthopKind takes for denim's what has its protocol, and its device or a subnet's number", () => {
  const protocol = RTPROT_DENIM;
  for (
    const [found, known, ours] of [
      [{ ...nexthop("10.99.0.2", "eth0"), protocol }, false, true],
      [{ ...nexthop("10.99.0.2", "flannel.1", 5), protocol }, false, true],
      [{ ...nexthop("10.99.0.2", "eth0", 5), protocol }, false, false],
      [{ ...nexthop("10.99.0.2", "eth0", 5), protocol }, true, true],
      [{ ...nexthop("10.99.0.2"), protocol: 3 }, true, false],
    ] as const
  ) assert.equal(nexthopKind.ours(found, CONTEXT, known), ours, JSON.stringify(found));
});
