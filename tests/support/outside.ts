/**
 * A host outside of the cluster, on the wire of a laboratory's nodes.
 *
 * @module
 */

import type { Family } from "@denim/core";
import type { NetworkNamespace } from "@denim/core/linux";
import type { Lab } from "@denim/agent/lab";
import { sh } from "./sh.ts";

/** Its addresses. */
export const OUTSIDE: Readonly<Record<Family, string>> = { 4: "10.99.0.200", 6: "fd99::200" };

/** Makes it: a namespace with the device eth0, beside the nodes of the first link. */
export function addOutside(lab: Lab): NetworkNamespace {
  const outside = lab.namespace("outside");
  sh(
    `ip -n "$1" link add outside type veth peer name eth0 netns "$2"
    ip -n "$1" link set outside up master br0
    ip -n "$2" link set lo up
    ip -n "$2" link set eth0 up
    ip -n "$2" addr add ${OUTSIDE[4]}/24 dev eth0
    ip -n "$2" addr add ${OUTSIDE[6]}/64 dev eth0 nodad`,
    [`${lab.prefix}-net`, `${lab.prefix}-outside`],
  );
  return outside;
}
