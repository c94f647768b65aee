/**
 * Takes away all that a node had in the kernel. The reconciler does it, with nothing wanted: what is denim's is
 * decided where it always is.
 *
 * @module
 */

import { type Cidr, FAMILIES } from "../../ip.ts";
import type { PodNetwork } from "../../kernel_state.ts";
import type { Logger } from "../../log.ts";
import { NetlinkSocket } from "../netlink/netlink_socket.ts";
import { listAddresses } from "../objects/address.ts";
import { type LinkState, listLinks } from "../objects/link.ts";
import { NO_GATEWAY_ALIAS } from "../objects/pod_link.ts";
import type { AnyTable, KernelTables } from "./kernel_table.ts";
import { LinuxTables } from "./linux_tables.ts";
import { choosePodBridge } from "./pod_bridge.ts";
import { Reconciler, type ReconcileResult } from "./reconciler.ts";

/** The devices of a node's pods. */
export interface PodDevices {
  /** The bridges that the plugin made. */
  readonly bridges: readonly string[];
  /** Their ports: the node's ends of pods' links. */
  readonly ports: readonly string[];
}

/**
 * Finds the devices of pods in this thread's network namespace: on the bridge with the gateway's address of one of the
 * node's subnets, and on bridges that the plugin has marked. Throws a LinuxError.
 */
export function podDevices(subnets: readonly Cidr[], networks: readonly PodNetwork[]): PodDevices {
  using socket = new NetlinkSocket();
  const links = listLinks(socket);
  const addresses = FAMILIES.flatMap((family) => listAddresses(socket, family));
  const gateways = subnets.map((subnet) => (
    { kind: "podGateway", address: subnet.at(1n), prefixLength: subnet.prefixLength } as const
  ));
  const chosen = choosePodBridge(links, addresses, gateways, networks, undefined)?.link;
  const isPods = (link: LinkState) =>
    link.index === chosen?.index || link.type === "bridge" && link.alias === NO_GATEWAY_ALIAS;
  const bridges = links.filter(isPods);
  const ports = links.filter(({ type, masterIndex }) =>
    type === "veth" && bridges.some(({ index }) => index === masterIndex)
  );
  return { bridges: bridges.map(({ name }) => name), ports: ports.map(({ name }) => name) };
}

/** How {@link clearNode} works. */
export interface ClearNodeOptions {
  /** The cluster's networks. */
  readonly networks: readonly PodNetwork[];
  /** The names of the node's devices, with those of its pods; they need not be there. */
  readonly devices: readonly string[];
  /** Told of each object before it is removed, in words such as `route 10.5.2.0/24`. */
  readonly say: (object: string) => void;
  /** Whether nothing is removed, and is only said. */
  readonly dryRun: boolean;
  /** Takes what operators should know. */
  readonly log: Logger;
}

/** Clears the network namespace of this thread. Settings stay. Throws a LinuxError without CAP_NET_ADMIN. */
export function clearNode(options: ClearNodeOptions): ReconcileResult {
  const { networks, devices, log } = options;
  using reconciler = new Reconciler({
    log,
    open: (desired): KernelTables => {
      const tables = new LinuxTables({
        desired,
        log,
        left: new Set(devices),
        onUnderlay: () => {},
      });
      return heard(tables, options);
    },
  });
  reconciler.networks = networks;
  return reconciler.check();
}

/** The same tables, which say what they remove. */
function heard(tables: LinuxTables, { say, dryRun }: ClearNodeOptions): KernelTables {
  const hear = (table: AnyTable): AnyTable => {
    const apply: AnyTable["apply"] = (steps) => {
      for (const { key } of steps) say(key);
      return dryRun ? [] : table.apply(steps);
    };
    return new Proxy(table, {
      get(target, name) {
        if (name === "apply") return apply;
        const value = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  };
  const known = new Map(Object.values(tables.tables).map((table) => [table, hear(table)]));
  const heardTables = Object.fromEntries(
    Object.entries(tables.tables).map(([kind, table]) => [kind, known.get(table)!]),
  );
  return {
    tables: heardTables,
    derivations: tables.derivations,
    inside: (pass) => tables.inside(pass),
    set networks(networks: readonly PodNetwork[]) {
      tables.networks = networks;
    },
    [Symbol.dispose]: () => tables[Symbol.dispose](),
  };
}
