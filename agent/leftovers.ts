/**
 * What flanneld, Docker or another network plugin left on the node, is not denim's to remove, and is in its way. Each
 * finding says what to do.
 *
 * @module
 */

import { addressBits, type Cidr, FAMILIES, type Logger, throwDefect } from "@denim/core";
import {
  type AddressState,
  type LinkState,
  listAddresses,
  listLinks,
  type NetlinkSocket,
} from "@denim/core/linux";
import { basename, join } from "node:path";
import * as z from "zod";

/** Where container runtimes look for network configurations. */
export const CNI_DIRECTORY = "/etc/cni/net.d";
/** The pods' bridge if a configuration names none. */
const DEFAULT_BRIDGE = "cni0";
/** What flanneld, its backends and Docker make, as the kernel calls it: never hardware, nor a pod's device. */
const LEFT_TYPES = ["bridge", "vxlan", "tun", "ipip", "wireguard"];

/** What a node's leftovers are told by. */
export interface HostView {
  /** All devices. */
  readonly links: readonly LinkState[];
  /** All addresses. */
  readonly addresses: readonly AddressState[];
  /** The runtime's configurations, the one that it takes first. */
  readonly cniConfs: readonly CniConf[];
  /** The cluster's networks. */
  readonly networks: readonly Cidr[];
  /** The node's own subnets. */
  readonly subnets: readonly Cidr[];
  /** The devices that are denim's, or the way to the other nodes. */
  readonly devices: readonly string[];
}

/** A network configuration in the runtime's folder. */
export interface CniConf {
  /** Its path. */
  readonly path: string;
  /** The plugins of its chain; `undefined` if it can't be read. */
  readonly plugins: readonly CniPlugin[] | undefined;
}

/** A plugin of a chain. */
export interface CniPlugin {
  /** Its program's name. */
  readonly type: string;
  /** The bridge that its delegate names. */
  readonly bridge?: string | undefined;
}

const pluginSchema = z.object({
  type: z.string(),
  delegate: z.object({ bridge: z.string().optional() }).optional().catch(undefined),
}).transform(({ type, delegate }): CniPlugin => ({ type, bridge: delegate?.bridge }));
const confSchema = z.union([
  z.object({ plugins: z.array(pluginSchema) }).transform(({ plugins }) => plugins),
  pluginSchema.transform((plugin) => [plugin]),
]);

/** Looks at a node, over a socket in its namespace. Every part of {@link HostView} that the kernel and a folder tell. */
export function viewNode(
  socket: NetlinkSocket,
  cniDirectory: string,
): Pick<HostView, "links" | "addresses" | "cniConfs"> {
  return {
    links: listLinks(socket),
    addresses: FAMILIES.flatMap((family) => listAddresses(socket, family)),
    cniConfs: readCniConfs(cniDirectory),
  };
}

/**
 * The network configurations of a folder, in the order in which runtimes try them (libcni's `ConfFiles`, sorted by
 * name). None if there is no such folder.
 */
export function readCniConfs(directory: string): CniConf[] {
  return namesIn(directory).filter((name) => /\.(conf|conflist|json)$/.test(name)).sort()
    .map((name) => {
      const path = join(directory, name);
      return { path, plugins: readPlugins(path) };
    });
}

function namesIn(directory: string): string[] {
  try {
    return [...Deno.readDirSync(directory)].map(({ name }) => name);
  } catch (error) {
    throwDefect(error);
    return [];
  }
}

function readPlugins(path: string): readonly CniPlugin[] | undefined {
  try {
    return confSchema.safeParse(JSON.parse(Deno.readTextFileSync(path))).data;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throwDefect(error);
    return undefined;
  }
}

/** Warns once of each leftover that is in denim's way on a node. */
export function logLeftovers(view: HostView, log: Logger): void {
  for (const message of shadowedConf(view.cniConfs)) log.warn("cni-conf-shadowed", message);
  for (const message of strangersDevices(view)) log.warn("leftover-device", message);
}

/** Another configuration that the runtime takes in place of denim's, or of flannel's if that one is used. */
function shadowedConf(confs: readonly CniConf[]): string[] {
  const own = chosenConf(confs);
  const [first] = confs;
  if (own === undefined || first === undefined || own === first) return [];
  const what = first.plugins === undefined
    ? "cannot be read as one"
    : `has the plugin ${first.plugins[0]?.type ?? "of nobody"}`;
  return [
    `container runtimes take the first network configuration by name: ${first.path} comes before ` +
    `${basename(own.path)} and ${what}; remove it, or give it a name behind that one`,
  ];
}

/** The configuration by which pods are to be attached here: denim's, else flannel's, whose chain works with denim. */
function chosenConf(confs: readonly CniConf[]): CniConf | undefined {
  const withType = (wanted: string) =>
    confs.find(({ plugins = [] }) => plugins.some(({ type }) => type === wanted));
  return withType("denim") ?? withType("flannel");
}

/** Devices with addresses of the cluster's networks that are not denim's: they draw packets that are not for them. */
function strangersDevices(view: HostView): string[] {
  const { links, addresses, networks, devices } = view;
  return links.flatMap((link) => {
    if (!LEFT_TYPES.includes(link.type ?? "") || devices.includes(link.name)) return [];
    const held = addresses.find(({ index, address, prefixLength }) =>
      index === link.index &&
      networks.some((network) =>
        network.contains(address) && (link.type === "bridge" ||
          // A tunnel between hosts, such as a VPN, has its own network's length.
          [addressBits(address.family), network.prefixLength].includes(prefixLength))
      )
    );
    const message = held &&
      (link.type === "bridge" ? bridgeInTheWay : tunnelInTheWay)(link, held, view);
    return message ?? [];
  });
}

function bridgeInTheWay(
  { name }: LinkState,
  { address, prefixLength }: AddressState,
  { cniConfs, subnets }: HostView,
): string | undefined {
  const own = chosenConf(cniConfs);
  const plugin = own?.plugins?.find(({ type }) => type === "denim" || type === "flannel");
  const podBridge = plugin?.bridge ?? DEFAULT_BRIDGE;
  // The agent and the plugin take former subnets' addresses from it.
  if (name === podBridge) return undefined;
  const remove = `run ip addr del ${address}/${prefixLength} dev ${name}`;
  if (!subnets.some((subnet) => subnet.contains(address))) {
    return `the bridge ${name} has ${address}/${prefixLength}, and this node's subnet is ${
      subnets.join(" and ")
    }: it ` +
      `draws packets that are for another node. ${remove}, or restart Docker with what mk-docker-opts.sh says now`;
  }
  // Docker alone, without CNI, is at home on it.
  if (own === undefined) return undefined;
  return `the bridge ${name} has the pods' gateway ${address}/${prefixLength}, as Docker does with flanneld's options, ` +
    `and ${own.path} has pods attached to ${podBridge}: take --bip from Docker's options and ${remove}`;
}

function tunnelInTheWay({ name }: LinkState, { address, prefixLength }: AddressState): string {
  return `the device ${name} has ${address}/${prefixLength} of the cluster's network and is not denim's: flanneld left ` +
    "it with another backend or VNI, or another network plugin did; if no program uses it, run ip link delete " +
    name;
}
