/**
 * The checks of `denim doctor`. A new one is a file here and a line in this list.
 *
 * @module
 */

import { agent } from "./agent.ts";
import type { Check } from "./check.ts";
import { cni } from "./cni.ts";
import { disk } from "./disk.ts";
import { firewalls } from "./firewalls.ts";
import { flanneld } from "./flanneld.ts";
import { fileDescriptors } from "./file_descriptors.ts";
import { forwardPolicy } from "./forward_policy.ts";
import { forwarding } from "./forwarding.ts";
import { iptablesLegacy } from "./iptables_legacy.ts";
import { kernelModules } from "./kernel_modules.ts";
import { macPolicy } from "./mac_policy.ts";
import { mtu } from "./mtu.ts";
import { networkManagers } from "./network_managers.ts";
import { overlap } from "./overlap.ts";
import { rpFilter } from "./rp_filter.ts";
import { vxlanConflict } from "./vxlan_conflict.ts";
import { wireguard } from "./wireguard.ts";

/** Every check, in the order in which findings are told. */
export const CHECKS: readonly Check[] = [
  kernelModules,
  flanneld,
  agent,
  forwarding,
  rpFilter,
  forwardPolicy,
  firewalls,
  iptablesLegacy,
  vxlanConflict,
  wireguard,
  networkManagers,
  macPolicy,
  mtu,
  overlap,
  cni,
  disk,
  fileDescriptors,
];
