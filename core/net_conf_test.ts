import assert from "node:assert/strict";
import * as z from "zod";
import { Cidr } from "./ip.ts";
import { anyCase, fitsConfig, parseNetworkConfig, readConfig } from "./net_conf.ts";

/** A net-conf, and each family as `network length min max`. */
const GOOD: readonly (readonly [netConf: string, ...families: string[]])[] = [
  ['{"Network":"10.3.0.0/16"}', "10.3.0.0/16 24 10.3.1.0 10.3.255.0"],
  ['{"Network":"10.3.7.9/16"}', "10.3.0.0/16 24 10.3.1.0 10.3.255.0"],
  ['{"Network":"10.0.0.0/8"}', "10.0.0.0/8 24 10.0.1.0 10.255.255.0"],
  ['{"Network":"10.3.0.0/22"}', "10.3.0.0/22 24 10.3.1.0 10.3.3.0"],
  ['{"Network":"10.3.0.0/23"}', "10.3.0.0/23 25 10.3.0.128 10.3.1.128"],
  ['{"Network":"10.3.0.0/28"}', "10.3.0.0/28 30 10.3.0.4 10.3.0.12"],
  ['{"Network":"10.3.0.0/16","SubnetLen":18}', "10.3.0.0/16 18 10.3.64.0 10.3.192.0"],
  ['{"Network":"10.3.0.0/16","SubnetLen":30}', "10.3.0.0/16 30 10.3.0.4 10.3.255.252"],
  [
    '{"Network":"10.3.0.0/16","SubnetMin":"10.3.5.0","SubnetMax":"10.3.8.0","SubnetLen":28}',
    "10.3.0.0/16 28 10.3.5.0 10.3.8.0",
  ],
  [
    '{"Network":"10.3.0.0/16","SubnetMin":"10.3.0.0","SubnetMax":"10.3.1.0"}',
    "10.3.0.0/16 24 10.3.0.0 10.3.1.0",
  ],
  // What Go's reader takes for absent.
  [
    '{"Network":"10.3.0.0/16","SubnetLen":0,"SubnetMin":"0.0.0.0","SubnetMax":null,"EnableIPv4":null}',
    "10.3.0.0/16 24 10.3.1.0 10.3.255.0",
  ],
  [
    '{"enableIPv6":true,"ipv6Network":"fc00::/48","enableIPv4":false}',
    "fc00::/48 64 fc00:0:0:1:: fc00:0:0:ffff::",
  ],
  [
    '{"EnableIPv6":true,"IPv6Network":"fc00::/48","IPv6SubnetMin":"fc00:0:0:1::",' +
    '"IPv6SubnetMax":"fc00:0:0:f::","IPv6SubnetLen":124,"EnableIPv4":false}',
    "fc00::/48 124 fc00:0:0:1:: fc00:0:0:f::",
  ],
  [
    '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/62","IPv6SubnetMin":"::"}',
    "fc00::/62 64 fc00:0:0:1:: fc00:0:0:3::",
  ],
  [
    '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/63"}',
    "fc00::/63 65 fc00::8000:0:0:0 fc00:0:0:1:8000::",
  ],
  [
    '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/124"}',
    "fc00::/124 126 fc00::4 fc00::c",
  ],
  [
    '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48"}',
    "10.5.0.0/16 24 10.5.1.0 10.5.255.0",
    "fc00:5::/48 64 fc00:5:0:1:: fc00:5:0:ffff::",
  ],
  // A family that is not enabled needs no network.
  ['{"Network":"10.5.0.0/16","IPv6SubnetLen":127}', "10.5.0.0/16 24 10.5.1.0 10.5.255.0"],
];

Deno.test("net-conf: defaults and bounds are flannel's", () => {
  for (const [text, ...families] of GOOD) {
    assert.deepEqual(
      parseNetworkConfig(text).families.map(({ network, subnetLength, subnetMin, subnetMax }) =>
        `${network} ${subnetLength} ${subnetMin} ${subnetMax}`
      ),
      families,
      text,
    );
  }
});

const BAD: readonly (readonly [netConf: string, message: string | RegExp])[] = [
  ["", "net-conf is not JSON: Unexpected end of JSON input"],
  ["Network: 10.5.0.0/16", /^net-conf is not JSON: Unexpected token 'N'/],
  ['{\n"Network":"10.5.0.0/16",\n}', /^net-conf is not JSON: .*line 3 column 1/],
  ["null", "net-conf: the document is null: expected object, received null"],
  ['["10.5.0.0/16"]', 'net-conf: the document is ["10.5.0.0/16"]: expected object, received array'],
  [
    "{}",
    "net-conf: Network is missing: name the cluster's IPv4 network, or set EnableIPv4 to false",
  ],
  ['{"Network":"0.0.0.0/0"}', /^net-conf: Network is missing/],
  [
    '{"Network":"10.5.0.0/16","EnableIPv6":true}',
    "net-conf: IPv6Network is missing: name the cluster's IPv6 network, or set EnableIPv6 to false",
  ],
  [
    '{"EnableIPv4":false}',
    "net-conf enables neither family: set EnableIPv4 or EnableIPv6 to true",
  ],
  [
    '{"Network":"10.5.0.0"}',
    'net-conf: Network is "10.5.0.0": expected an IPv4 network such as "10.5.0.0/16"',
  ],
  [
    '{"Network":"fc00::/48"}',
    'net-conf: Network is "fc00::/48": expected an IPv4 network such as "10.5.0.0/16"',
  ],
  [
    '{"Network":"10.5.0.0/16","IPv6Network":"10.5.0.0/16"}',
    'net-conf: IPv6Network is "10.5.0.0/16": expected an IPv6 network such as "fc00:5::/48"',
  ],
  ['{"Network":5}', "net-conf: Network is 5: expected string, received number"],
  [
    '{"Network":"10.5.0.0/16","SubnetLen":"24","EnableIPv6":"yes"}',
    'net-conf: EnableIPv6 is "yes": expected boolean, received string; ' +
    'SubnetLen is "24": expected number, received string',
  ],
  [
    '{"Network":"10.5.0.0/16","SubnetLen":24.5}',
    "net-conf: SubnetLen is 24.5: expected int, received number",
  ],
  [
    '{"Network":"10.5.0.0/16","SubnetLen":-24}',
    "net-conf: SubnetLen is -24: expected number to be >=0",
  ],
  [
    '{"Network":"10.5.0.0/29"}',
    "net-conf: Network 10.5.0.0/29 is too small: a network has room for four subnets, so it is /28 " +
    "at most",
  ],
  [
    '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/125"}',
    "net-conf: IPv6Network fc00::/125 is too small: a network has room for four subnets, so it is " +
    "/124 at most",
  ],
  [
    '{"Network":"10.5.0.0/16","SubnetLen":31}',
    "net-conf: SubnetLen is 31: a subnet has four addresses or more, so it is 30 at most",
  ],
  [
    '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48","IPv6SubnetLen":127}',
    "net-conf: IPv6SubnetLen is 127: a subnet has four addresses or more, so it is 126 at most",
  ],
  [
    '{"Network":"10.5.0.0/16","SubnetLen":17}',
    "net-conf: SubnetLen is 17: Network 10.5.0.0/16 has room for four subnets or more, so it is 18 " +
    "at least",
  ],
  [
    '{"Network":"10.5.0.0/16","SubnetMin":"10.5.3.7"}',
    "net-conf: SubnetMin 10.5.3.7 is not on a boundary of /24; the subnet that it is in starts at " +
    "10.5.3.0",
  ],
  [
    '{"Network":"10.5.0.0/16","SubnetMax":"10.5.3.7"}',
    /^net-conf: SubnetMax 10\.5\.3\.7 is not on a boundary of \/24/,
  ],
  [
    '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48","IPv6SubnetMin":"fc00::1"}',
    /^net-conf: IPv6SubnetMin fc00::1 is not on a boundary of \/64/,
  ],
  [
    '{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}',
    "net-conf: SubnetMin 10.6.0.0 is outside the network 10.5.0.0/16",
  ],
  [
    '{"Network":"10.5.0.0/16","SubnetMax":"10.4.0.0"}',
    "net-conf: SubnetMax 10.4.0.0 is outside the network 10.5.0.0/16",
  ],
  [
    '{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.8.0"}',
    "net-conf: no subnet from SubnetMin 10.5.9.0 to SubnetMax 10.5.8.0 can be leased (the network's " +
    "first subnet never is)",
  ],
  [
    '{"Network":"10.5.0.0/16","SubnetMin":"10.5.0.0","SubnetMax":"10.5.0.0"}',
    /^net-conf: no subnet from SubnetMin 10\.5\.0\.0 to SubnetMax 10\.5\.0\.0 can be leased/,
  ],
  [
    '{"Network":"10.5.0.0/16","Backend":"vxlan"}',
    'net-conf: Backend is "vxlan": expected an object such as { "Type": "vxlan" }',
  ],
  ['{"Network":"10.5.0.0/16","Backend":null}', /^net-conf: Backend is null/],
  ['{"Network":"10.5.0.0/16","Backend":{"VNI":1}}', /^net-conf: Backend\.Type is missing/],
  ['{"Network":"10.5.0.0/16","Backend":{"Type":""}}', /^net-conf: Backend\.Type is ""/],
  [
    '{"Network":"10.5.0.0/16","Backend":{"Type":1}}',
    /^net-conf: Backend\.Type is 1: expected a backend's name/,
  ],
];

Deno.test("net-conf: what is wrong is refused, and named", () => {
  for (const [text, message] of BAD) {
    assert.throws(() => parseNetworkConfig(text), { name: "ConfigError", message }, text);
  }
});

Deno.test("net-conf: keys in any case, unknown ones ignored, the last of several counts", () => {
  const config = parseNetworkConfig(`{
    "network": "10.5.0.0/16", "SUBNETLEN": 28, "subnetmin": "10.5.0.32", "subnetMAX": "10.5.7.0",
    "enablenftables": true, "Comment": {"any": "thing"}, "NETWORK": "10.6.0.0/16",
    "SubnetMin": "10.6.0.32", "SubnetMax": "10.6.7.0",
    "backend": {"type": "vxlan", "vni": 7}
  }`);
  const [family] = config.families;
  assert.equal(`${family!.network} ${family!.subnetLength}`, "10.6.0.0/16 28");
  assert.equal(`${family!.subnetMin} ${family!.subnetMax}`, "10.6.0.32 10.6.7.0");
  assert.equal(config.enableNFTables, true);
  assert.equal(config.backend.type, "vxlan");
  assert.deepEqual(config.backend.options, { type: "vxlan", vni: 7 });
});

Deno.test("net-conf: the backend's type is taken as it is; none at all means udp", () => {
  const backend = (text: string) => parseNetworkConfig(`{"Network":"10.5.0.0/16"${text}}`).backend;
  assert.deepEqual(backend(""), { type: "udp", options: {}, defaulted: true });
  assert.deepEqual(backend(',"Backend":{"Type":"VXLAN"}'), {
    type: "VXLAN",
    options: { Type: "VXLAN" },
    defaulted: false,
  });
});

Deno.test("anyCase: a backend's options, with defaults, and errors under the schema's names", () => {
  const options = anyCase(z.object({ VNI: z.int().default(1), GBP: z.boolean().default(false) }));
  assert.deepEqual(options.parse({ Type: "vxlan", vni: 7 }), { VNI: 7, GBP: false });
  assert.throws(
    () => readConfig(options, { vNi: "x", gbp: 1 }, "net-conf", ["Backend"]),
    {
      name: "ConfigError",
      message: 'net-conf: Backend.VNI is "x": expected number, received string; ' +
        "Backend.GBP is 1: expected boolean, received number",
    },
  );
});

Deno.test("fitsConfig: one subnet of each family, of its length, within its bounds", () => {
  const single = '{"Network":"10.5.0.0/16","SubnetMin":"10.5.2.0","SubnetMax":"10.5.9.0"}';
  const dual = '{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48"}';
  for (
    const [netConf, subnets, fits] of [
      [single, ["10.5.2.0/24"], true],
      [single, ["10.5.9.0/24"], true],
      [single, ["10.5.1.0/24"], false],
      [single, ["10.5.10.0/24"], false],
      [single, ["10.5.2.0/25"], false],
      [single, ["10.6.2.0/24"], false],
      [single, [], false],
      [single, ["10.5.2.0/24", "fc00:5:0:1::/64"], false],
      [dual, ["10.5.2.0/24", "fc00:5:0:1::/64"], true],
      [dual, ["10.5.2.0/24"], false],
      [dual, ["fc00:5:0:1::/64"], false],
      [dual, ["10.5.2.0/24", "10.5.3.0/24"], false],
    ] as const
  ) {
    const config = parseNetworkConfig(netConf);
    const actual = fitsConfig(config, subnets.map((text) => Cidr.parse(text)));
    assert.equal(actual, fits, `${netConf} ${subnets}`);
  }
});
