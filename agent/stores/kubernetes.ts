/**
 * `--kube-subnet-mgr`: Kubernetes as the store, with flannel's flags.
 *
 * @module
 */

import { ConfigError } from "@denim/core";
import type { KubernetesStoreOptions } from "@denim/core/stores/kubernetes";
import { flag } from "../flag_table.ts";
import { optionalText, text, toggle } from "../flag_types.ts";
import type { StoreKind } from "./store_kind.ts";

const FLAGS = [
  flag(
    "kube-subnet-mgr",
    toggle,
    "leases are the podCIDRs and annotations of Kubernetes' nodes; NODE_NAME says which one this is",
  ),
  flag("kube-api-url", optionalText("URL"), "URL of Kubernetes' API server, if not the pod's own"),
  flag(
    "kubeconfig-file",
    optionalText("PATH"),
    "kubeconfig with the way to the API server; the pod's service account unless given",
  ),
  flag(
    "kube-annotation-prefix",
    text("PREFIX"),
    "what the names of flannel's annotations begin with",
    "flannel.alpha.coreos.com",
  ),
  flag(
    "set-node-network-unavailable",
    toggle,
    "tell Kubernetes by NetworkUnavailable whether pods on the node have a network",
    "true",
  ),
] as const;

/** What flags say of Kubernetes. */
export type KubernetesSpec = Pick<
  KubernetesStoreOptions,
  "apiUrl" | "kubeconfigFile" | "annotationPrefix" | "setNetworkUnavailable"
>;

/** Kubernetes. Its net-conf is the file that `--net-config-path` names, which a ConfigMap fills. */
export const kubernetes = {
  name: "kubernetes",
  usage: "kubernetes",
  flags: FLAGS,
  chosenBy: ["kube-subnet-mgr"],
  administeredBy: "the API server has the nodes' subnets and annotations, and a ConfigMap the " +
    "net-conf; use kubectl get nodes -o yaml, and kubectl edit",
  parse(place, { values }) {
    if (place !== undefined) {
      throw new ConfigError(
        `--store kubernetes:${place}: --kubeconfig-file or --kube-api-url says where Kubernetes is`,
      );
    }
    return {
      apiUrl: values["kube-api-url"],
      kubeconfigFile: values["kubeconfig-file"],
      annotationPrefix: values["kube-annotation-prefix"],
      setNetworkUnavailable: values["set-node-network-unavailable"],
    };
  },
  async open(spec, { netConfFile, log, metrics, signal }) {
    const node = thisNode((name) => Deno.env.get(name));
    const { KubernetesStore } = await import("@denim/core/stores/kubernetes");
    const options = { ...spec, node, netConfFile: netConfFile.path, log, metrics };
    return await KubernetesStore.open(options, signal);
  },
} satisfies StoreKind<typeof FLAGS[number], KubernetesSpec>;

/**
 * Which node this is, as flannel reads it: by `NODE_NAME`, else the node of the pod that `POD_NAME` and `POD_NAMESPACE`
 * name. Throws a ConfigError if the environment says neither.
 */
export function thisNode(
  environment: (name: string) => string | undefined,
): KubernetesStoreOptions["node"] {
  const nodeName = environment("NODE_NAME");
  if (nodeName) return { name: nodeName };
  const [name, namespace] = [environment("POD_NAME"), environment("POD_NAMESPACE")];
  if (name && namespace) return { pod: { name, namespace } };
  throw new ConfigError(
    "nothing says which node this is: set NODE_NAME (in a pod from spec.nodeName), or POD_NAME and " +
      "POD_NAMESPACE",
  );
}
