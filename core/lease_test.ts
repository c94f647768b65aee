import assert from "node:assert/strict";
import { Cidr, IpAddress } from "./ip.ts";
import { formatLeaseValue, leaseHalf, leaseKey, parseLease, parseLeaseKey } from "./lease.ts";

/** What flannel writes, to the letter. */
const FLANNELS: readonly {
  readonly name: string;
  readonly key: string;
  readonly value: string;
  readonly backendType: string;
  readonly halves: readonly (readonly [subnet: string, publicIp: string, data: unknown])[];
}[] = [
  {
    name: "vxlan",
    key: "10.5.38.0-24",
    value: '{"PublicIP":"10.99.0.2","PublicIPv6":null,"BackendType":"vxlan",' +
      '"BackendData":{"VNI":1,"VtepMAC":"02:0a:05:26:00:01"}}',
    backendType: "vxlan",
    halves: [["10.5.38.0/24", "10.99.0.2", { VNI: 1, VtepMAC: "02:0a:05:26:00:01" }]],
  },
  {
    name: "vxlan, dual stack",
    key: "10.5.33.0-24&fc00:5:0:e::-64",
    value: '{"PublicIP":"10.99.0.2","PublicIPv6":"fd99::1","BackendType":"vxlan",' +
      '"BackendData":{"VNI":1,"VtepMAC":"02:0a:05:21:00:01"},' +
      '"BackendV6Data":{"VNI":1,"VtepMAC":"02:0a:05:21:00:02"}}',
    backendType: "vxlan",
    halves: [
      ["10.5.33.0/24", "10.99.0.2", { VNI: 1, VtepMAC: "02:0a:05:21:00:01" }],
      ["fc00:5:0:e::/64", "fd99::1", { VNI: 1, VtepMAC: "02:0a:05:21:00:02" }],
    ],
  },
  {
    name: "vxlan, IPv6 alone",
    key: "0.0.0.0-0&fc00:5:0:3c::-64",
    value: '{"PublicIP":"0.0.0.0","PublicIPv6":"fd99::1","BackendType":"vxlan",' +
      '"BackendV6Data":{"VNI":1,"VtepMAC":"02:0a:05:3c:00:01"}}',
    backendType: "vxlan",
    halves: [["fc00:5:0:3c::/64", "fd99::1", { VNI: 1, VtepMAC: "02:0a:05:3c:00:01" }]],
  },
  {
    name: "host-gw",
    key: "10.5.7.0-24",
    value: '{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"host-gw"}',
    backendType: "host-gw",
    halves: [["10.5.7.0/24", "10.99.0.1", undefined]],
  },
  {
    name: "extension, dual stack",
    key: "10.5.33.0-24&fc00:5:0:e::-64",
    value: '{"PublicIP":"10.99.0.2","PublicIPv6":"fd99::1","BackendType":"extension",' +
      '"BackendData":"02:0a:05:21:00:01"}',
    backendType: "extension",
    halves: [
      ["10.5.33.0/24", "10.99.0.2", "02:0a:05:21:00:01"],
      ["fc00:5:0:e::/64", "fd99::1", undefined],
    ],
  },
  {
    name: "extension, IPv6 alone",
    key: "0.0.0.0-0&fc00:5:0:3c::-64",
    value: '{"PublicIP":"0.0.0.0","PublicIPv6":"fd99::1","BackendType":"extension",' +
      '"BackendData":"02:0a:05:3c:00:01"}',
    backendType: "extension",
    halves: [["fc00:5:0:3c::/64", "fd99::1", "02:0a:05:3c:00:01"]],
  },
  {
    name: "udp and alloc",
    key: "10.5.8.0-24",
    value: '{"PublicIP":"10.99.0.1","PublicIPv6":null}',
    backendType: "",
    halves: [["10.5.8.0/24", "10.99.0.1", undefined]],
  },
];

for (const { name, key, value, backendType, halves } of FLANNELS) {
  Deno.test(`lease: flannel's form, ${name}`, () => {
    const lease = parseLease(key, value, "never");
    assert.equal(lease.key, key);
    assert.equal(lease.backendType, backendType);
    assert.equal(lease.expiry, "never");
    assert.deepEqual(
      lease.halves.map((half) => [`${half.subnet}`, `${half.publicIp}`, half.backendData]),
      halves,
    );
    assert.equal(formatLeaseValue(lease), value);
    assert.equal(leaseKey(lease.halves.map(({ subnet }) => subnet)), key);
    for (const half of lease.halves) {
      assert.equal(leaseHalf(lease, half.subnet.family), half);
    }
  });
}

Deno.test("lease: the order of the subnets does not change the key", () => {
  const subnets = ["fc00:5:0:e::/64", "10.5.33.0/24"].map((text) => Cidr.parse(text));
  assert.equal(leaseKey(subnets), "10.5.33.0-24&fc00:5:0:e::-64");
});

Deno.test("lease: keys that are none of flannel's", () => {
  for (
    const key of [
      "",
      "config",
      "10.5.38.0",
      "10.5.38.0/24",
      "10.5.38.7-24",
      "10.5.38.0-33",
      "010.5.38.0-24",
      "fc00:5:0:e::-64",
      "10.5.33.0-24&",
      "10.5.33.0-24&10.5.34.0-24",
      "10.5.33.0-24&fc00:5:0:e::-64&fc00:5:0:f::-64",
      "10.5.33.0-24&FC00:5:0:e::-64",
      "0.0.0.0-0",
    ]
  ) {
    assert.equal(parseLeaseKey(key), undefined, key);
    assert.throws(() => parseLease(key, '{"PublicIP":"10.99.0.1"}'), {
      name: "RuntimeError",
      message: `lease ${key}: the key does not name a subnet`,
    });
  }
});

Deno.test("lease: values that can't be read say why", () => {
  for (
    const [value, message] of [
      ['{"PublicIP":', "lease 10.5.7.0-24: the value is not JSON"],
      ["[]", "lease 10.5.7.0-24: value: Invalid input: expected object, received array"],
      ['{"PublicIP":"x"}', 'lease 10.5.7.0-24: PublicIP: "x" is not an IP address'],
      ['{"PublicIP":"fd99::1"}', "lease 10.5.7.0-24: no public IPv4 address"],
      [
        '{"PublicIP":"10.99.0.1","BackendType":7}',
        "lease 10.5.7.0-24: BackendType: Invalid input: expected string, received number",
      ],
    ] as const
  ) {
    assert.throws(() => parseLease("10.5.7.0-24", value), {
      name: "RuntimeError",
      message,
    });
  }
  const dual = "10.5.33.0-24&fc00:5:0:e::-64";
  assert.throws(() => parseLease(dual, '{"PublicIP":"10.99.0.1","PublicIPv6":null}'), {
    message: `lease ${dual}: no public IPv6 address`,
  });
});

Deno.test("lease: null as backend data is none", () => {
  const value =
    '{"PublicIP":"10.99.0.1","PublicIPv6":null,"BackendType":"host-gw","BackendData":null}';
  const [half] = parseLease("10.5.7.0-24", value).halves;
  assert.ok(half!.publicIp.equals(IpAddress.parse("10.99.0.1")));
  assert.equal(half!.backendData, undefined);
});
