/**
 * Which of the node's devices leads to the other nodes: chosen as flannel chooses it (pkg/ipmatch).
 *
 * @module
 */

import {
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
  listLinks,
  listRoutes,
  type NetlinkSocket,
  routeTo,
  type UnderlayNews,
} from "@denim/core/linux";
import type { AgentFlags } from "./flags.ts";

/** What decides which device it is. */
export type InterfaceChoice = Pick<
  AgentFlags,
  "iface" | "ifaceRegex" | "ifaceCanReach" | "publicIps"
>;

/** A device, and the address of it that led to its choice, if one did. */
interface Candidate {
  readonly link: LinkState;
  readonly address?: IpAddress;
}

/**
 * Finds the outer interface: by `--iface`, then `--iface-regex`, then `--iface-can-reach`; where none of them
 * is given the one that has the public IP, or else the default route. Throws a ConfigError that says what
 * was looked for and what there is.
 */
export function findOuterInterface(
  socket: NetlinkSocket,
  choice: InterfaceChoice,
  families: readonly Family[],
): OuterInterface {
  const host: Host = {
    socket,
    families,
    links: listLinks(socket),
    addresses: families.flatMap((family) => listAddresses(socket, family)),
  };
  const { link, address } = pick(host, choice);
  if (!link.up) throw new ConfigError(`device ${link.name} is down; set it up, or choose another`);
  const addresses = new Map(families.map((family): [Family, IpAddress] => {
    const own = address?.family === family ? address : addressOf(host, link, family);
    if (own !== undefined) return [family, own];
    throw new ConfigError(
      `device ${link.name} has no IPv${family} address, which net-conf's EnableIPv${family} needs`,
    );
  }));
  return outerInterface(link, addresses, choice);
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

/**
 * Follows the outer interface through what happens to it: another address, another name, another MTU, down and
 * up again, or gone, and another in its place.
 */
export class OuterInterfaceFollower {
  readonly #socket: NetlinkSocket;
  readonly #choice: InterfaceChoice;
  readonly #families: readonly Family[];
  readonly #log: Logger;
  /** What it was at the start. */
  readonly #home: OuterInterface;
  #current: OuterInterface;
  #index: number;
  /** Why it can't be used as it is; empty where it can. */
  #complaint = "";

  /** Finds the interface; throws as {@link findOuterInterface} does. */
  constructor(
    socket: NetlinkSocket,
    choice: InterfaceChoice,
    families: readonly Family[],
    log: Logger,
  ) {
    this.#socket = socket;
    this.#choice = choice;
    this.#families = families;
    this.#log = log;
    this.#home = this.#current = findOuterInterface(socket, choice, families);
    this.#index = findLink(socket, this.#current.name)!.index;
  }

  /** The interface, as it was when last looked at and all was well. */
  get current(): OuterInterface {
    return this.#current;
  }

  /** Whether news of the underlay are a reason to look. */
  concerns({ device, destination }: UnderlayNews): boolean {
    return this.#complaint !== "" || device === this.#current.name ||
      device === this.#home.name || device === undefined && destination === undefined;
  }

  /**
   * Looks at it. Who has it goes on with it for as long as it has its addresses, also while it is down: what is
   * gone for a moment is no reason to move. Else it is chosen as at the start; and where none is found, it
   * stays what it is, until there is one. Whoever had to move goes back when the addresses of the start are
   * there again: in their absence it may have taken one that is not the node's for good.
   */
  look(): void {
    const own = this.#families.flatMap((family) => listAddresses(this.#socket, family));
    /** For each family the address that a device has, of the first of these that says one which it has. */
    const kept = (device: number, of: readonly OuterInterface[]) =>
      new Map(this.#families.flatMap((family): (readonly [Family, IpAddress])[] => {
        const there = of.map(({ addresses }) => addresses.get(family)!).find((wanted) =>
          own.some(({ index, address }) => index === device && address.equals(wanted))
        );
        return there === undefined ? [] : [[family, there]];
      }));
    const isWhole = ({ size }: ReadonlyMap<Family, IpAddress>) => size === this.#families.length;
    const home = [this.#index, ...own.map(({ index }) => index)]
      .find((index) => isWhole(kept(index, [this.#home])));
    const homeLink = home === undefined ? undefined : findLink(this.#socket, home);
    const link = homeLink?.up ? homeLink : findLink(this.#socket, this.#index);
    if (link !== undefined && !link.up) {
      return this.#complain(`device ${link.name}, the way to other nodes, is down`);
    }
    const addresses = link && kept(link.index, [this.#home, this.#current]);
    if (link !== undefined && isWhole(addresses!)) {
      return this.#take(outerInterface(link, addresses!, this.#choice));
    }
    const choices = [this.#choice, ...(link ? [{ ...this.#choice, ...only(link.name) }] : [])];
    for (const choice of choices) {
      try {
        const found = findOuterInterface(this.#socket, choice, this.#families);
        // Only in the family where it is gone another address takes its place.
        const outer = found.name === link?.name
          ? outerInterface(link, new Map([...found.addresses, ...addresses!]), this.#choice)
          : found;
        this.#checkReach(outer);
        return this.#take(outer);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        if (choice === choices.at(-1)) this.#complain(messageOf(error));
      }
    }
  }

  /** A device that just came up has but an address of its link, until its others come. */
  #checkReach({ name, addresses }: OuterInterface): void {
    for (const [family, address] of addresses) {
      if (!address.isLinkLocal || this.#home.addresses.get(family)!.isLinkLocal) continue;
      throw new ConfigError(`device ${name} has no IPv${family} address but ${address}`);
    }
  }

  #take(outer: OuterInterface): void {
    if (this.#complaint !== "") {
      this.#log.info("outer-interface-back", `device ${outer.name} leads to other nodes again`);
    }
    this.#complaint = "";
    this.#index = findLink(this.#socket, outer.name)?.index ?? this.#index;
    this.#current = outer;
  }

  #complain(why: string): void {
    if (why !== this.#complaint) {
      this.#log.error("outer-interface-lost", `${why}; this node goes on as soon as there is one`);
    }
    this.#complaint = why;
  }
}

/** Chooses one device by its name. */
function only(name: string): Pick<InterfaceChoice, "iface" | "ifaceRegex" | "ifaceCanReach"> {
  return { iface: [name], ifaceRegex: [], ifaceCanReach: undefined };
}

interface Host {
  readonly socket: NetlinkSocket;
  readonly families: readonly Family[];
  readonly links: readonly LinkState[];
  readonly addresses: readonly AddressState[];
}

function pick(host: Host, choice: InterfaceChoice): Candidate {
  const { iface, ifaceRegex, ifaceCanReach, publicIps } = choice;
  if (iface.length === 0 && ifaceRegex.length === 0 && ifaceCanReach === undefined) {
    const [publicIp] = host.families.flatMap((family) => publicIps.get(family) ?? []);
    return publicIp === undefined ? byDefaultRoute(host) : found(
      host,
      byAddress(host, publicIp),
      `no device has the public IP ${publicIp}; name the device with --iface`,
    );
  }
  for (const which of iface) {
    const address = IpAddress.tryParse(which);
    const link = host.links.find(({ name }) => name === which);
    const candidate = address ? byAddress(host, address) : link && { link };
    if (candidate !== undefined) return candidate;
  }
  for (const pattern of ifaceRegex) {
    const candidate = byPattern(host, pattern);
    if (candidate !== undefined) return candidate;
  }
  const route = ifaceCanReach && routeTo(host.socket, ifaceCanReach);
  const link = route && findLink(host.socket, route.index);
  const asked = [
    ...iface.map((which) => `--iface ${which}`),
    ...ifaceRegex.map(({ source }) => `--iface-regex ${source}`),
    ...(ifaceCanReach ? [`--iface-can-reach ${ifaceCanReach}`] : []),
  ];
  return found(
    host,
    link && { link, ...(route.source ? { address: route.source } : {}) },
    `no device matches ${asked.join(", ")}`,
  );
}

function found(host: Host, candidate: Candidate | undefined, complaint: string): Candidate {
  if (candidate !== undefined) return candidate;
  const there = host.links.map(({ name, index }) => {
    const own = host.addresses.filter((address) => address.index === index);
    return `${name} ${own.map(({ address }) => address).join(" ") || "without address"}`;
  });
  throw new ConfigError(`${complaint}; there are: ${there.join(", ")}`);
}

function byAddress(host: Host, wanted: IpAddress): Candidate | undefined {
  const index = host.addresses.find(({ address }) => address.equals(wanted))?.index;
  const link = host.links.find((candidate) => candidate.index === index);
  return link && { link, address: wanted };
}

/** An address that matches comes before a name that does. */
function byPattern(host: Host, pattern: RegExp): Candidate | undefined {
  const match = host.addresses.find(({ address }) => pattern.test(`${address}`));
  if (match !== undefined) return byAddress(host, match.address);
  const link = host.links.find(({ name }) => pattern.test(name));
  return link && { link };
}

function byDefaultRoute(host: Host): Candidate {
  const names = host.families.map((family) => {
    const [route] = listRoutes(host.socket, family)
      .filter(({ destination }) => destination.prefixLength === 0)
      .sort((a, b) => a.metric - b.metric);
    return host.links.find(({ index }) => index === route?.index)?.name;
  });
  const [name] = names;
  const link = host.links.find((candidate) => candidate.name === name);
  if (names.some((other) => other !== name)) {
    throw new ConfigError(
      `the default routes of IPv4 and IPv6 leave by ${
        names.map((n) => n ?? "none").join(" and ")
      }; ` +
        "name one device with --iface",
    );
  }
  return found(host, link && { link }, "there is no default route; name the device with --iface");
}

/**
 * The address of a device that is likeliest to stay: one that is good beyond the link before one that is not,
 * then a permanent one, then one that is not temporary (RFC 8981); the first of several.
 */
function addressOf(host: Host, link: LinkState, family: Family): IpAddress | undefined {
  const own = host.addresses.filter(({ index, address, deprecated }) =>
    index === link.index && address.family === family && !deprecated
  );
  const rank = ({ scope, permanent, temporary }: AddressState) =>
    4 * Number(scope !== 0) + 2 * Number(!permanent) + Number(temporary);
  return own.toSorted((a, b) => rank(a) - rank(b))[0]?.address;
}
