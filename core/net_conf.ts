/**
 * net-conf: the cluster's network configuration, one JSON document shared by all nodes.
 *
 * @module
 */

import * as z from "zod";
import { ConfigError, messageOf } from "./errors.ts";
import { addressBits, Cidr, type Family, IpAddress } from "./ip.ts";

/** What to do if a store has no net-conf yet. */
export const WRITE_NET_CONF = "`denim config set FILE` writes one";

/** One family's share of net-conf, with every default filled in. */
export interface FamilyConfig {
  /** Which family this is. */
  readonly family: Family;
  /** The address space of the whole cluster. */
  readonly network: Cidr;
  /** The prefix length of each node's subnet. */
  readonly subnetLength: number;
  /** The first subnet that may be leased. */
  readonly subnetMin: IpAddress;
  /** The last subnet that may be leased. */
  readonly subnetMax: IpAddress;
}

/** The cluster's network configuration, read and checked. */
export interface NetworkConfig {
  /** The enabled families, IPv4 first; at least one. */
  readonly families: readonly FamilyConfig[];
  /** Whether masquerade rules are nftables' rather than iptables'; `undefined` if net-conf leaves that to the node. */
  readonly enableNFTables: boolean | undefined;
  /** Which backend carries the packets. */
  readonly backend: {
    /** Its name, `Backend.Type`. */
    readonly type: string;
    /** net-conf's `Backend` object, for the backend to read. */
    readonly options: Readonly<Record<string, unknown>>;
    /** net-conf has no `Backend` at all, which means "udp", as flannel has it. */
    readonly defaulted: boolean;
  };
}

/**
 * Reads an object as Go's JSON reader does for flannel: its keys may come in any case, and a key whose value is `null`
 * counts as absent, unless its schema takes `null`. Of keys that differ in case alone the last one counts.
 *
 * ```ts
 * import { anyCase } from "@denim/core";
 * import * as z from "zod";
 * const options = anyCase(z.object({ VNI: z.int(), Port: z.int().default(8472) }));
 * console.log(options.parse({ vni: 7, Port: null })); // { VNI: 7, Port: 8472 }
 * ```
 */
export function anyCase<Schema extends z.ZodObject>(schema: Schema): z.ZodType<z.output<Schema>> {
  const names = new Map(Object.keys(schema.shape).map((name) => [name.toLowerCase(), name]));
  const takesNull = (name: string) => schema.shape[name]?.safeParse(null).success ?? true;
  const rename = (value: unknown) =>
    typeof value !== "object" || value === null || Array.isArray(value)
      ? value
      : Object.fromEntries(
        Object.entries(value)
          .map(([key, item]) => [names.get(key.toLowerCase()) ?? key, item] as const)
          .filter(([name, item]) => item !== null || takesNull(name)),
      );
  return z.preprocess(rename, schema);
}

/**
 * Checks a value from a configuration. Throws a ConfigError that names every key that is wrong, its
 * value, and what is expected.
 *
 * @param where the document, for the message: "net-conf"
 * @param path the keys that lead to the value in the document
 */
export function readConfig<Output>(
  schema: z.ZodType<Output>,
  value: unknown,
  where: string,
  path: readonly string[] = [],
): Output {
  const parsed = schema.safeParse(value, { reportInput: true });
  if (parsed.success) return parsed.data;
  const wrong = parsed.error.issues.map((issue) => {
    const key = [...path, ...issue.path].map(String).join(".") || "the document";
    const given = issue.input === undefined ? "is missing" : `is ${quote(issue.input)}`;
    const expected = issue.message.replace(/^Invalid input: |^Too \w+: /, "");
    return `${key} ${given}: ${expected}`;
  });
  throw new ConfigError(`${where}: ${wrong.join("; ")}`);
}

function quote(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/** What one family's keys start with. */
const KEY_PREFIX: Readonly<Record<Family, string>> = { 4: "", 6: "IPv6" };

const flag = z.boolean().optional();
const length = z.int().min(0).optional();

const textOf = <Value extends { readonly family: Family }>(
  family: Family,
  tryParse: (text: string) => Value | undefined,
  expected: string,
) =>
  z.string().transform((text, context) => {
    const value = tryParse(text);
    if (value?.family === family) return value;
    context.addIssue({ code: "custom", message: `expected ${expected}`, input: text });
    return z.NEVER;
  }).optional();

const network = (family: Family, example: string) =>
  textOf(family, Cidr.tryParse, `an IPv${family} network such as "${example}"`);
const address = (family: Family) => textOf(family, IpAddress.tryParse, `an IPv${family} address`);

const schema = z.object({
  EnableIPv4: flag.describe("Whether pods have IPv4 addresses (true)."),
  EnableIPv6: flag.describe("Whether pods have IPv6 addresses (false)."),
  EnableNFTables: flag.describe(
    "Whether masquerade rules are nftables' rather than iptables'; unless given, the node chooses.",
  ),
  Network: network(4, "10.5.0.0/16").describe("The cluster's IPv4 network, such as `10.5.0.0/16`."),
  SubnetLen: length.describe(
    "The prefix length of a node's IPv4 subnet (24, or longer if the network is small).",
  ),
  SubnetMin: address(4).describe("The first IPv4 subnet to lease (the network's second)."),
  SubnetMax: address(4).describe("The last IPv4 subnet to lease (the network's last)."),
  IPv6Network: network(6, "fc00:5::/48").describe(
    "The cluster's IPv6 network, such as `fc00:5::/48`.",
  ),
  IPv6SubnetLen: length.describe(
    "The prefix length of a node's IPv6 subnet (64, or longer if the network is small).",
  ),
  IPv6SubnetMin: address(6).describe("The first IPv6 subnet to lease (the network's second)."),
  IPv6SubnetMax: address(6).describe("The last IPv6 subnet to lease (the network's last)."),
  Backend: z.unknown().optional().describe(
    "Which backend carries packets: its `Type`, and options of its own (`udp`).",
  ),
});
const netConf = anyCase(schema);

/** net-conf's keys and what each says, for a reference; in brackets what counts if it is absent. */
export const NET_CONF_KEYS: readonly (readonly [key: string, description: string])[] = Object
  .entries(schema.shape).map(([key, { description }]) => [key, description ?? ""] as const);

const backendObject = z.record(
  z.string(),
  z.unknown(),
  'expected an object such as { "Type": "vxlan" }',
);
const BACKEND_NAME = "expected a backend's name";
const backendType = anyCase(z.object({ Type: z.string(BACKEND_NAME).min(1, BACKEND_NAME) }));

/**
 * Reads net-conf, with the defaults and checks that flannel has for it (pkg/subnet/config.go); keys
 * that it does not know are ignored. Throws a ConfigError.
 */
export function parseNetworkConfig(text: string): NetworkConfig {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new ConfigError(`net-conf is not JSON: ${messageOf(error)}`, { cause: error });
  }
  const given = readConfig(netConf, json, "net-conf");
  const families: FamilyConfig[] = [];
  if (given.EnableIPv4 ?? true) {
    families.push(
      familyConfig(4, given.Network, given.SubnetLen, given.SubnetMin, given.SubnetMax),
    );
  }
  if (given.EnableIPv6) {
    families.push(
      familyConfig(
        6,
        given.IPv6Network,
        given.IPv6SubnetLen,
        given.IPv6SubnetMin,
        given.IPv6SubnetMax,
      ),
    );
  }
  if (families.length === 0) {
    throw new ConfigError("net-conf enables neither family: set EnableIPv4 or EnableIPv6 to true");
  }
  return {
    families,
    enableNFTables: given.EnableNFTables,
    backend: readBackend(given.Backend),
  };
}

function readBackend(given: unknown): NetworkConfig["backend"] {
  if (given === undefined) return { type: "udp", options: {}, defaulted: true };
  const options = readConfig(backendObject, given, "net-conf", ["Backend"]);
  const { Type: type } = readConfig(backendType, options, "net-conf", ["Backend"]);
  return { type, options, defaulted: false };
}

/** The prefix length of a node's subnet unless net-conf says another, or the network has no room for four of these. */
const DEFAULT_SUBNET_LENGTH: Readonly<Record<Family, number>> = { 4: 24, 6: 64 };

function familyConfig(
  family: Family,
  network: Cidr | undefined,
  givenLength: number | undefined,
  givenMin: IpAddress | undefined,
  givenMax: IpAddress | undefined,
): FamilyConfig {
  const key = (name: string) => `${KEY_PREFIX[family]}${name}`;
  const check = (holds: boolean, message: string) => {
    if (!holds) throw new ConfigError(`net-conf: ${message}`);
  };
  // flannel's reader has the unspecified network if net-conf names none.
  if (network === undefined || network.prefixLength === 0 && network.address.value === 0n) {
    throw new ConfigError(
      `net-conf: ${key("Network")} is missing: name the cluster's IPv${family} network, or set ` +
        `EnableIPv${family} to false`,
    );
  }

  // A subnet has room for its own address, a bridge and a pod; and a network for four subnets, since
  // the first is never leased.
  const maxLength = addressBits(family) - 2;
  const minLength = network.prefixLength + 2;
  const subnetLength = givenLength || Math.max(minLength, DEFAULT_SUBNET_LENGTH[family]);
  check(
    minLength <= maxLength,
    `${key("Network")} ${network} is too small: a network has room for four subnets, so it is ` +
      `/${maxLength - 2} at most`,
  );
  check(
    subnetLength <= maxLength,
    `${key("SubnetLen")} is ${subnetLength}: a subnet has four addresses or more, so it is ` +
      `${maxLength} at most`,
  );
  check(
    subnetLength >= minLength,
    `${key("SubnetLen")} is ${subnetLength}: ${key("Network")} ${network} has room for four ` +
      `subnets or more, so it is ${minLength} at least`,
  );

  const size = 1n << BigInt(addressBits(family) - subnetLength);
  const second = new IpAddress(family, network.address.value + size);
  const last = new IpAddress(family, network.last.value + 1n - size);
  const bound = (name: string, given: IpAddress | undefined, fallback: IpAddress) => {
    if (given === undefined || given.value === 0n) return fallback;
    check(network.contains(given), `${key(name)} ${given} is outside the network ${network}`);
    check(
      given.value % size === 0n,
      `${key(name)} ${given} is not on a boundary of /${subnetLength}; the subnet that it is in ` +
        `starts at ${new Cidr(given, subnetLength).address}`,
    );
    return given;
  };
  const subnetMin = bound("SubnetMin", givenMin, second);
  const subnetMax = bound("SubnetMax", givenMax, last);
  check(
    subnetMin.value <= subnetMax.value && subnetMax.value >= second.value,
    `no subnet from ${key("SubnetMin")} ${subnetMin} to ${key("SubnetMax")} ${subnetMax} can be ` +
      `leased (the network's first subnet never is)`,
  );
  return { family, network, subnetLength, subnetMin, subnetMax };
}

/** The cluster's networks, one for each enabled family, IPv4 first. */
export function networksOf({ families }: Pick<NetworkConfig, "families">): readonly Cidr[] {
  return families.map(({ network }) => network);
}

/** Whether each of these subnets lies in the configuration's network of its family, whatever else it allows. */
export function withinNetworks(config: NetworkConfig, subnets: readonly Cidr[]): boolean {
  return subnets.every((subnet) =>
    config.families.some(({ family, network }) =>
      family === subnet.family && network.contains(subnet)
    )
  );
}

/** Whether a lease of these subnets is one that the configuration allows. */
export function fitsConfig(config: NetworkConfig, subnets: readonly Cidr[]): boolean {
  return subnets.length === config.families.length &&
    config.families.every(({ family, subnetLength, subnetMin, subnetMax }) =>
      subnets.some(({ family: own, prefixLength, address }) =>
        own === family && prefixLength === subnetLength &&
        subnetMin.value <= address.value && address.value <= subnetMax.value
      )
    );
}
