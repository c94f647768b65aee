import assert from "node:assert/strict";
import { Cidr } from "./ip.ts";
import { formatSubnetEnv, parseSubnetEnv, type SubnetEnv } from "./subnet_env.ts";

/** What flannel writes, to the letter, and what it means: `networks subnet` a family, MTU, masquerade. */
const FLANNELS: readonly (readonly [text: string, halves: readonly string[], number, boolean])[] = [
  [
    "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.38.1/24\nFLANNEL_MTU=1450\n" +
    "FLANNEL_IPMASQ=false\n",
    ["10.5.0.0/16 10.5.38.0/24"],
    1450,
    false,
  ],
  [
    "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.33.1/24\n" +
    "FLANNEL_IPV6_NETWORK=fc00:5::/48\nFLANNEL_IPV6_SUBNET=fc00:5:0:e::1/64\n" +
    "FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n",
    ["10.5.0.0/16 10.5.33.0/24", "fc00:5::/48 fc00:5:0:e::/64"],
    1430,
    true,
  ],
  [
    "FLANNEL_IPV6_NETWORK=fc00:5::/48\nFLANNEL_IPV6_SUBNET=fc00:5:0:3c::1/64\n" +
    "FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n",
    ["fc00:5::/48 fc00:5:0:3c::/64"],
    1430,
    true,
  ],
];

function halvesOf(env: SubnetEnv): string[] {
  return env.halves.map(({ networks, subnet }) => `${networks} ${subnet}`);
}

Deno.test("subnet.env: flannel's form, both ways", () => {
  for (const [text, halves, mtuBytes, ipMasq] of FLANNELS) {
    const env = parseSubnetEnv(text, "subnet.env");
    assert.deepEqual(halvesOf(env), halves);
    assert.equal(env.mtuBytes, mtuBytes);
    assert.equal(env.ipMasq, ipMasq);
    assert.equal(formatSubnetEnv(env), text);
  }
});

Deno.test("subnet.env: several networks, other keys, and lines that say nothing", () => {
  const text =
    "# by hand\n\nFLANNEL_NETWORK=10.5.0.0/16,10.6.0.0/16\nFLANNEL_SUBNET=10.5.38.1/24\n" +
    " FLANNEL_MTU = 1450 \nFLANNEL_IPMASQ=true\nOTHER=x";
  const env = parseSubnetEnv(text, "subnet.env");
  assert.deepEqual(halvesOf(env), ["10.5.0.0/16,10.6.0.0/16 10.5.38.0/24"]);
  assert.ok(env.halves[0]!.networks[1]!.equals(Cidr.parse("10.6.0.0/16")));
  assert.equal(env.mtuBytes, 1450);
});

Deno.test("subnet.env: cut short anywhere it gives no half of an answer", () => {
  for (const [text] of FLANNELS) {
    // The last character is a line's end, which may be missing.
    for (let length = 0; length < text.length - 1; length++) {
      assert.throws(
        () => parseSubnetEnv(text.slice(0, length), "/run/subnet.env"),
        {
          name: "ConfigError",
          message: /^\/run\/subnet\.env.*; restart the agent to write it again$/,
        },
        text.slice(0, length),
      );
    }
  }
  assert.throws(() => parseSubnetEnv("FLANNEL_IPV6_NETWORK=fc00:5::/48\n", "/run/subnet.env"), {
    message:
      "/run/subnet.env is cut short: FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ missing; " +
      "restart the agent to write it again",
  });
});

Deno.test("subnet.env: what can't be read is named", () => {
  for (
    const line of [
      "FLANNEL_NETWORK=10.5.0.0",
      "FLANNEL_NETWORK=fc00:5::/48",
      "FLANNEL_NETWORK=",
      "FLANNEL_SUBNET=10.5.38.1/240",
      "FLANNEL_MTU=0",
      "FLANNEL_MTU=1450.5",
      "FLANNEL_IPMASQ=yes",
    ]
  ) {
    const [key] = line.split("=") as [string];
    const text = FLANNELS[0]![0].replace(new RegExp(`^${key}=.*$`, "m"), line);
    assert.throws(() => parseSubnetEnv(text, "/run/subnet.env"), {
      name: "ConfigError",
      message: `/run/subnet.env: ${line} can't be read; restart the agent to write it again`,
    });
  }
});

Deno.test("subnet.env: a subnet outside its network is refused, in either family", () => {
  for (
    const [line, other, subnet, network] of [
      ["FLANNEL_SUBNET=10.5.33.1/24", "FLANNEL_SUBNET=10.6.33.1/24", "10.6.33.0/24", "10.5.0.0/16"],
      ["FLANNEL_SUBNET=10.5.33.1/24", "FLANNEL_SUBNET=10.5.33.1/8", "10.0.0.0/8", "10.5.0.0/16"],
      [
        "FLANNEL_NETWORK=10.5.0.0/16",
        "FLANNEL_NETWORK=10.6.0.0/16,10.7.0.0/16",
        "10.5.33.0/24",
        "10.6.0.0/16,10.7.0.0/16",
      ],
      [
        "FLANNEL_IPV6_SUBNET=fc00:5:0:e::1/64",
        "FLANNEL_IPV6_SUBNET=fc00:6:0:e::1/64",
        "fc00:6:0:e::/64",
        "fc00:5::/48",
      ],
    ] as const
  ) {
    const text = FLANNELS[1]![0].replace(line, other);
    assert.throws(() => parseSubnetEnv(text, "/run/subnet.env"), {
      name: "ConfigError",
      message: `/run/subnet.env: the subnet ${subnet} is not in the network ${network}; ` +
        "restart the agent to write it again",
    });
  }
});
