/**
 * The plugin's answers as JSON, in the form of the spec's version that the runtime speaks.
 *
 * @module
 */

import type { Family } from "@denim/core/ip";
import type { MacAddress } from "@denim/core/mac";
import type { HeldAddress } from "./address_store.ts";
import type { CniError } from "./cni_error.ts";
import type { Dns, RouteConf } from "./host_local_conf.ts";
import { atLeast, CNI_VERSIONS, type CniVersion } from "./network_conf.ts";

/** One device of an attachment. */
export interface ResultInterface {
  /** Its name. */
  readonly name: string;
  /** Its Ethernet address. */
  readonly mac: MacAddress | undefined;
  /** The largest packet that it takes, in bytes. */
  readonly mtuBytes: number;
  /** The path of the container's namespace; left out for a device on the node. */
  readonly sandbox?: string;
}

/** What an ADD made. */
export interface AttachmentResult {
  /** The devices: the bridge, the node's end of the veth pair, the container's end. */
  readonly interfaces: readonly [ResultInterface, ResultInterface, ResultInterface];
  /** The container's addresses. */
  readonly addresses: readonly HeldAddress[];
  /** The container's routes. */
  readonly routes: readonly RouteConf[];
  /** The settings for the container's resolver. */
  readonly dns: Dns | undefined;
}

/** The index of the container's end in {@link AttachmentResult.interfaces}. */
const CONTAINER_INTERFACE = 2;

/**
 * The success of an ADD (CNI spec 1.1.0, section 5, "ADD Success"). Before 1.0.0 each address has its family; from
 * 1.1.0 on each device has its MTU. 0.2.0 and older have no devices, and one address a family with that family's
 * routes (libcni, pkg/types/020).
 */
export function formatResult(cniVersion: CniVersion, result: AttachmentResult): string {
  if (!atLeast(cniVersion, "0.3.0")) {
    return print({
      cniVersion,
      ip4: oldIpConfig(result, 4),
      ip6: oldIpConfig(result, 6),
      dns: result.dns,
    });
  }
  return print({
    cniVersion,
    interfaces: result.interfaces.map(({ name, mac, mtuBytes, sandbox }) => ({
      name,
      mac,
      mtu: atLeast(cniVersion, "1.1.0") ? mtuBytes : undefined,
      sandbox,
    })),
    ips: result.addresses.map(({ address, range }) => ({
      version: atLeast(cniVersion, "1.0.0") ? undefined : `${address.family}`,
      interface: CONTAINER_INTERFACE,
      address: `${address}/${range.subnet.prefixLength}`,
      gateway: range.gateway,
    })),
    routes: result.routes,
    dns: result.dns,
  });
}

/** A family's address, gateway and routes (CNI spec 0.2.0, "Result"); `undefined` if the container has none. */
function oldIpConfig({ addresses, routes }: AttachmentResult, family: Family) {
  const held = addresses.find(({ address }) => address.family === family);
  return held && {
    ip: `${held.address}/${held.range.subnet.prefixLength}`,
    gateway: held.range.gateway,
    routes: routes.filter(({ dst }) => dst.family === family).map(({ dst, gw }) => ({ dst, gw })),
  };
}

/** The answer to VERSION (CNI spec 1.1.0, section 2, "VERSION"). */
export function formatVersions(cniVersion: string): string {
  return print({ cniVersion, supportedVersions: CNI_VERSIONS });
}

/** A failure (CNI spec 1.1.0, section 5, "Error"). */
export function formatError(cniVersion: CniVersion, { code, message, details }: CniError): string {
  return print({ cniVersion, code, msg: message, details: details || undefined });
}

/** Without white space: the script that asks an agent reads the answer octet by octet (launcher.ts). */
function print(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}
