import assert from "node:assert/strict";
import { CONTEXT, messagesOf, readWritten } from "../../../tests/support/kernel_context.ts";
import { Cidr, IpAddress } from "../../ip.ts";
import { LAST_METRIC, type Route } from "../../kernel_state.ts";
import { RTPROT_DENIM } from "./object_kind.ts";
import { type FoundRoute, routeKind, writeNewRoute, writeRouteHeader } from "./route.ts";
import {
  RT_SCOPE_LINK,
  RT_TABLE_LOCAL,
  RTA_OIF,
  RTM_NEWROUTE,
  RTN_BROADCAST,
  RTN_LOCAL,
  RTPROT_KERNEL,
} from "../uapi/rtnetlink.ts";

const BY_NEXTHOP: Route = {
  kind: "route",
  destination: Cidr.parse("10.5.2.0/24"),
  nexthopId: 0x0a05_0200,
};
const BY_DEVICE: Route = {
  kind: "route",
  destination: Cidr.parse("fc00:5::/48"),
  device: "flannel.1",
  source: IpAddress.parse("fc00:5:0:3::"),
};
const NOWHERE: Route = {
  kind: "route",
  type: "blackhole",
  destination: Cidr.parse("10.5.3.0/24"),
  metric: LAST_METRIC,
};

// struct rtmsg: the main table, protocol 155; RTA_DST, then RTA_NH_ID, or RTA_OIF and RTA_PREFSRC, or RTA_PRIORITY
const MESSAGES = [
  [
    BY_NEXTHOP,
    "route 10.5.2.0/24",
    "02180000 fe9b0001 00000000 08000100 0a050200 08001e00 0002050a",
    "02180000 fe9bff01 00000000 08000100 0a050200",
    ["nexthop 168100352"],
  ],
  [
    BY_DEVICE,
    "route fc00:5::/48",
    "0a300000 fe9b0001 00000000 14000100 fc000005 00000000 00000000 00000000 08000400 07000000 " +
    "14000700 fc000005 00000003 00000000 00000000",
    "0a300000 fe9bff01 00000000 14000100 fc000005 00000000 00000000 00000000 08000400 07000000",
    ["address flannel.1 fc00:5:0:3::/128"],
  ],
  [
    NOWHERE,
    "route 10.5.3.0/24 metric 4294967295",
    "02180000 fe9b0006 00000000 08000100 0a050300 08000600 ffffffff",
    "02180000 fe9bff06 00000000 08000100 0a050300 08000600 ffffffff",
    [],
  ],
] as const;

Deno.test("routeKind writes RTM_NEWROUTE and RTM_DELROUTE, and reads what it writes", () => {
  for (const [object, key, put, remove, needs] of MESSAGES) {
    const puts = (mayReplace: boolean) =>
      messagesOf((writer) => routeKind.put(writer, object, CONTEXT, mayReplace));
    assert.deepEqual(puts(false), [`24 0x600: ${put}`], "NLM_F_CREATE | NLM_F_EXCL");
    assert.deepEqual(puts(true), [`24 0x500: ${put}`], "NLM_F_CREATE | NLM_F_REPLACE");
    assert.deepEqual(
      messagesOf((writer) => routeKind.remove!(writer, object, CONTEXT)),
      [`25 0x0: ${remove}`],
    );
    const read = readWritten(
      (writer) => routeKind.put(writer, object, CONTEXT, false),
      (reader) => routeKind.parse(reader, CONTEXT),
    )!;
    // The kernel gives a route of IPv6 a metric.
    const metric: number = object === BY_DEVICE ? 1024 : read.metric ?? 0;
    assert.equal(routeKind.key({ ...read, metric }), key);
    assert.equal(routeKind.key(object), key);
    assert.ok(routeKind.equal(object, read));
    assert.deepEqual(routeKind.needs!(object), needs);
  }
});

Deno.test("routeKind removes the very route that was found: its metric, protocol and device", () => {
  const found: FoundRoute = {
    kind: "route",
    destination: Cidr.parse("10.5.2.0/24"),
    device: "eth0",
    protocol: 3,
    metric: 7,
  };
  assert.equal(routeKind.key(found), "route 10.5.2.0/24 metric 7");
  assert.deepEqual(
    messagesOf((writer) => routeKind.remove!(writer, found, CONTEXT)),
    ["25 0x0: 02180000 fe03ff01 00000000 08000100 0a050200 08000600 07000000 08000400 09000000"],
  );
});

Deno.test("routeKind finds the address of the node itself taken for a broadcast address, and removes that", () => {
  const read = (type: number, destination: string) =>
    readWritten(
      (writer) =>
        writeRouteHeader(
          writer.begin(RTM_NEWROUTE, 0),
          Cidr.parse(destination),
          RTPROT_KERNEL,
          RT_SCOPE_LINK,
          type,
          RT_TABLE_LOCAL,
        ).u32Attribute(RTA_OIF, 8).end(),
      (reader) => routeKind.parse(reader, CONTEXT),
    );
  const found = read(RTN_BROADCAST, "10.5.1.0/32")!;
  assert.equal(routeKind.key(found), "broadcast 10.5.1.0 dev cni0");
  assert.ok(routeKind.ours(found, CONTEXT, false));
  assert.deepEqual(
    messagesOf((writer) => routeKind.remove!(writer, found, CONTEXT)),
    ["25 0x0: 02200000 ff02ff03 00000000 08000100 0a050100 08000400 08000000"],
  );
  assert.equal(read(RTN_BROADCAST, "10.5.1.255/32"), undefined, "the network's own");
  assert.equal(read(RTN_LOCAL, "10.5.1.0/32"), undefined);
});

Deno.test("routeKind compares the way and who made the route", () => {
  const protocol = RTPROT_DENIM;
  const { destination } = BY_NEXTHOP;
  const source = IpAddress.parse("fc00:5:0:3::"), gateway = IpAddress.parse("fe80::9");
  for (
    const [wanted, found, equal] of [
      [BY_NEXTHOP, BY_NEXTHOP, true],
      [BY_NEXTHOP, { ...BY_NEXTHOP, nexthopId: 7, protocol }, false],
      [BY_NEXTHOP, { ...BY_NEXTHOP, protocol: 3 }, false],
      [BY_NEXTHOP, { kind: "route", destination, device: "flannel.1", protocol }, false],
      [BY_DEVICE, BY_DEVICE, true],
      [BY_DEVICE, { ...BY_DEVICE, nexthopId: 0, protocol }, true],
      [BY_DEVICE, { ...BY_DEVICE, nexthopId: 7, protocol }, false],
      [BY_DEVICE, { ...BY_DEVICE, device: "eth0", protocol }, false],
      [BY_DEVICE, { ...BY_DEVICE, source: undefined, protocol }, false],
      [BY_DEVICE, { ...BY_DEVICE, source, gateway, protocol }, false],
      [BY_NEXTHOP, { kind: "route", type: "other", destination, protocol }, false],
      [NOWHERE, { ...NOWHERE, protocol }, true],
      [NOWHERE, { ...NOWHERE, protocol: 3 }, false],
      [NOWHERE, { ...NOWHERE, type: "other", protocol }, false],
      [
        NOWHERE,
        { kind: "route", destination, device: "eth0", metric: LAST_METRIC, protocol },
        false,
      ],
    ] as const
  ) assert.equal(routeKind.equal(wanted, found), equal, JSON.stringify({ wanted, found }));
});

Deno.test("routeKind takes for denim's what is on its devices, or has its protocol in the network", () => {
  const route = (destination: string, device: string, protocol: number): FoundRoute => (
    { kind: "route", destination: Cidr.parse(destination), device, protocol }
  );
  for (
    const [found, known, ours] of [
      [route("10.66.0.0/16", "flannel.1", 3), false, true],
      [route("10.66.0.0/16", "flannel.1", RTPROT_KERNEL), false, false],
      [route("10.5.2.0/24", "eth0", RTPROT_DENIM), false, true],
      [route("10.6.2.0/24", "eth0", RTPROT_DENIM), false, false],
      [route("10.6.2.0/24", "eth0", RTPROT_DENIM), true, true],
      [route("10.5.2.0/24", "eth0", 3), true, false],
    ] as const
  ) assert.equal(routeKind.ours(found, CONTEXT, known), ours, JSON.stringify(found));
});

Deno.test("routeKind ignores other tables than the main one", () => {
  const parse = (table?: number) =>
    readWritten(
      (writer) => writeNewRoute(writer, { destination: BY_NEXTHOP.destination, index: 9, table }),
      (reader) => routeKind.parse(reader, CONTEXT),
    );
  assert.equal(parse()?.device, "eth0");
  assert.equal(parse(100), undefined);
});
