/**
 * The network configuration that a runtime hands to the plugin, with flannel's keys (CNI spec 1.1.0,
 * section 1; flannel's cni-plugin, README).
 *
 * @module
 */

import { DEFAULT_SUBNET_FILE } from "@denim/core/subnet-env";
import { CNI_CODE, CniError } from "./cni_error.ts";
import { type ConfObject, show } from "./conf_object.ts";
import { CNI_NAME, isCniName } from "./environment.ts";

/** The versions of the CNI spec that denim speaks, oldest first. */
export const CNI_VERSIONS = [
  "0.1.0",
  "0.2.0",
  "0.3.0",
  "0.3.1",
  "0.4.0",
  "1.0.0",
  "1.1.0",
] as const;

/** One of {@link CNI_VERSIONS}. */
export type CniVersion = typeof CNI_VERSIONS[number];

/** The newest of {@link CNI_VERSIONS}. */
export const LATEST_CNI_VERSION: CniVersion = "1.1.0";

/** Whether a version is `other` or newer. */
export function atLeast(version: CniVersion, other: CniVersion): boolean {
  return CNI_VERSIONS.indexOf(version) >= CNI_VERSIONS.indexOf(other);
}

/** Throws a CniError if a configuration's version is older than `since`, the first that has a command. */
export function requireVersion(conf: NetworkConf, command: string, since: CniVersion): void {
  if (atLeast(conf.cniVersion, since)) return;
  throw new CniError(
    CNI_CODE.incompatibleVersion,
    `cniVersion "${conf.cniVersion}" has no ${command}, which came with ${since}`,
  );
}

/** The version of a configuration that names none, as those of CNI's first years do not (libcni has it so). */
const UNSAID_CNI_VERSION: CniVersion = "0.1.0";

/** The folder in which flannel keeps each container's delegate configuration. */
export const DEFAULT_DATA_DIR = "/var/lib/cni/flannel";

/** A network configuration, as far as every command needs it. */
export interface NetworkConf {
  /** The version of the spec that the configuration speaks, and that the answer must speak. */
  readonly cniVersion: CniVersion;
  /** The network's name, unique on the node. */
  readonly name: string;
  /** The path of the agent's subnet.env. */
  readonly subnetFile: string;
  /** The folder where each container's delegate configuration is kept for its DEL. */
  readonly dataDir: string;
  /** The whole configuration. */
  readonly json: ConfObject;
}

/** The version that a configuration speaks; `undefined` if denim does not speak it. */
export function readCniVersion(json: ConfObject): CniVersion | undefined {
  const version = json.get("cniVersion") ?? "";
  return version === "" ? UNSAID_CNI_VERSION : CNI_VERSIONS.find((known) => known === version);
}

/** Reads the parts that every command needs. Throws a CniError that says what is wrong. */
export function readNetworkConf(json: ConfObject): NetworkConf {
  const cniVersion = readCniVersion(json);
  if (cniVersion === undefined) {
    throw new CniError(
      CNI_CODE.incompatibleVersion,
      `denim does not speak cniVersion ${show(json.get("cniVersion"))}; ` +
        `set it to one of ${CNI_VERSIONS.join(", ")}`,
    );
  }
  const name = json.string("name");
  if (name === undefined || !isCniName(name)) json.fail("name", `a network's name: ${CNI_NAME}`);
  return {
    cniVersion,
    name,
    subnetFile: json.string("subnetFile") || DEFAULT_SUBNET_FILE,
    dataDir: json.string("dataDir") || DEFAULT_DATA_DIR,
    json,
  };
}
