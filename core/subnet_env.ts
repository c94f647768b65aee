/**
 * subnet.env: what the agent tells the CNI plugin of its node, in flannel's form.
 *
 * @module
 */

import { ConfigError } from "./errors.ts";
import { Cidr, FAMILIES, type Family } from "./ip.ts";

/** Where subnet.env is, unless a flag names another place. */
export const DEFAULT_SUBNET_FILE = "/run/flannel/subnet.env";

/** What one family's half of subnet.env says. */
export interface SubnetEnvHalf {
  /** The cluster's networks; flannel writes one, but its plugin reads several, joined by commas. */
  readonly networks: readonly Cidr[];
  /** The node's subnet. */
  readonly subnet: Cidr;
}

/** What subnet.env says. */
export interface SubnetEnv {
  /** One half for each family, IPv4 first; at least one. */
  readonly halves: readonly SubnetEnvHalf[];
  /** The MTU for pods, in bytes. */
  readonly mtuBytes: number;
  /** Whether the agent masquerades pods' traffic, so that the plugin need not. */
  readonly ipMasq: boolean;
}

const KEY_PREFIX: Readonly<Record<Family, string>> = { 4: "FLANNEL_", 6: "FLANNEL_IPV6_" };

/** subnet.env as text. The subnet is written with the address of its first host, as flannel does. */
export function formatSubnetEnv(env: SubnetEnv): string {
  const lines = env.halves.flatMap(({ networks, subnet }) => [
    `${KEY_PREFIX[subnet.family]}NETWORK=${networks.join(",")}`,
    `${KEY_PREFIX[subnet.family]}SUBNET=${subnet.at(1n)}/${subnet.prefixLength}`,
  ]);
  return [...lines, `FLANNEL_MTU=${env.mtuBytes}`, `FLANNEL_IPMASQ=${env.ipMasq}`, ""].join("\n");
}

/**
 * Reads subnet.env, all of it or nothing.
 *
 * @param path the file's, for errors
 * @throws {ConfigError} names the file, and every key that is missing, the key that is wrong, or a subnet outside its
 * network
 */
export function parseSubnetEnv(text: string, path: string): SubnetEnv {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    const equals = line.indexOf("=");
    if (equals > 0) values.set(line.slice(0, equals).trim(), line.slice(equals + 1).trim());
  }
  const missing: string[] = [];
  const read = <T>(key: string, parse: (value: string) => T | undefined): T | undefined => {
    const value = values.get(key);
    if (value === undefined) {
      missing.push(key);
      return undefined;
    }
    const parsed = parse(value);
    if (parsed !== undefined) return parsed;
    throw new ConfigError(
      `${path}: ${key}=${value} can't be read; restart the agent to write it again`,
    );
  };
  const given = FAMILIES.filter((family) =>
    values.has(`${KEY_PREFIX[family]}SUBNET`) || values.has(`${KEY_PREFIX[family]}NETWORK`)
  );
  const halves = (given.length > 0 ? given : [4 as Family]).map((family) => ({
    networks: read(`${KEY_PREFIX[family]}NETWORK`, (value) => parseNetworks(value, family)),
    subnet: read(`${KEY_PREFIX[family]}SUBNET`, (value) => parseNetworks(value, family)?.[0]),
  }));
  const mtuBytes = read(
    "FLANNEL_MTU",
    (value) => /^[1-9]\d{0,4}$/.test(value) ? Number(value) : undefined,
  );
  const ipMasq = read(
    "FLANNEL_IPMASQ",
    (value) => value === "true" ? true : value === "false" ? false : undefined,
  );
  if (missing.length > 0) {
    throw new ConfigError(
      `${path} is cut short: ${missing.join(", ")} missing; restart the agent to write it again`,
    );
  }
  for (const { networks, subnet } of halves as SubnetEnvHalf[]) {
    if (networks.some((network) => network.contains(subnet))) continue;
    throw new ConfigError(
      `${path}: the subnet ${subnet} is not in the network ${networks.join(",")}; ` +
        "restart the agent to write it again",
    );
  }
  return { halves: halves as SubnetEnvHalf[], mtuBytes: mtuBytes!, ipMasq: ipMasq! };
}

function parseNetworks(value: string, family: Family): Cidr[] | undefined {
  const networks = value.split(",").map((part) => Cidr.tryParse(part));
  return networks.every((network) => network?.family === family) ? networks as Cidr[] : undefined;
}
