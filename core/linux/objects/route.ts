/**
 * Routes (`RTM_*ROUTE`, linux/rtnetlink.h).
 *
 * @module
 */

import { Cidr, FAMILIES, type Family, IpAddress } from "../../ip.ts";
import type { Route } from "../../kernel_state.ts";
import {
  EACCES,
  EEXIST,
  EHOSTUNREACH,
  EINVAL,
  ENETUNREACH,
  ENOENT,
  LinuxError,
} from "../sys/linux_error.ts";
import type { MessageReader, MessageWriter } from "../netlink/netlink_codec.ts";
import type { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { addressKey } from "./address.ts";
import { nexthopKey } from "./nexthop.ts";
import { type KernelContext, type ObjectKind, putFlags, RTPROT_DENIM } from "./object_kind.ts";
import { nexthopDevices } from "./nexthop.ts";
import { addressFamily, hostPrefix } from "../sys/address_family.ts";
import { NLM_F_CREATE, NLM_F_EXCL } from "../uapi/netlink.ts";
import {
  RT_SCOPE_LINK,
  RT_SCOPE_NOWHERE,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_LOCAL,
  RT_TABLE_MAIN,
  RT_TABLE_UNSPEC,
  RTA_DST,
  RTA_GATEWAY,
  RTA_METRICS,
  RTA_MULTIPATH,
  RTA_NH_ID,
  RTA_OIF,
  RTA_PREFSRC,
  RTA_PRIORITY,
  RTA_TABLE,
  RTA_VIA,
  RTAX_ADVMSS,
  RTAX_MTU,
  RTM_DELROUTE,
  RTM_F_FIB_MATCH,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  RTMSG_LEN,
  RTN_BLACKHOLE,
  RTN_BROADCAST,
  RTN_LOCAL,
  RTN_UNICAST,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_ROUTE,
  RTPROT_BOOT,
  RTPROT_KERNEL,
} from "../uapi/rtnetlink.ts";

/** A route as the kernel has it. */
export interface RouteState {
  /** What becomes of its packets: `RTN_UNICAST`, `RTN_BLACKHOLE`. */
  readonly type: number;
  /** Where it leads. */
  readonly destination: Cidr;
  /** Who made it (`RTPROT_…`). */
  readonly protocol: number;
  /** The nexthop object that it goes by; 0 if it names device and gateway itself. */
  readonly nexthopId: number;
  /** The device that packets leave by; 0 if there are several. */
  readonly index: number;
  /** The gateway; `undefined` if the destination is on the link. */
  readonly gateway: IpAddress | undefined;
  /** The source address for packets from this host, if the route names one. */
  readonly source: IpAddress | undefined;
  /** Its metric; the lowest wins. */
  readonly metric: number;
  /** Its table. */
  readonly table: number;
}

/**
 * A route as {@link routeKind} finds it: by a nexthop object, straight to a device, by a gateway of its own, or nowhere.
 * A route that denim has just written says nothing of protocol and metric.
 *
 * One of the type `broadcast` is in the table `local`, and says that an address which denim gives to a device is a
 * network's broadcast address. Kernels before 5.14 take the lowest address of each network for one (58fee5fc8365,
 * "ip: Treat IPv4 segment's lowest address as unicast"), and the pod bridge's network has the node's own address there.
 * Of two entries for one address the older counts: if the bridge's is older, the kernel refuses the address as a
 * route's source, and answers neither pings nor new connections to it.
 */
export interface FoundRoute {
  /** Tells the kinds of object apart. */
  readonly kind: "route";
  /** Where it leads. */
  readonly destination: Cidr;
  /** What becomes of its packets, unless they are sent on. */
  readonly type?: "blackhole" | "broadcast" | "other";
  /** The nexthop object that it goes by, if not 0. */
  readonly nexthopId?: number;
  /** The device that packets leave by; `undefined` also if there are several. */
  readonly device?: string | undefined;
  /** The source address of packets from this host. */
  readonly source?: IpAddress | undefined;
  /** The gateway. */
  readonly gateway?: IpAddress | undefined;
  /** Who made it (`RTPROT_…`). */
  readonly protocol?: number;
  /** Its metric, which is part of what tells routes apart. */
  readonly metric?: number;
}

/** The metric that the kernel gives a route if none is asked for (`IP6_RT_PRIO_USER`). */
function defaultMetric(family: Family): number {
  return family === 4 ? 0 : 1024;
}

/** Writes `struct rtmsg` for a route, of the main table unless another is given. */
export function writeRouteHeader(
  writer: MessageWriter,
  destination: Cidr,
  protocol: number,
  scope: number = RT_SCOPE_UNIVERSE,
  type: number = RTN_UNICAST,
  table: number = RT_TABLE_MAIN,
): MessageWriter {
  return writer.u8(addressFamily(destination.family)).u8(destination.prefixLength).u8(0).u8(0)
    .u8(table).u8(protocol).u8(scope).u8(type).u32(0)
    .addressAttribute(RTA_DST, destination.address);
}

/** A plain route of the main table, which names device or gateway itself. */
export interface PlainRoute {
  /** Where it leads; everywhere unless given. */
  readonly destination?: Cidr;
  /** The gateway; without one the destination is on the device's link. */
  readonly gateway?: IpAddress | undefined;
  /** The index of the device that packets leave by; the gateway's unless given. */
  readonly index?: number;
  /** Its metric; the lowest wins. */
  readonly metric?: number | undefined;
  /** Its table; the main one unless given. */
  readonly table?: number | undefined;
  /** How far it leads (`RT_SCOPE_…`); to the link without a gateway, else anywhere, unless given. */
  readonly scope?: number | undefined;
  /** The largest packet by this route, in bytes. */
  readonly mtuBytes?: number | undefined;
  /** The largest TCP segment to tell the other side, in bytes. */
  readonly advMssBytes?: number | undefined;
  /** Whether there may be a route to the same place already; the new one goes before it. */
  readonly besideOthers?: boolean;
}

/** Writes the message that makes a plain route. Gateway or index must be given. */
export function writeNewRoute(writer: MessageWriter, route: PlainRoute): void {
  const { destination, gateway, index, metric, table, mtuBytes, advMssBytes } = route;
  const family = destination?.family ?? gateway?.family ?? 4;
  writeRouteHeader(
    writer.begin(RTM_NEWROUTE, NLM_F_CREATE | (route.besideOthers ? 0 : NLM_F_EXCL)),
    destination ?? new Cidr(new IpAddress(family, 0n), 0),
    RTPROT_BOOT,
    route.scope ?? (gateway === undefined ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE),
  );
  if (gateway !== undefined) writer.addressAttribute(RTA_GATEWAY, gateway);
  if (index !== undefined) writer.u32Attribute(RTA_OIF, index);
  if (metric !== undefined) writer.u32Attribute(RTA_PRIORITY, metric);
  // Goes before the table in the header, which has room for 255 only.
  if (table !== undefined) writer.u32Attribute(RTA_TABLE, table);
  if (mtuBytes || advMssBytes) {
    writer.nested(RTA_METRICS, () => {
      if (mtuBytes) writer.u32Attribute(RTAX_MTU, mtuBytes);
      if (advMssBytes) writer.u32Attribute(RTAX_ADVMSS, advMssBytes);
    });
  }
  writer.end();
}

/** Reads `RTM_NEWROUTE` or `RTM_DELROUTE`; `undefined` for a route that is not unicast. */
function parseUnicast(reader: MessageReader): RouteState | undefined {
  return reader.u8(7) === RTN_UNICAST ? parseRoute(reader) : undefined;
}

/** Reads `RTM_NEWROUTE` or `RTM_DELROUTE`. */
function parseRoute(reader: MessageReader): RouteState {
  const family: Family = reader.u8(0) === addressFamily(4) ? 4 : 6;
  const prefixLength = reader.u8(1), table = reader.u8(4), protocol = reader.u8(5);
  const type = reader.u8(7);
  reader.readAttributes(RTMSG_LEN);
  const address = (type: number) => {
    const bytes = reader.bytesAttribute(type);
    return bytes && IpAddress.fromBytes(bytes);
  };
  return {
    type,
    destination: new Cidr(address(RTA_DST) ?? new IpAddress(family, 0n), prefixLength),
    protocol,
    nexthopId: reader.u32Attribute(RTA_NH_ID) ?? 0,
    index: reader.u32Attribute(RTA_OIF) ?? 0,
    // struct rtvia: an IPv4 route's gateway may be an IPv6 host; behind its family comes the address.
    gateway: address(RTA_GATEWAY) ?? viaOf(reader.bytesAttribute(RTA_VIA)),
    source: address(RTA_PREFSRC),
    metric: reader.u32Attribute(RTA_PRIORITY) ?? 0,
    table: reader.u32Attribute(RTA_TABLE) ?? table,
  };
}

function viaOf(via: Uint8Array | undefined): IpAddress | undefined {
  return via && IpAddress.fromBytes(via.subarray(2));
}

/** What a dump of routes is narrowed to. */
interface RouteFilter {
  readonly protocol?: number;
  readonly index?: number;
  /** The main one unless given. */
  readonly table?: number;
  /** What becomes of the packets; `RTN_UNICAST` unless given. */
  readonly type?: number;
}

function dumpRoutes<T>(
  socket: NetlinkSocket,
  family: Family,
  filter: RouteFilter,
  parse: (reader: MessageReader) => T | undefined,
): T[] {
  try {
    return socket.dump("list routes", (writer) => {
      writer.begin(RTM_GETROUTE, 0).u8(addressFamily(family)).u8(0).u8(0).u8(0)
        .u8(RT_TABLE_UNSPEC).u8(filter.protocol ?? 0).u8(0).u8(filter.type ?? RTN_UNICAST).u32(0)
        .u32Attribute(RTA_TABLE, filter.table ?? RT_TABLE_MAIN);
      if (filter.index) writer.u32Attribute(RTA_OIF, filter.index);
      writer.end();
    }, parse);
  } catch (error) {
    // The kernel makes a table with its first route: a host of IPv6 alone has no main table of IPv4.
    if (error instanceof LinuxError && error.errno === ENOENT) return [];
    throw error;
  }
}

/** The unicast routes of a table, of one family. */
export function listRoutes(
  socket: NetlinkSocket,
  family: Family,
  table: number = RT_TABLE_MAIN,
): RouteState[] {
  return dumpRoutes(socket, family, { table }, parseUnicast);
}

/** The routes of the main table that leave by a device and that denim did not make, of one family. */
export function listOthersRoutes(
  socket: NetlinkSocket,
  family: Family,
  index: number,
): RouteState[] {
  return dumpRoutes(socket, family, { index }, parseRoute)
    .filter(({ protocol }) => protocol !== RTPROT_DENIM);
}

/** A route to everywhere else. */
export interface DefaultRoute {
  /** Its metric; the lowest wins. */
  readonly metric: number;
  /** The indexes of the devices that packets may leave by, each once, in the order of the route's nexthops. */
  readonly indexes: readonly number[];
  /** The gateways that packets may go by, but for those of a nexthop group. */
  readonly gateways: readonly IpAddress[];
}

/** The default routes of the main table, of one family, also those with several nexthops. */
export function listDefaultRoutes(socket: NetlinkSocket, family: Family): DefaultRoute[] {
  const routes = dumpRoutes(socket, family, {}, (reader) => {
    const route = parseUnicast(reader);
    if (route?.destination.prefixLength !== 0) return undefined;
    const several = multipathHops(reader.bytesAttribute(RTA_MULTIPATH));
    const hops = route.index === 0 ? several : [route];
    return {
      ...route,
      indexes: hops.map(({ index }) => index),
      gateways: hops.flatMap(({ gateway }) => gateway ?? []),
    };
  });
  return routes.map(({ metric, indexes, gateways, nexthopId }) => {
    // With the sysctl net.ipv4.nexthop_compat_mode=0 the kernel says the nexthop object's number alone.
    const byObject = indexes.length === 0 && nexthopId !== 0;
    return {
      metric,
      indexes: [...new Set(byObject ? nexthopDevices(socket, nexthopId) : indexes)],
      gateways,
    };
  });
}

/**
 * Reads `RTA_MULTIPATH`: each `struct rtnexthop` says its length first and its device last; behind it come attributes,
 * of which an address in `RTA_GATEWAY` is the gateway.
 */
function multipathHops(bytes: Uint8Array | undefined): Pick<RouteState, "index" | "gateway">[] {
  if (bytes === undefined) return [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const hops: Pick<RouteState, "index" | "gateway">[] = [];
  for (let at = 0; at + 8 <= view.byteLength;) {
    const end = Math.min(at + Math.max(view.getUint16(at, true), 8), view.byteLength);
    let gateway: IpAddress | undefined;
    for (let attribute = at + 8; attribute + 4 <= end;) {
      const length = Math.max(view.getUint16(attribute, true), 4);
      const type = view.getUint16(attribute + 2, true);
      if (type === RTA_GATEWAY) {
        gateway = IpAddress.fromBytes(bytes.subarray(attribute + 4, attribute + length));
      }
      attribute += (length + 3) & ~3;
    }
    hops.push({ index: view.getInt32(at + 4, true), gateway });
    at += (end - at + 3) & ~3;
  }
  return hops;
}

/**
 * The route by which the kernel would send a packet to an address, and the source that it would choose:
 * `ip route get ADDRESS`. `undefined` if there is none. With `match`, the table's entry rather than the decision.
 */
export function routeTo(
  socket: NetlinkSocket,
  address: IpAddress,
  options: { readonly match?: boolean } = {},
): RouteState | undefined {
  return lookUp(socket, address, options.match ? RTM_F_FIB_MATCH : 0, parseUnicast);
}

/**
 * Whether the kernel takes packets for an address as its own. An IPv6 address that it was just given, and shows,
 * it takes up only a little later; what comes for it before is lost.
 */
export function isLocal(socket: NetlinkSocket, address: IpAddress): boolean {
  return lookUp(socket, address, 0, (reader) => reader.u8(7)) === RTN_LOCAL;
}

/** Asks by which route the kernel would send a packet to an address; `undefined` if there is none. */
function lookUp<T>(
  socket: NetlinkSocket,
  address: IpAddress,
  flags: number,
  parse: (reader: MessageReader) => T | undefined,
): T | undefined {
  try {
    return socket.get(
      `look up the route to ${address}`,
      (writer) =>
        writer.begin(RTM_GETROUTE, 0)
          .u8(addressFamily(address.family)).u8(hostPrefix(address)).u8(0).u8(0)
          .u8(RT_TABLE_UNSPEC).u8(0).u8(0).u8(0).u32(flags)
          .addressAttribute(RTA_DST, address).end(),
      parse,
    );
  } catch (error) {
    if (error instanceof LinuxError && NO_WAY.has(error.errno)) return undefined;
    throw error;
  }
}

/** The kernel's errors for no route, and for routes that refuse: blackhole, unreachable, prohibit. */
const NO_WAY: ReadonlySet<number> = new Set([ENETUNREACH, EINVAL, EHOSTUNREACH, EACCES]);

/** Routes of the main table, for the reconciler, and broadcast routes that nobody wants: see {@link FoundRoute}. */
export const routeKind: ObjectKind<Route, FoundRoute> = {
  messages: {
    new: RTM_NEWROUTE,
    del: RTM_DELROUTE,
    groups: [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE],
  },
  key({ type, destination, device, metric }) {
    if (type === "broadcast") return `broadcast ${destination.address} dev ${device}`;
    const usual = metric === undefined || metric === defaultMetric(destination.family);
    return `route ${destination}${usual ? "" : ` metric ${metric}`}`;
  },
  equal(wanted, found) {
    if (!isDenims(found)) return false;
    const type = "type" in wanted ? wanted.type : undefined;
    if (found.type !== type) return false;
    if ("type" in wanted) return true;
    if ("nexthopId" in wanted) return found.nexthopId === wanted.nexthopId;
    return !found.nexthopId && found.device === wanted.device && found.gateway === undefined &&
      found.source?.equals(wanted.source) === true;
  },
  /**
   * `ip route add|replace DESTINATION nhid ID proto 155`, or
   * `ip route add|replace DESTINATION dev DEVICE scope global src SOURCE proto 155`, or
   * `ip route add|replace blackhole DESTINATION proto 155 metric 4294967295`
   */
  put(writer, route, context, mayReplace) {
    writeRouteHeader(
      writer.begin(RTM_NEWROUTE, putFlags(mayReplace)),
      route.destination,
      RTPROT_DENIM,
      RT_SCOPE_UNIVERSE,
      "type" in route ? RTN_BLACKHOLE : RTN_UNICAST,
    );
    if ("type" in route) {
      writer.u32Attribute(RTA_PRIORITY, route.metric);
    } else if ("nexthopId" in route) {
      writer.u32Attribute(RTA_NH_ID, route.nexthopId);
    } else {
      writer.u32Attribute(RTA_OIF, context.indexOf(route.device))
        .addressAttribute(RTA_PREFSRC, route.source);
    }
    writer.end();
  },
  /** `ip route del [TYPE] DESTINATION proto PROTOCOL [metric METRIC] [dev DEVICE] [table local]` */
  remove(writer, { type, destination, metric, protocol, nexthopId, device }, context) {
    writeRouteHeader(
      writer.begin(RTM_DELROUTE, 0),
      destination,
      protocol ?? RTPROT_DENIM,
      RT_SCOPE_NOWHERE, // of any scope
      type === "blackhole" ? RTN_BLACKHOLE : type === "broadcast" ? RTN_BROADCAST : RTN_UNICAST,
      type === "broadcast" ? RT_TABLE_LOCAL : RT_TABLE_MAIN,
    );
    if (metric) writer.u32Attribute(RTA_PRIORITY, metric);
    // Another program's route to the same place, by another device, may come first in the table.
    if (!nexthopId && device !== undefined) writer.u32Attribute(RTA_OIF, context.indexOf(device));
    writer.end();
  },
  parse(reader, context) {
    const { type, table, destination, protocol, metric, ...way } = parseRoute(reader);
    const route = { kind: "route", destination, protocol, metric } as const;
    if (table === RT_TABLE_LOCAL && type === RTN_BROADCAST) {
      if (!context.wantsAddress(destination.address)) return undefined;
      return { ...route, type: "broadcast", device: context.nameOf(way.index) };
    }
    if (table !== RT_TABLE_MAIN) return undefined;
    if (type !== RTN_UNICAST) {
      return { ...route, type: type === RTN_BLACKHOLE ? "blackhole" : "other" };
    }
    const { nexthopId, index, source, gateway } = way;
    return { ...route, nexthopId, device: context.nameOf(index), source, gateway };
  },
  ours(found, context, known) {
    const { type, protocol, device, destination } = found;
    if (type === "broadcast") return true;
    if (protocol !== RTPROT_KERNEL && device !== undefined && context.owned(device)) return true;
    return isDenims(found) &&
      (known || context.networks.some(({ network }) => network.contains(destination)));
  },
  dump(socket, context) {
    const filters: RouteFilter[] = [
      { protocol: RTPROT_DENIM },
      { protocol: RTPROT_DENIM, type: RTN_BLACKHOLE },
      ...context.ownedDevices().map((device) => ({ index: context.indexOf(device) })),
    ];
    const list = (family: Family, filter: RouteFilter) =>
      dumpRoutes(socket, family, filter, (reader) => routeKind.parse(reader, context));
    return [
      ...FAMILIES.flatMap((family) => filters.flatMap((filter) => list(family, filter))),
      ...listBroadcasts(socket, context),
    ];
  },
  needs(route) {
    if ("type" in route) return [];
    if ("nexthopId" in route) return [nexthopKey(route.nexthopId)];
    const { device, source } = route;
    return [addressKey(device, source, hostPrefix(source))];
  },
  /**
   * Another route stands there. One that leads the same way is an earlier run's, or flanneld's: denim takes it over in
   * one step, without a gap for packets. Any other stays. Or the source is taken for a broadcast address.
   */
  recover({ errno }, route, socket, context) {
    if (errno === EINVAL && "source" in route) {
      const found = listBroadcasts(socket, context)
        .filter(({ destination }) => destination.address.equals(route.source));
      for (const one of found) {
        socket.request(
          `remove ${routeKind.key(one)}`,
          (writer) => routeKind.remove!(writer, one, context),
        );
      }
      return found.length > 0;
    }
    if (errno !== EEXIST || "type" in route) return false;
    const { destination } = route;
    const way = "nexthopId" in route ? context.nexthop(route.nexthopId) : route;
    const there = routeTo(socket, destination.address, { match: true });
    if (way === undefined || there === undefined) return false;
    const via = "via" in way ? way.via : undefined;
    return there.destination.equals(destination) &&
      context.nameOf(there.index) === way.device && `${there.gateway}` === `${via}`;
  },
};

/** The broadcast routes that nobody wants; see {@link FoundRoute}. */
function listBroadcasts(socket: NetlinkSocket, context: KernelContext): FoundRoute[] {
  const filter = { table: RT_TABLE_LOCAL, type: RTN_BROADCAST };
  return dumpRoutes(socket, 4, filter, (reader) => routeKind.parse(reader, context));
}

function isDenims({ protocol = RTPROT_DENIM }: FoundRoute): boolean {
  return protocol === RTPROT_DENIM;
}
