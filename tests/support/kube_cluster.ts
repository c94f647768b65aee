/**
 * Kubernetes for one test: a real kube-apiserver if there is one (`KUBE_APISERVER` names it, or it is on
 * PATH), else a stand-in, which says that it is one.
 *
 * @module
 */

import { KubeApiServer } from "./kube_api_server.ts";
import type { KubeServer } from "./kube_server.ts";
import { KubeStandIn } from "./kube_stand_in.ts";

/** Starts a server. */
export async function startKubeServer(): Promise<KubeServer> {
  const program = KubeApiServer.program();
  if (program !== undefined) return await KubeApiServer.launch(program);
  console.log(
    "tests: no kube-apiserver here (KUBE_APISERVER names one): its part is played by a stand-in of " +
      "tests/support, which is not Kubernetes",
  );
  return await KubeStandIn.launch();
}
