/**
 * flannel's own agent.
 *
 * @module
 */

import type { Finding } from "./check.ts";
import type { Host } from "./host.ts";

/** `flanneld-runs`: two programs keep one node's network. */
export function flanneld(host: Host): readonly Finding[] {
  return !host.processes.has("flanneld") ? [] : [{
    name: "flanneld-runs",
    evidence: "flanneld runs on this host",
    remedy:
      "stop it for good before denim's agent runs here (systemctl disable --now flanneld, or its DaemonSet)",
  }];
}
