import { ConfigError, type Family, IpAddress } from "@denim/core";
import { NetlinkSocket, writeSysctl } from "@denim/core/linux";
import assert from "node:assert/strict";
import { RecordingLog } from "../tests/support/recording_log.ts";
import { rootTest } from "../tests/support/root_test.ts";
import { ScratchNamespace } from "../tests/support/scratch_namespace.ts";
import {
  findOuterInterface,
  type InterfaceChoice,
  OuterInterfaceFollower,
} from "./outer_interface.ts";

const NOTHING: InterfaceChoice = {
  iface: [],
  ifaceRegex: [],
  ifaceCanReach: undefined,
  publicIps: new Map(),
};

const address = (text: string) => IpAddress.parse(text);

rootTest("the outer interface is chosen as flannel chooses it", async (t) => {
  using ns = new ScratchNamespace();
  for (const [name, number] of [["eth0", 1], ["eth1", 2]] as const) {
    ns.ip(`link add ${name} mtu ${1400 + number} type veth peer name peer${number}`);
    ns.ip(`addr add 10.0.${number}.1/24 dev ${name}`);
    ns.ip(`addr add fd0${number}::1/64 dev ${name} nodad`);
    ns.ip(`link set ${name} up`);
    ns.ip(`link set peer${number} up`);
  }
  ns.ip("addr add 10.0.2.9/24 dev eth1");
  ns.ip("link add eth2 type veth peer name peer3");
  ns.ip("link set eth2 up");
  ns.ip("addr add fd03::1/64 dev eth2 nodad");
  ns.ip("addr add 10.0.3.1/24 dev eth2 valid_lft 9000 preferred_lft 0");
  ns.ip("addr add 10.0.4.1/24 dev eth2 valid_lft 9000 preferred_lft 9000");
  ns.ip("addr add 10.0.5.1/24 dev eth2");
  // The last to be made comes first in a list of IPv6.
  ns.ip("addr add fd03::2/64 dev eth2 nodad valid_lft 9000 preferred_lft 9000");
  ns.ip("link add down0 type veth peer name down1");
  ns.ip("route add default via 10.0.2.254 dev eth1 metric 100");
  ns.ip("route add default via 10.0.1.254 dev eth0 metric 200");
  ns.ip("route add default via fd02::fe dev eth1");
  const find = (choice: Partial<InterfaceChoice>, families: readonly Family[] = [4]) =>
    ns.run(() => {
      using socket = new NetlinkSocket();
      const { name, mtuBytes, addresses, publicIps } = findOuterInterface(
        socket,
        { ...NOTHING, ...choice },
        families,
      );
      const own = [...addresses.values()].join(" ");
      return `${name} ${mtuBytes} ${own} as ${[...publicIps.values()].join(" ")}`;
    });
  const publicIps = new Map<Family, IpAddress>([[4, address("192.0.2.7")]]);
  type Case = readonly [string, Partial<InterfaceChoice>, string, (readonly Family[])?];
  const cases: readonly Case[] = [
    ["the best default route", {}, "eth1 1402 10.0.2.1 as 10.0.2.1"],
    ["both families", {}, "eth1 1402 10.0.2.1 fd02::1 as 10.0.2.1 fd02::1", [4, 6]],
    ["by name", { iface: ["eth0"] }, "eth0 1401 10.0.1.1 as 10.0.1.1"],
    ["the first that is there", { iface: ["no", "eth0"] }, "eth0 1401 10.0.1.1 as 10.0.1.1"],
    ["the address that will stay", { iface: ["eth2"] }, "eth2 1500 10.0.5.1 as 10.0.5.1"],
    ["that of IPv6", { iface: ["eth2"] }, "eth2 1500 fd03::1 as fd03::1", [6]],
    ["by address", { iface: ["10.0.2.9"] }, "eth1 1402 10.0.2.9 as 10.0.2.9"],
    ["a pattern for an address", { ifaceRegex: [/\.9$/] }, "eth1 1402 10.0.2.9 as 10.0.2.9"],
    ["a pattern for a name", { ifaceRegex: [/^eth0$/] }, "eth0 1401 10.0.1.1 as 10.0.1.1"],
    [
      "by what it reaches",
      { ifaceCanReach: address("10.0.1.77") },
      "eth0 1401 10.0.1.1 as 10.0.1.1",
    ],
    [
      "the one with the public IP",
      { publicIps: new Map([[4, address("10.0.1.1")]]) },
      "eth0 1401 10.0.1.1 as 10.0.1.1",
    ],
    ["behind NAT", { iface: ["eth0"], publicIps }, "eth0 1401 10.0.1.1 as 192.0.2.7"],
    ["the first that is up", { iface: ["down0", "eth0"] }, "eth0 1401 10.0.1.1 as 10.0.1.1"],
    [
      "the first with an address",
      { ifaceRegex: [/^peer/, /^eth0/] },
      "eth0 1401 10.0.1.1 as 10.0.1.1",
    ],
    [
      "the first with both families",
      { iface: ["peer1", "10.0.2.9"] },
      "eth1 1402 10.0.2.9 fd02::1 as 10.0.2.9 fd02::1",
      [4, 6],
    ],
  ];
  for (const [name, choice, expected, families] of cases) {
    await t.step(name, () => assert.equal(find(choice, families), expected));
  }
  const refused: readonly (readonly [string, Partial<InterfaceChoice>, RegExp])[] = [
    ["no such device", { iface: ["eth9"] }, /no device matches --iface eth9; there are: .*eth1 10/],
    ["a public IP of nobody's", { publicIps }, /no device has the public IP 192\.0\.2\.7/],
    ["a device that is down", { iface: ["down0"] }, /device down0 is down/],
    ["a device without address", { iface: ["peer1"] }, /device peer1 has no IPv4 address/],
  ];
  for (const [name, choice, says] of refused) {
    await t.step(name, () =>
      assert.throws(() => find(choice), (error) => {
        assert.ok(error instanceof ConfigError, String(error));
        assert.match(error.message, says);
        return true;
      }));
  }
});

rootTest(
  "an address that moves from host to host is not preferred to the device's own",
  async (t) => {
    type Case = readonly [
      name: string,
      addresses: readonly string[],
      lastIp: string | undefined,
      expected: string,
      choice?: Partial<InterfaceChoice>,
    ];
    const cases: readonly Case[] = [
      ["a VIP comes first", ["10.0.1.99/32", "10.0.1.1/24"], undefined, "10.0.1.1"],
      ["a VIP that the last run had", ["10.0.1.99/32", "10.0.1.1/24"], "10.0.1.99", "10.0.1.1"],
      [
        "DHCP's address of a cloud, and a VIP",
        ["10.0.1.99/32", "10.0.1.1/32 valid_lft 3600 preferred_lft 3600"],
        undefined,
        "10.0.1.1",
      ],
      ["the last run's of two /32", ["10.0.1.99/32", "10.0.1.1/32"], "10.0.1.1", "10.0.1.1"],
      ["the last run's of two networks", ["10.0.1.1/24", "10.0.2.1/24"], "10.0.2.1", "10.0.2.1"],
      ["the last run's is gone", ["10.0.1.1/24", "10.0.2.1/24"], "10.0.3.1", "10.0.1.1"],
      [
        "the last run's, which is deprecated by now",
        [
          "10.0.1.1/24 valid_lft 3600 preferred_lft 0",
          "10.0.2.1/24 valid_lft 3600 preferred_lft 3600",
        ],
        "10.0.1.1",
        "10.0.1.1",
      ],
      ["a VIP alone", ["10.0.1.99/32"], undefined, "10.0.1.99"],
      ["a VIP of IPv6", ["fd01::99/128 nodad", "fd01::1/64 nodad"], undefined, "fd01::1"],
      ["the last run's of IPv6", ["fd01::1/64 nodad", "fd01::2/64 nodad"], "fd01::1", "fd01::1"],
      [
        "a pattern that both match",
        ["10.0.1.99/32", "10.0.1.1/24"],
        undefined,
        "10.0.1.1",
        { ifaceRegex: [/^10\.0\.1\./] },
      ],
      [
        "the operator wants the VIP",
        ["10.0.1.99/32", "10.0.1.1/24"],
        "10.0.1.1",
        "10.0.1.99",
        { iface: ["10.0.1.99"] },
      ],
    ];
    for (const [name, addresses, lastIp, expected, choice = { iface: ["eth0"] }] of cases) {
      await t.step(name, () => {
        using ns = new ScratchNamespace();
        ns.ip("link add eth0 type veth peer name peer0");
        ns.ip("link set eth0 up");
        ns.ip("link set peer0 up");
        for (const each of addresses) ns.ip(`addr add ${each} dev eth0`);
        const { family } = address(expected);
        const found = ns.run(() => {
          using socket = new NetlinkSocket();
          return findOuterInterface(socket, { ...NOTHING, ...choice }, [family], {
            lastIps: new Map(lastIp === undefined ? [] : [[family, address(lastIp)]]),
          });
        });
        assert.equal(`${found.addresses.get(family)}`, expected);
      });
    }
  },
);

rootTest(
  "of a default route by several devices one is used, and the operator is told",
  async (t) => {
    const hops = "nexthop via 10.0.1.254 dev eth1 nexthop via 10.0.2.254 dev eth2";
    const hops6 = "nexthop via fd01::fe dev eth1 nexthop via fd02::fe dev eth2";
    const objects = [
      "nexthop add id 1 via 10.0.1.254 dev eth1",
      "nexthop add id 2 via 10.0.2.254 dev eth2",
      "nexthop add id 3 group 1/2",
    ];
    type Case = readonly [
      name: string,
      commands: readonly string[],
      expected: string,
      doubt: RegExp | undefined,
      options?: { readonly lastIp?: string; readonly families?: readonly Family[]; compat?: "0" },
    ];
    const cases: readonly Case[] = [
      ["two devices", [`route add default ${hops}`], "eth1", /eth1 and eth2; this node uses eth1/],
      [
        "two gateways on one device",
        ["route add default nexthop via 10.0.1.254 dev eth1 nexthop via 10.0.1.253 dev eth1"],
        "eth1",
        undefined,
      ],
      ["a nexthop group", [...objects, "route add default nhid 3"], "eth1", /this node uses eth1/],
      [
        "a nexthop group, by its number alone",
        [...objects, "route add default nhid 3"],
        "eth1",
        /this node uses eth1/,
        { compat: "0" },
      ],
      ["a nexthop object", [...objects, "route add default nhid 2"], "eth2", undefined, {
        compat: "0",
      }],
      ["IPv6", [`-6 route add default ${hops6}`], "eth1", /this node uses eth1/, { families: [6] }],
      [
        "the one that both families have",
        [`route add default ${hops}`, "-6 route add default via fd02::fe dev eth2"],
        "eth2",
        undefined,
        { families: [4, 6] },
      ],
      ["the last run's", [`route add default ${hops}`], "eth2", /uses eth2/, {
        lastIp: "10.0.2.1",
      }],
      [
        "the one with an address",
        [`route add default ${hops}`, "addr add 10.0.7.1/32 dev eth2", "addr flush to 10.0.1.1"],
        "eth2",
        /uses eth2/,
      ],
      [
        "the lowest metric wins",
        [`route add default metric 7 ${hops}`, "route add default via 10.0.2.254 metric 3"],
        "eth2",
        undefined,
      ],
    ];
    for (const [name, commands, expected, doubt, options = {}] of cases) {
      await t.step(name, () => {
        using ns = new ScratchNamespace();
        const { families = [4], lastIp, compat = "1" } = options;
        ns.run(() => writeSysctl("net/ipv4/nexthop_compat_mode", compat));
        twoDevices(ns);
        for (const number of [1, 2]) ns.ip(`addr add fd0${number}::1/64 dev eth${number} nodad`);
        for (const command of commands) ns.ip(command);
        const doubts: string[] = [];
        const found = ns.run(() => {
          using socket = new NetlinkSocket();
          return findOuterInterface(socket, NOTHING, families, {
            lastIps: new Map(lastIp === undefined ? [] : [[4, address(lastIp)]]),
            onDoubt: (text) => doubts.push(text),
          });
        });
        assert.equal(found.name, expected);
        assert.match(doubts.join(), doubt ?? /^$/);
      });
    }
  },
);

/** Gives a namespace the devices eth1 and eth2, up, with 10.0.1.1 and 10.0.2.1. */
function twoDevices(ns: ScratchNamespace): void {
  for (const number of [1, 2]) {
    ns.ip(`link add eth${number} type veth peer name peer${number}`);
    ns.ip(`link set eth${number} up`);
    ns.ip(`link set peer${number} up`);
    ns.ip(`addr add 10.0.${number}.1/24 dev eth${number}`);
  }
}

rootTest(
  "a node that had to take another address returns to its own, and takes no link-local one",
  () => {
    using ns = new ScratchNamespace();
    twoDevices(ns);
    for (const number of [1, 2]) ns.ip(`addr add fd0${number}::1/64 dev eth${number} nodad`);
    ns.ip("addr add 10.0.9.9/32 dev eth1");
    ns.ip("route add default via 10.0.1.254 dev eth1");
    ns.ip("route add default via fd01::fe dev eth1");
    const log = new RecordingLog();
    ns.run(() => {
      using socket = new NetlinkSocket();
      const follower = new OuterInterfaceFollower({
        socket,
        choice: NOTHING,
        families: [4, 6],
        log,
      });
      for (
        const [what, commands, expected, complaint] of [
          ["its own gone", ["addr del 10.0.1.1/24 dev eth1"], "eth1 10.0.9.9 fd01::1"],
          ["its own back", ["addr add 10.0.1.1/24 dev eth1"], "eth1 10.0.1.1 fd01::1"],
          // Addresses of IPv6 go with the device, all but the link's own.
          [
            "down and up",
            ["link set eth1 down", "link set eth1 up"],
            "eth1 10.0.1.1 fd01::1",
            /fe80/,
          ],
          ["another of IPv6", ["addr add fd01::7/64 dev eth1 nodad"], "eth1 10.0.1.1 fd01::7"],
          [
            "the way elsewhere",
            [
              "addr flush dev eth1",
              "route add default via 10.0.2.254 dev eth2",
              "route add default via fd02::fe dev eth2",
            ],
            "eth2 10.0.2.1 fd02::1",
          ],
          [
            "the way of the start",
            ["addr add 10.0.1.1/24 dev eth1", "addr add fd01::1/64 dev eth1 nodad"],
            "eth1 10.0.1.1 fd01::1",
          ],
        ] as const
      ) {
        log.records.length = 0;
        for (const command of commands) ns.ip(command);
        assert.ok(follower.concerns({ device: "eth1" }), what);
        follower.refresh();
        const { name, addresses } = follower.current;
        assert.equal(`${name} ${[...addresses.values()].join(" ")}`, expected, what);
        assert.match(
          log.lines.filter((line) => /^error/.test(line)).join(),
          complaint ?? /^$/,
          what,
        );
      }
    });
  },
);

rootTest("the outer interface is followed through what happens to it", () => {
  using ns = new ScratchNamespace();
  twoDevices(ns);
  ns.ip("route add default via 10.0.1.254 dev eth1");
  const log = new RecordingLog();
  ns.run(() => {
    using socket = new NetlinkSocket();
    const follower = new OuterInterfaceFollower({ socket, choice: NOTHING, families: [4], log });
    for (
      const [what, commands, expected, said] of [
        ["another MTU", ["link set eth1 mtu 1400"], "eth1 1400 10.0.1.1", []],
        [
          "the default route elsewhere",
          [
            "route replace default via 10.0.2.254 dev eth2",
          ],
          "eth1 1400 10.0.1.1",
          [],
        ],
        ["down", ["link set eth1 down"], "eth1 1400 10.0.1.1", [/error device eth1.* is down/]],
        ["another name", ["link set eth1 name lan0", "link set lan0 up"], "lan0 1400 10.0.1.1", [
          /info .* by device lan0 again/,
        ]],
        [
          "another address, and no default route",
          [
            "route del default",
            "addr del 10.0.1.1/24 dev lan0",
            "addr add 10.0.1.9/24 dev lan0",
          ],
          "lan0 1400 10.0.1.9",
          [],
        ],
        ["no address", ["addr del 10.0.1.9/24 dev lan0"], "lan0 1400 10.0.1.9", [
          /error device lan0 has no IPv4 address/,
        ]],
        ["a second look", [], "lan0 1400 10.0.1.9", []],
        [
          "a way by another device",
          ["route add default via 10.0.2.254 dev eth2"],
          "eth2 1500 10.0.2.1",
          [
            /info .* by device eth2 again/,
          ],
        ],
        ["gone", ["link del eth2"], "eth2 1500 10.0.2.1", [/error there is no default route/]],
      ] as const
    ) {
      log.records.length = 0;
      for (const command of commands) ns.ip(command);
      follower.refresh();
      const { name, mtuBytes, addresses, publicIps } = follower.current;
      assert.equal(`${name} ${mtuBytes} ${addresses.get(4)}`, expected, what);
      assert.deepEqual(publicIps, addresses, what);
      assert.equal(log.lines.length, said.length, `${what}: ${log.lines}`);
      said.forEach((pattern, index) => assert.match(log.lines[index]!, pattern, what));
      assert.equal(
        follower.concerns({ device: "veth7" }),
        /^error/.test(`${log.lines}`) || what === "a second look",
      );
    }
  });
});
