/**
 * STATUS: whether an ADD would find what it needs (CNI spec 1.1.0, section 2, "STATUS"). Loaded only when it
 * is used.
 *
 * @module
 */

import { throwDefect } from "@denim/core/errors";
import { findLink, NetlinkSocket } from "@denim/core/linux/attach";
import { notABridge, requireIpv6 } from "./bridge.ts";
import { CNI_CODE, CniError, toCniError } from "./cni_error.ts";
import {
  type BridgeConf,
  isDelegated,
  readBridgeConf,
  readSubnetEnv,
  renderDelegate,
} from "./delegate_conf.ts";
import { type CniVariables, readArgs } from "./environment.ts";
import { type NetworkConf, requireVersion } from "./network_conf.ts";

/**
 * Returns nothing if the plugin is ready. Throws a CniError, "not ready", that says what is missing. A full subnet is
 * ready all the same: the node still does its work, and the next pod that ends makes room.
 */
export function status(conf: NetworkConf, variables: CniVariables): string | Promise<string> {
  requireVersion(conf, "STATUS", "1.1.0");
  const delegate = renderDelegate(conf, orNotReady(() => readSubnetEnv(conf.subnetFile)));
  if (isDelegated(delegate)) {
    return import("./delegate.ts").then((it) => it.delegateStatus(conf, variables, delegate));
  }
  const bridgeConf = readBridgeConf(delegate, readArgs(""));
  orNotReady(() => requireIpv6(bridgeConf));
  if (!bridgeConf.isMasqueraded) return bridgeReady(bridgeConf);
  return import("./masquerade.ts").then(({ NodeMasquerade }) => {
    using masquerade = new NodeMasquerade();
    orNotReady(() => masquerade.required);
    return bridgeReady(bridgeConf);
  });
}

function bridgeReady(bridgeConf: BridgeConf): string {
  using socket = new NetlinkSocket();
  const bridge = findLink(socket, bridgeConf.bridge);
  if (bridge === undefined || bridge.type === "bridge") return "";
  const cause = notABridge(bridge.name, bridge);
  throw new CniError(CNI_CODE.notReady, cause.message, { cause });
}

function orNotReady<T>(run: () => T): T {
  try {
    return run();
  } catch (error) {
    throwDefect(error);
    throw new CniError(CNI_CODE.notReady, toCniError(error).message, { cause: error });
  }
}
