/**
 * What a node tells of itself in Kubernetes: flannel's annotations, byte for byte (its
 * pkg/subnet/kube/annotations.go and kube.go), and the lease that they and the node's podCIDRs make.
 *
 * @module
 */

import {
  Cidr,
  ConfigError,
  FAMILIES,
  type Family,
  IpAddress,
  type Lease,
  type LeaseHalf,
  leaseHalf,
  leaseKey,
  RuntimeError,
} from "../../mod.ts";

/** The prefix that flannel's annotations have unless `--kube-annotation-prefix` says another. */
export const DEFAULT_PREFIX = "flannel.alpha.coreos.com";

/** A node, as far as it concerns its lease. */
export interface NodeRecord {
  /** Its name, which a node that is made again may have too. */
  readonly name: string;
  /** What tells it from others that had, or will have, its name. */
  readonly uid: string;
  /** Its podCIDRs, which never change once it has any; empty as long as it has none, or they are not read yet. */
  readonly podCidrs: readonly string[];
  /** Those of its annotations that are flannel's, by their full names. */
  readonly annotations: Annotations;
}

/** Annotations' values by their names. */
export type Annotations = Readonly<Record<string, string>>;

/** One family's annotations. */
interface FamilyNames {
  readonly backendData: string;
  readonly publicIp: string;
  readonly publicIpOverwrite: string;
  readonly nodePublicIp: string;
}

/** The names of flannel's annotations under one prefix. */
export class AnnotationNames {
  /** `true` on a node whose subnet is its podCIDR. */
  readonly managed: string;
  /** The backend that the node runs. */
  readonly backendType: string;
  /** On an Event: what the node tells the others, which are denim's. */
  readonly note: string;
  /** The names that each family has of its own. */
  readonly family: Readonly<Record<Family, FamilyNames>>;
  /** Those that a node writes of itself; the others are a person's. */
  readonly published: readonly string[];
  readonly #all: ReadonlySet<string>;

  /** Throws a ConfigError if a prefix is not one that flannel takes. */
  constructor(prefix: string) {
    let start = prefix.includes("/") ? prefix : `${prefix}/`;
    if (!/[/-]$/.test(start)) start += "-";
    if (!/^(?:[a-z0-9_-]+\.)+[a-z0-9_-]+\/(?:[a-z0-9_-]+-)?$/.test(start)) {
      throw new ConfigError(
        `--kube-annotation-prefix ${
          JSON.stringify(prefix)
        } is not a prefix of annotations: give a domain ` +
          `such as ${DEFAULT_PREFIX}, or a domain, "/" and a name of lower-case letters, digits, "-" and "_"`,
      );
    }
    const names = (version: string): FamilyNames => ({
      backendData: `${start}backend${version && "-v6"}-data`,
      publicIp: `${start}public-ip${version}`,
      publicIpOverwrite: `${start}public-ip${version}-overwrite`,
      nodePublicIp: `${start}node-public-ip${version}`,
    });
    this.managed = `${start}kube-subnet-manager`;
    this.backendType = `${start}backend-type`;
    this.note = `${start}denim-note`;
    this.family = { 4: names(""), 6: names("v6") };
    this.published = [
      this.managed,
      this.backendType,
      ...FAMILIES.flatMap((family) => [
        this.family[family].publicIp,
        this.family[family].backendData,
      ]),
    ];
    this.#all = new Set([
      ...this.published,
      ...FAMILIES.flatMap((family) => Object.values<string>({ ...this.family[family] })),
    ]);
  }

  /** Whether an annotation is one of them. */
  has(name: string): boolean {
    return this.#all.has(name);
  }

  /** Those of a node's annotations that are flannel's. */
  pick(annotations: Iterable<readonly [name: string, value: string]>): Annotations {
    return Object.fromEntries([...annotations].filter(([name]) => this.#all.has(name)));
  }
}

/** flannel's backend whose nodes write `backend-data`, and read it, also if there is no IPv4. */
const EXTENSION = "extension";
/** flannel's backend that leaves out IPv4's annotations if there is no IPv4; the others write "nothing". */
const VXLAN = "vxlan";

/**
 * What a node's annotations have to be for a lease: each with its value, or `undefined` if it must not be
 * there. Those of a family that the lease lacks go: a peer would send that family's packets in vain.
 */
export function annotationsOf(
  names: AnnotationNames,
  lease: Pick<Lease, "backendType" | "halves">,
): Readonly<Record<string, string | undefined>> {
  const [ipv4, ipv6] = FAMILIES.map((family) => lease.halves.find((half) => isOf(half, family)));
  const { backendType } = lease;
  // flannel's address and data of nothing.
  const none = backendType === VXLAN ? undefined : { publicIp: "0.0.0.0", backendData: undefined };
  const asIpv4 = ipv4 === undefined && backendType === EXTENSION;
  const shown4 = ipv4 ?? none;
  return {
    [names.managed]: "true",
    [names.backendType]: backendType,
    [names.family[4].publicIp]: shown4 && `${shown4.publicIp}`,
    [names.family[4].backendData]: shown4 && goJson((asIpv4 ? ipv6 : shown4)?.backendData),
    [names.family[6].publicIp]: ipv6 && `${ipv6.publicIp}`,
    [names.family[6].backendData]: ipv6 && goJson(asIpv4 ? undefined : ipv6.backendData),
  };
}

function isOf({ subnet }: LeaseHalf, family: Family): boolean {
  return subnet.family === family;
}

/** JSON as Go's `json.Marshal` writes it, which keeps out of HTML's way; `null` for what is not there. */
function goJson(value: unknown): string {
  return JSON.stringify(value ?? null).replace(
    /[<>&\u2028\u2029]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * The lease that a node holds: a half for each of its podCIDRs whose family has a public IP. `undefined` if
 * the node is not one of flannel's or denim's, or has no podCIDR yet. Throws a RuntimeError that says which of
 * its values can't be used.
 */
export function leaseOf(names: AnnotationNames, node: NodeRecord): Lease | undefined {
  const { annotations } = node;
  if (annotations[names.managed] !== "true" || node.podCidrs.length === 0) return undefined;
  const backendType = annotations[names.backendType] ?? "";
  const subnets = podSubnets(node);
  const asIpv4 = backendType === EXTENSION && subnets.every(({ family }) => family === 6);
  const halves = subnets.flatMap((subnet): LeaseHalf[] => {
    const own = names.family[subnet.family];
    const publicIp = address(annotations, own.publicIp, subnet.family);
    if (publicIp === undefined) return [];
    const from = asIpv4 ? names.family[4] : own;
    return [{ subnet, publicIp, backendData: json(annotations, from.backendData) }];
  });
  if (halves.length === 0) {
    const wanted = subnets.map(({ family }) => names.family[family].publicIp).join(" nor ");
    throw new RuntimeError(`it has no annotation ${wanted}`);
  }
  const key = leaseKey(halves.map(({ subnet }) => subnet));
  return { key, backendType, halves, expiry: "never" };
}

/**
 * A node's podCIDRs, IPv4 first. Throws a RuntimeError if they are not subnets, one a family at most.
 */
export function podSubnets({ podCidrs }: Pick<NodeRecord, "podCidrs">): readonly Cidr[] {
  const subnets = podCidrs.map((text) => {
    const subnet = Cidr.tryParse(text);
    if (subnet === undefined) throw new RuntimeError(`its podCIDR "${text}" is not a subnet`);
    return subnet;
  }).sort((a, b) => a.family - b.family);
  if (new Set(subnets.map(({ family }) => family)).size < subnets.length) {
    throw new RuntimeError(`it has two podCIDRs of one family: ${podCidrs.join(", ")}`);
  }
  return subnets;
}

/**
 * The address that a node's annotation names; `undefined` if it has none, or flannel's of nothing. Throws a
 * RuntimeError if it is not one of that family.
 */
export function address(
  annotations: Annotations,
  name: string,
  family: Family,
): IpAddress | undefined {
  const text = annotations[name];
  if (text === undefined || text === "") return undefined;
  const parsed = IpAddress.tryParse(text);
  if (parsed?.family !== family) {
    throw new RuntimeError(`its annotation ${name} "${text}" is not an IPv${family} address`);
  }
  return parsed.value === 0n ? undefined : parsed;
}

function json(annotations: Annotations, name: string): unknown {
  const text = annotations[name];
  if (text === undefined || text === "") return undefined;
  try {
    return JSON.parse(text) ?? undefined;
  } catch (error) {
    throw new RuntimeError(`its annotation ${name} ${JSON.stringify(text)} is not JSON`, {
      cause: error,
    });
  }
}

/** Whether annotations are the same. */
export function sameAnnotations(some: Annotations, others: Annotations): boolean {
  const entries = Object.entries(some);
  return entries.length === Object.keys(others).length &&
    entries.every(([name, value]) => others[name] === value);
}

/** Whether two leases say the same. */
export function sameLease(one: Lease, other: Lease): boolean {
  return one.key === other.key && one.backendType === other.backendType &&
    one.halves.every(({ subnet, publicIp, backendData }) => {
      const half = leaseHalf(other, subnet.family);
      return half !== undefined && half.publicIp.equals(publicIp) &&
        JSON.stringify(half.backendData) === JSON.stringify(backendData);
    });
}
