/**
 * The variables by which a runtime calls a plugin (CNI spec 1.1.0, section 2, "Parameters").
 *
 * @module
 */

import { IpAddress } from "@denim/core/ip";
import { MacAddress } from "@denim/core/mac";
import { CNI_CODE, CniError } from "./cni_error.ts";

/** One interface of one container: what an ADD makes and a DEL removes. */
export interface Attachment {
  /** The container's id, unique on the node (`CNI_CONTAINERID`). */
  readonly containerId: string;
  /** The interface's name in the container (`CNI_IFNAME`). */
  readonly ifName: string;
}

/** The variables of one call; "" for those that are not set. */
export interface CniVariables {
  /** `CNI_CONTAINERID` */
  readonly containerId: string;
  /** `CNI_NETNS`: the path of the container's network namespace. */
  readonly netns: string;
  /** `CNI_IFNAME` */
  readonly ifName: string;
  /** `CNI_ARGS` */
  readonly args: string;
  /** `CNI_PATH`: folders with plugins, joined by colons. */
  readonly path: string;
  /** `CNI_NETNS_OVERRIDE`: whether the container's namespace may be the plugin's own (libcni). */
  readonly netnsOverride: boolean;
}

/** Reads a variable of the environment; `undefined` if it is not set. */
export type ReadVariable = (name: string) => string | undefined;

/**
 * The variables that each command needs. libcni asks for `CNI_PATH` too; denim needs it only if another plugin does
 * the work.
 */
const REQUIRED: Readonly<Record<string, readonly string[]>> = {
  ADD: ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
  CHECK: ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
  DEL: ["CNI_CONTAINERID", "CNI_IFNAME"],
};

/** The longest name that a device can have, in bytes (`IFNAMSIZ` in linux/if.h, less the zero). */
const MAX_INTERFACE_NAME = 15;

/**
 * Reads and checks the variables that a command needs. Throws a CniError, "invalid environment", that
 * names every variable that is missing, or the one that is wrong.
 */
export function readVariables(command: string, read: ReadVariable): CniVariables {
  const required = REQUIRED[command] ?? [];
  const missing = required.filter((name) => !read(name));
  if (missing.length > 0) {
    throw new CniError(
      CNI_CODE.invalidEnvironment,
      `${missing.join(", ")} missing in the environment: ${command} needs ${required.join(", ")}`,
    );
  }
  const value = (name: string) => read(name) ?? "";
  const containerId = value("CNI_CONTAINERID"), ifName = value("CNI_IFNAME");
  if (required.includes("CNI_CONTAINERID") && !isCniName(containerId)) {
    throw invalid("CNI_CONTAINERID", containerId, `must be ${CNI_NAME}`);
  }
  if (required.includes("CNI_IFNAME")) {
    const reason = interfaceNameProblem(ifName);
    if (reason !== undefined) throw invalid("CNI_IFNAME", ifName, reason);
  }
  return {
    containerId,
    netns: value("CNI_NETNS"),
    ifName,
    args: value("CNI_ARGS"),
    path: value("CNI_PATH"),
    netnsOverride: /^(true|1)$/i.test(value("CNI_NETNS_OVERRIDE")),
  };
}

/** What {@link isCniName} asks for, in words. */
export const CNI_NAME = "a letter or digit, then letters, digits, '_', '.' and '-'";

/** Whether a text can be a container's id or a network's name (CNI spec 1.1.0, sections 1 and 2). */
export function isCniName(text: string): boolean {
  return /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(text);
}

/**
 * Why a device can't have a name, as the rest of a sentence; `undefined` if it can. These are the kernel's rules
 * (`dev_valid_name`, `dev_get_valid_name`, `sysctl_dev_name_is_allowed`), which it breaks with a bare EINVAL.
 */
export function interfaceNameProblem(name: string): string | undefined {
  const special = SPECIAL_NAMES.get(name);
  if (special !== undefined) return special;
  const bytes = new TextEncoder().encode(name);
  if (bytes.length > MAX_INTERFACE_NAME) {
    return `is too long: a device's name has at most ${MAX_INTERFACE_NAME} bytes`;
  }
  if (name.includes("%")) return "must have no '%': the kernel puts a number in its place";
  if (/[\0\t-\r /:]/.test(name)) return "must have no '/', ':' or white space";
  return bytes.includes(NO_BREAK_SPACE)
    ? "has a letter with the byte A0, which the kernel takes for white space"
    : undefined;
}

/** Names that no new device can have, and why. */
const SPECIAL_NAMES: ReadonlyMap<string, string> = new Map([
  ["", "is empty"],
  [".", "is not a name for a device"],
  ["..", "is not a name for a device"],
  ["all", "is the kernel's name for the settings of all devices"],
  ["default", "is the kernel's name for the settings of new devices"],
  ["lo", "is the loopback device's name"],
]);

/** Its byte in ISO 8859-1, as which the kernel reads names. It is also a part of "à" in UTF-8. */
const NO_BREAK_SPACE = 0xa0;

/** The arguments of `CNI_ARGS` that denim knows. */
export interface CniArgs {
  /** `MAC`: the Ethernet address that the container's interface must have. */
  readonly mac: MacAddress | undefined;
  /** `IP`: the address that the container must have. */
  readonly ip: IpAddress | undefined;
}

/**
 * Reads `CNI_ARGS`: `IgnoreUnknown=1;MAC=02:00:00:00:00:01;IP=10.5.3.9`. Throws a CniError, "invalid environment",
 * for a wrong argument, and for an unknown one unless `IgnoreUnknown` is true, as libcni does.
 */
export function readArgs(text: string): CniArgs {
  const values = new Map<string, string>();
  for (const pair of text === "" ? [] : text.split(";")) {
    const equals = pair.indexOf("=");
    if (equals <= 0) throw invalid("CNI_ARGS", text, `has "${pair}", which is not KEY=VALUE`);
    values.set(pair.slice(0, equals), pair.slice(equals + 1));
  }
  const take = <T>(key: string, what: string, read: (text: string) => T | undefined) => {
    const value = values.get(key);
    values.delete(key);
    if (value === undefined || value === "") return undefined;
    const result = read(value);
    if (result === undefined) throw invalid("CNI_ARGS", text, `has ${key}, which is not ${what}`);
    return result;
  };
  const ignoreUnknown = take("IgnoreUnknown", "true or false", parseBoolean);
  const mac = take("MAC", "an Ethernet address", parseMac);
  const ip = take("IP", "an IP address", parseHostAddress);
  if (values.size > 0 && ignoreUnknown !== true) {
    const unknown = [...values.keys()].join(", ");
    throw invalid(
      "CNI_ARGS",
      text,
      `has ${unknown}, which denim does not know; add IgnoreUnknown=1 to have it ignored`,
    );
  }
  return { mac, ip };
}

function parseBoolean(text: string): boolean | undefined {
  return /^(1|true)$/i.test(text) ? true : /^(0|false)$/i.test(text) ? false : undefined;
}

/** Parses an Ethernet address; `undefined` if the text is not one. */
export function parseMac(text: string): MacAddress | undefined {
  try {
    return MacAddress.parse(text);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return undefined;
  }
}

/** Parses an IP address, and ignores a prefix length behind it; `undefined` if the text is not one. */
export function parseHostAddress(text: string): IpAddress | undefined {
  const match = /^([^/]*)(\/\d{1,3})?$/.exec(text);
  return match === null ? undefined : IpAddress.tryParse(match[1]!);
}

function invalid(name: string, value: string, reason: string): CniError {
  return new CniError(
    CNI_CODE.invalidEnvironment,
    `${name}=${JSON.stringify(value)} in the environment ${reason}`,
  );
}
