import assert from "node:assert/strict";
import { Cidr, IpAddress } from "@denim/core/ip";
import { MacAddress } from "@denim/core/mac";
import { CniError } from "./cni_error.ts";
import { rangeOf } from "./host_local_conf.ts";
import { CNI_VERSIONS } from "./network_conf.ts";
import { type AttachmentResult, formatError, formatResult, formatVersions } from "./result.ts";

const mac = (last: number) => MacAddress.parse(`02:00:00:00:00:0${last}`);
const RESULT: AttachmentResult = {
  interfaces: [
    { name: "cni0", mac: mac(1), mtuBytes: 1450 },
    { name: "veth1", mac: mac(2), mtuBytes: 1450 },
    { name: "eth0", mac: mac(3), mtuBytes: 1450, sandbox: "/run/netns/x" },
  ],
  addresses: [
    { address: IpAddress.parse("10.5.3.2"), range: rangeOf(Cidr.parse("10.5.3.0/24")) },
    { address: IpAddress.parse("fc00::2"), range: rangeOf(Cidr.parse("fc00::/64")) },
  ],
  routes: [{ dst: Cidr.parse("10.5.0.0/16") }, {
    dst: Cidr.parse("0.0.0.0/0"),
    gw: IpAddress.parse("10.5.3.1"),
  }],
  dns: { nameservers: ["10.96.0.10"] },
};

for (
  const [cniVersion, extra, mtu] of [
    ["0.3.0", true, false],
    ["0.3.1", true, false],
    ["0.4.0", true, false],
    ["1.0.0", false, false],
    ["1.1.0", false, true],
  ] as const
) {
  Deno.test(`formatResult speaks ${cniVersion}`, () => {
    const size = mtu ? { mtu: 1450 } : {};
    const family = (version: string) => extra ? { version } : {};
    assert.deepEqual(JSON.parse(formatResult(cniVersion, RESULT)), {
      cniVersion,
      interfaces: [
        { name: "cni0", mac: "02:00:00:00:00:01", ...size },
        { name: "veth1", mac: "02:00:00:00:00:02", ...size },
        { name: "eth0", mac: "02:00:00:00:00:03", ...size, sandbox: "/run/netns/x" },
      ],
      ips: [
        { ...family("4"), interface: 2, address: "10.5.3.2/24", gateway: "10.5.3.1" },
        { ...family("6"), interface: 2, address: "fc00::2/64", gateway: "fc00::1" },
      ],
      routes: [{ dst: "10.5.0.0/16" }, { dst: "0.0.0.0/0", gw: "10.5.3.1" }],
      dns: { nameservers: ["10.96.0.10"] },
    });
  });
}

for (const cniVersion of ["0.1.0", "0.2.0"] as const) {
  Deno.test(`formatResult speaks ${cniVersion}, as libcni does`, () => {
    assert.deepEqual(JSON.parse(formatResult(cniVersion, RESULT)), {
      cniVersion,
      ip4: {
        ip: "10.5.3.2/24",
        gateway: "10.5.3.1",
        routes: [{ dst: "10.5.0.0/16" }, { dst: "0.0.0.0/0", gw: "10.5.3.1" }],
      },
      ip6: { ip: "fc00::2/64", gateway: "fc00::1", routes: [] },
      dns: { nameservers: ["10.96.0.10"] },
    });
    const alone = { ...RESULT, addresses: RESULT.addresses.slice(0, 1), dns: undefined };
    assert.deepEqual(Object.keys(JSON.parse(formatResult(cniVersion, alone))), [
      "cniVersion",
      "ip4",
    ]);
  });
}

Deno.test("formatError and formatVersions speak the spec's words", () => {
  assert.deepEqual(JSON.parse(formatError("0.4.0", new CniError(7, "no", { details: "more" }))), {
    cniVersion: "0.4.0",
    code: 7,
    msg: "no",
    details: "more",
  });
  assert.deepEqual(JSON.parse(formatVersions("0.4.0")), {
    cniVersion: "0.4.0",
    supportedVersions: CNI_VERSIONS,
  });
});
