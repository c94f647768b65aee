/**
 * Which of the node's devices leads to the other nodes: chosen as flannel chooses it (pkg/ipmatch).
 *
 * @module
 */

import {
  addressBits,
  Complaints,
  ConfigError,
  type Family,
  IpAddress,
  type Logger,
  MAX_PACKET_BYTES,
  messageOf,
  type OuterInterface,
} from "@denim/core";
import {
  type AddressState,
  findLink,
  type LinkState,
  listAddresses,
  listDefaultRoutes,
  listLinks,
  type NetlinkSocket,
  readSysctl,
  routeTo,
  type UnderlayNews,
} from "@denim/core/linux";
import type { Pattern } from "./go_regexp.ts";

/** What decides which device it is. */
export interface InterfaceChoice {
  /** Devices by name or address, in order of preference. */
  readonly iface: readonly string[];
  /** Patterns for a device's name or address, tried after `iface`. */
  readonly ifaceRegex: readonly Pattern[];
  /** The device is the one that reaches this address; tried last. */
  readonly ifaceCanReach: IpAddress | undefined;
  /** The addresses at which other nodes reach this one, if they are not the device's. */
  readonly publicIps: ReadonlyMap<Family, IpAddress>;
}

/** What else matters when a device is chosen. */
export interface ChoiceContext {
  /** The addresses at which the node was reached in its last run. A device's that is among them is preferred. */
  readonly lastIps?: ReadonlyMap<Family, IpAddress>;
  /** Told in a sentence when the operator may want to choose another device. */
  readonly onDoubt?: (text: string) => void;
}

/** A device, and the address of it that led to its choice, if one did. */
interface Candidate {
  readonly link: LinkState;
  readonly address?: IpAddress;
}

/**
 * Finds the outer interface: by `--iface`, then `--iface-regex`, then `--iface-can-reach`. If none of them is given
 * it is the device that has the public IP, or else the one of the default route. Of several devices that match it is
 * the first that is up and has an address of each family. Throws a ConfigError that says what was looked for and
 * what there is.
 */
export function findOuterInterface(
  socket: NetlinkSocket,
  choice: InterfaceChoice,
  families: readonly Family[],
  context: ChoiceContext = {},
): OuterInterface {
  const host: HostView = {
    socket,
    families,
    links: listLinks(socket),
    addresses: families.flatMap((family) => listAddresses(socket, family)),
    lastIps: context.lastIps ?? new Map(),
    onDoubt: context.onDoubt ?? (() => {}),
  };
  let complaint: ConfigError | undefined;
  for (const { link, address } of candidates(host, choice)) {
    try {
      if (!link.up) {
        throw new ConfigError(`device ${link.name} is down; set it up, or choose another`);
      }
      return outerInterface(link, addressesOf(host, link, address), choice);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      complaint ??= error;
    }
  }
  throw complaint ??
    new ConfigError(`${nothingFound(choice, families)}; there are: ${inventory(host)}`);
}

function outerInterface(
  { name, mtuBytes }: LinkState,
  addresses: ReadonlyMap<Family, IpAddress>,
  choice: InterfaceChoice,
): OuterInterface {
  const publicIps = new Map(
    [...addresses].map(([family, own]) => [family, choice.publicIps.get(family) ?? own]),
  );
  return { name, mtuBytes: Math.min(mtuBytes, MAX_PACKET_BYTES), addresses, publicIps };
}

/** What an {@link OuterInterfaceFollower} works with. */
export interface FollowerOptions {
  /** Asks the kernel. */
  readonly socket: NetlinkSocket;
  /** What the operator chose. */
  readonly choice: InterfaceChoice;
  /** The families that net-conf enables. */
  readonly families: readonly Family[];
  /** See {@link ChoiceContext.lastIps}. */
  readonly lastIps?: ReadonlyMap<Family, IpAddress>;
  /** Takes a line when the device is lost, is back, or may not be the right one. */
  readonly log: Logger;
}

/**
 * Follows the outer interface through what happens to it: it gets another address, name or MTU, goes down and up
 * again, or is deleted and another takes its place.
 */
export class OuterInterfaceFollower {
  readonly #options: FollowerOptions;
  /** What it was at the start. */
  readonly #home: OuterInterface;
  #current: OuterInterface;
  #index: number;
  /** Whether it cannot be used as it is. */
  #isLost = false;
  readonly #complaints = new Complaints();
  readonly #doubts = new Complaints();

  /** Finds the interface; throws as {@link findOuterInterface} does. */
  constructor(options: FollowerOptions) {
    this.#options = options;
    this.#home = this.#current = this.#find(options.choice);
    this.#index = findLink(options.socket, this.#current.name)!.index;
  }

  /** The interface, as it was when it could last be used. */
  get current(): OuterInterface {
    return this.#current;
  }

  /** Whether news of the underlay are a reason for {@link OuterInterfaceFollower.refresh}. */
  concerns({ device, destination }: UnderlayNews): boolean {
    return this.#isLost || device === this.#current.name || device === this.#home.name ||
      device === undefined && destination === undefined;
  }

  /**
   * Evaluates the choice again. Keeps the current device while it has its addresses, even if it is down: a device
   * that is gone for a moment is not a reason to move. Otherwise it chooses as at the start, and if nothing fits,
   * keeps the last choice. Returns to the device and addresses of the start once these are there again: what took
   * their place may not be the node's for good.
   */
  refresh(): void {
    const { socket, choice, families } = this.#options;
    const own = families.flatMap((family) => listAddresses(socket, family));
    /** For each family the first of these interfaces' addresses that a device still has. */
    const kept = (device: number, interfaces: readonly OuterInterface[]) =>
      new Map(families.flatMap((family): (readonly [Family, IpAddress])[] => {
        const there = interfaces.map(({ addresses }) => addresses.get(family)!).find((wanted) =>
          own.some(({ index, address }) => index === device && address.equals(wanted))
        );
        return there === undefined ? [] : [[family, there]];
      }));
    const isWhole = ({ size }: ReadonlyMap<Family, IpAddress>) => size === families.length;
    const home = [this.#index, ...own.map(({ index }) => index)]
      .find((index) => isWhole(kept(index, [this.#home])));
    const homeLink = home === undefined ? undefined : findLink(socket, home);
    const link = homeLink?.up ? homeLink : findLink(socket, this.#index);
    if (link !== undefined && !link.up) {
      return this.#lose(`device ${link.name}, by which this node reaches the others, is down`);
    }
    const addresses = link && kept(link.index, [this.#home, this.#current]);
    if (link !== undefined && isWhole(addresses!)) {
      return this.#use(outerInterface(link, addresses!, choice));
    }
    const choices = [choice, ...(link ? [{ ...choice, ...only(link.name) }] : [])];
    for (const each of choices) {
      try {
        const found = this.#find(each);
        // An address that is still there stays, also if the other family's is gone.
        const outer = found.name === link?.name
          ? outerInterface(link, new Map([...found.addresses, ...addresses!]), choice)
          : found;
        this.#checkReach(outer);
        return this.#use(outer);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        if (each === choices.at(-1)) this.#lose(messageOf(error));
      }
    }
  }

  #find(choice: InterfaceChoice): OuterInterface {
    const { socket, families, lastIps = new Map(), log } = this.#options;
    return findOuterInterface(socket, choice, families, {
      lastIps,
      onDoubt: (text) => {
        if (this.#doubts.isNew(text)) log.info("outer-interface-doubtful", text);
      },
    });
  }

  /** A device that has just come up has only a link-local address until it gets its others. */
  #checkReach({ name, addresses }: OuterInterface): void {
    for (const [family, address] of addresses) {
      if (!address.isLinkLocal || this.#home.addresses.get(family)!.isLinkLocal) continue;
      throw new ConfigError(`device ${name} has no IPv${family} address but ${address}`);
    }
  }

  #use(outer: OuterInterface): void {
    if (this.#isLost) {
      const { log } = this.#options;
      log.info(
        "outer-interface-back",
        `this node reaches the others by device ${outer.name} again`,
      );
    }
    this.#isLost = false;
    this.#complaints.resolve();
    this.#index = findLink(this.#options.socket, outer.name)?.index ?? this.#index;
    this.#current = outer;
  }

  #lose(why: string): void {
    this.#isLost = true;
    if (!this.#complaints.isNew(why)) return;
    this.#options.log.error(
      "outer-interface-lost",
      `${why}; this node goes on as soon as a device can be used`,
    );
  }
}

/** Chooses one device by its name. */
function only(name: string): Pick<InterfaceChoice, "iface" | "ifaceRegex" | "ifaceCanReach"> {
  return { iface: [name], ifaceRegex: [], ifaceCanReach: undefined };
}

/** What the kernel has, as it is while a device is chosen. */
interface HostView extends Required<ChoiceContext> {
  readonly socket: NetlinkSocket;
  readonly families: readonly Family[];
  readonly links: readonly LinkState[];
  readonly addresses: readonly AddressState[];
}

/** The devices that match a choice, the best first. */
function* candidates(host: HostView, choice: InterfaceChoice): Generator<Candidate, void, void> {
  const { iface, ifaceRegex, ifaceCanReach, publicIps } = choice;
  if (isDefault(choice)) {
    const [publicIp] = host.families.flatMap((family) => publicIps.get(family) ?? []);
    yield* publicIp === undefined ? byDefaultRoute(host) : byAddress(host, publicIp);
    return;
  }
  for (const wanted of iface) {
    const address = IpAddress.tryParse(wanted);
    if (address !== undefined) yield* byAddress(host, address);
    else yield* host.links.filter(({ name }) => name === wanted).map((link) => ({ link }));
  }
  for (const pattern of ifaceRegex) yield* byPattern(host, pattern);
  const route = ifaceCanReach && routeTo(host.socket, ifaceCanReach);
  const link = route && host.links.find(({ index }) => index === route.index);
  if (link) yield { link, ...(route.source ? { address: route.source } : {}) };
}

/** Whether no flag says which device it is. */
function isDefault({ iface, ifaceRegex, ifaceCanReach }: InterfaceChoice): boolean {
  return iface.length === 0 && ifaceRegex.length === 0 && ifaceCanReach === undefined;
}

function nothingFound(choice: InterfaceChoice, families: readonly Family[]): string {
  const { iface, ifaceRegex, ifaceCanReach } = choice;
  if (isDefault(choice)) {
    const [publicIp] = families.flatMap((family) => choice.publicIps.get(family) ?? []);
    const why = publicIp === undefined
      ? "there is no default route"
      : `no device has the public IP ${publicIp}`;
    return `${why}; name the device with --iface`;
  }
  const asked = [
    ...iface.map((wanted) => `--iface ${wanted}`),
    ...ifaceRegex.map(({ source }) => `--iface-regex ${source}`),
    ...(ifaceCanReach ? [`--iface-can-reach ${ifaceCanReach}`] : []),
  ];
  return `no device matches ${asked.join(", ")}`;
}

/** Every device with its addresses, as text. */
function inventory(host: HostView): string {
  return host.links.map(({ name, index }) => {
    const own = host.addresses.filter((address) => address.index === index);
    return `${name} ${own.map(({ address }) => address).join(" ") || "without address"}`;
  }).join(", ");
}

function byAddress(host: HostView, wanted: IpAddress): Candidate[] {
  return host.addresses.filter(({ address }) => address.equals(wanted)).flatMap(({ index }) =>
    host.links.filter((link) => link.index === index).map((link) => ({ link, address: wanted }))
  );
}

/** An address that matches comes before a name that does; of several of one device the best. */
function byPattern(host: HostView, pattern: Pattern): Candidate[] {
  const matches = host.addresses.filter(({ address }) => pattern.test(`${address}`));
  const byAddress = [...new Set(matches.map(({ index }) => index))].flatMap((index) => {
    const [best] = byPreference(host, matches.filter((address) => address.index === index));
    return host.links.filter((link) => link.index === index)
      .map((link) => ({ link, address: best!.address }));
  });
  const byName = host.links.filter(({ name }) => pattern.test(name)).map((link) => ({ link }));
  return [...byAddress, ...byName];
}

/** The devices by which the best default route of every family leaves. */
function byDefaultRoute(host: HostView): Candidate[] {
  const devices = host.families.map((family) => {
    const [route] = listDefaultRoutes(host.socket, family).sort((a, b) => a.metric - b.metric);
    return host.links.filter(({ index }) => route?.indexes.includes(index))
      .toSorted((a, b) => route!.indexes.indexOf(a.index) - route!.indexes.indexOf(b.index));
  });
  const common = devices[0]!.filter(({ index }) =>
    devices.every((links) => links.some((link) => link.index === index))
  );
  if (common.length === 0 && devices.some((links) => links.length > 0)) {
    const names = devices.map((links) => links.map(({ name }) => name).join(" or ") || "none");
    const [ipv4, ipv6] = devices;
    const off = ipv6?.length === 0 ? ipv6Off(ipv4![0]!.name) : "";
    throw new ConfigError(
      `the default routes of IPv4 and IPv6 leave by ${names.join(" and ")}; name one device with ` +
        `--iface${off}`,
    );
  }
  const canUse = ({ up, index }: LinkState) =>
    up && host.families.every((family) => ownAddresses(host, index, family).length > 0);
  const wasLast = ({ index }: LinkState) =>
    host.addresses.some((address) => address.index === index && isLast(host, address));
  const rank = (link: LinkState) => 2 * Number(!canUse(link)) + Number(!wasLast(link));
  const ordered = common.toSorted((a, b) => rank(a) - rank(b));
  if (ordered.length > 1) {
    host.onDoubt(
      `the default route leaves by ${
        common.map(({ name }) => name).join(" and ")
      }; this node uses ` +
        `${ordered[0]!.name}, name another one with --iface`,
    );
  }
  return ordered.map((link) => ({ link }));
}

/** The address of a device for each family. Throws a ConfigError if it lacks one. */
function addressesOf(
  host: HostView,
  link: LinkState,
  chosen: IpAddress | undefined,
): ReadonlyMap<Family, IpAddress> {
  return new Map(host.families.map((family): [Family, IpAddress] => {
    if (chosen?.family === family) return [family, chosen];
    const [best] = ownAddresses(host, link.index, family);
    if (best !== undefined) return [family, best.address];
    const off = family === 6 ? ipv6Off(link.name) : "";
    throw new ConfigError(
      `device ${link.name} has no IPv${family} address, which net-conf's EnableIPv${family} needs${off}`,
    );
  }));
}

/** Why a device can have no IPv6 address, if it can't. */
function ipv6Off(device: string): string {
  const value = readSysctl(`net/ipv6/conf/${device}/disable_ipv6`);
  if (value === undefined) return "; this kernel has no IPv6 (ipv6.disable=1)";
  return value === "1" ? `; IPv6 is off there by sysctl net.ipv6.conf.${device}.disable_ipv6` : "";
}

/** A device's addresses of one family that can be used, the best first. */
function ownAddresses(host: HostView, device: number, family: Family): AddressState[] {
  return byPreference(
    host,
    host.addresses.filter(({ index, address }) => index === device && address.family === family),
  );
}

/**
 * Addresses of one device that can be used, the likeliest to stay first. One that is valid beyond the link comes before
 * one that is not. Then comes the device's own before one that moves from host to host as a keepalived's or
 * kube-vip's does: those are given for a single host (/32, /128) and without an end, while DHCP's of a cloud have an
 * end. Then comes the last run's, then a permanent one, then one that is not temporary (RFC 8981).
 */
function byPreference(host: HostView, own: readonly AddressState[]): AddressState[] {
  const rank = (state: AddressState) => {
    const { address, prefixLength, scope, permanent, temporary } = state;
    const mayMove = permanent && prefixLength === addressBits(address.family);
    return [scope !== 0, mayMove, !isLast(host, state), !permanent, temporary]
      .reduce((sum, isWorse) => 2 * sum + Number(isWorse), 0);
  };
  return own.filter((state) => !state.deprecated || isLast(host, state))
    .toSorted((a, b) => rank(a) - rank(b));
}

function isLast({ lastIps }: HostView, { address }: AddressState): boolean {
  return lastIps.get(address.family)?.equals(address) ?? false;
}
