import assert from "node:assert/strict";
import { CONTEXT, messagesOf, readWritten } from "../../../tests/support/kernel_context.ts";
import { IpAddress } from "../../ip.ts";
import type { DeviceAddress } from "../../kernel_state.ts";
import { addressKind, writeNewAddress } from "./address.ts";

function address(text: string, device = "flannel.1"): DeviceAddress {
  const [address, length] = text.split("/");
  return {
    kind: "address",
    device,
    address: IpAddress.parse(address!),
    prefixLength: Number(length),
  };
}

// struct ifaddrmsg, IFA_LOCAL, IFA_ADDRESS, and IPv4's IFA_BROADCAST if there is one. IPv6 has IFA_F_NODAD.
const MESSAGES = [
  [
    "10.5.0.0/32",
    "20 0x500: 02200000 07000000 08000200 0a050000 08000100 0a050000",
    "21 0x0: 02200000 07000000 08000200 0a050000",
  ],
  [
    "10.5.3.1/24",
    "20 0x500: 02180000 07000000 08000200 0a050301 08000100 0a050301 08000400 0a0503ff",
    "21 0x0: 02180000 07000000 08000200 0a050301",
  ],
  [
    "fc00:5:0:3::1/64",
    "20 0x500: 0a400200 07000000 14000200 fc000005 00000003 00000000 00000001 " +
    "14000100 fc000005 00000003 00000000 00000001",
    "21 0x0: 0a400000 07000000 14000200 fc000005 00000003 00000000 00000001",
  ],
] as const;

Deno.test("addressKind writes RTM_NEWADDR and RTM_DELADDR, and reads what it writes", () => {
  for (const [text, put, remove] of MESSAGES) {
    const object = address(text);
    assert.deepEqual(
      messagesOf((writer) => addressKind.put(writer, object, CONTEXT, false)),
      [put],
    );
    assert.deepEqual(
      messagesOf((writer) => addressKind.remove!(writer, object, CONTEXT)),
      [remove],
    );
    const read = readWritten(
      (writer) => addressKind.put(writer, object, CONTEXT, false),
      (reader) => addressKind.parse(reader, CONTEXT),
    );
    assert.equal(addressKind.key(read!), `address flannel.1 ${text}`);
  }
});

Deno.test("addressKind takes for denim's what is on its devices, or on the bridge in the network", () => {
  for (
    const [text, device, known, ours] of [
      ["192.168.1.1/24", "flannel.1", false, true],
      ["10.5.9.1/24", "cni0", false, true],
      ["192.168.1.1/24", "cni0", false, false],
      ["10.5.9.1/24", "eth0", false, false],
      ["10.5.9.1/24", "eth0", true, true],
    ] as const
  ) {
    assert.equal(
      addressKind.ours(address(text, device), CONTEXT, known),
      ours,
      `${text} ${device}`,
    );
  }
});

Deno.test("addressKind ignores devices that it does not know", () => {
  const parse = (index: number) =>
    readWritten(
      (writer) => writeNewAddress(writer, index, IpAddress.parse("10.5.0.0"), 32),
      (reader) => addressKind.parse(reader, CONTEXT),
    );
  assert.equal(parse(9)?.device, "eth0");
  assert.equal(parse(99), undefined);
});

Deno.test("addressKind knows which addresses the kernel removes together", () => {
  for (
    const [removed, other, together] of [
      ["10.5.3.9/24", "10.5.3.1/24", true],
      ["10.5.3.9/24", "10.5.4.1/24", false],
      ["10.5.3.9/24", "10.5.3.1/32", false],
      ["10.5.3.1/16", "10.5.3.1/24", true],
      ["fc00:5::1/48", "fc00:5::1/64", true],
      ["fc00:5::1/48", "fc00:5::2/64", false],
      ["fc00:5::1/64", "fc00:5::2/64", false],
    ] as const
  ) {
    const what = `${other} with ${removed}`;
    assert.equal(addressKind.removesToo!(address(removed), address(other)), together, what);
    assert.ok(!addressKind.removesToo!(address(removed, "cni0"), address(other)), what);
  }
});
