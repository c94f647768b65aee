/**
 * `deploy/kubernetes` as an operator would apply it.
 *
 * @module
 */

import { parseAllDocuments, stringify } from "yaml";
import { ROOT } from "../../.ci/source_files.ts";

/** The namespace of the manifest. */
export const NAMESPACE = "kube-denim";

/** An object of Kubernetes, as far as it is looked at here. */
export interface KubeObject {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly [key: string]: unknown;
}

/** The objects that a manifest names. */
export function objectsOf(text: string): KubeObject[] {
  return parseAllDocuments(text).map((document) => document.toJS()).filter((one) => one !== null);
}

/** A manifest that names objects. */
export function manifestOf(objects: readonly unknown[]): string {
  return objects.map((object) => stringify(object)).join("---\n");
}

/** `denim.yml` for a cluster's network, for the nodes that have labels. */
export function manifest(network: string, nodeSelector: Record<string, string> = {}): string {
  const text = Deno.readTextFileSync(`${ROOT}/deploy/kubernetes/denim.yml`);
  return selecting(text.replace("10.244.0.0/16", network), nodeSelector);
}

/** `uninstall.yml`, for the nodes that have labels, with `how` in place of `--yes`. */
export function uninstallManifest(
  nodeSelector: Record<string, string> = {},
  how = "--yes",
): string {
  const text = Deno.readTextFileSync(`${ROOT}/deploy/kubernetes/uninstall.yml`);
  return selecting(text.replace("- --yes\n", `- ${how}\n`), nodeSelector);
}

function selecting(text: string, nodeSelector: Record<string, string>): string {
  return manifestOf(
    objectsOf(text).map((object) => {
      if (object.kind !== "DaemonSet") return object;
      const daemonSet = structuredClone(object) as unknown as {
        spec: { template: { spec: Record<string, unknown> } };
      };
      daemonSet.spec.template.spec.nodeSelector = nodeSelector;
      return daemonSet;
    }),
  );
}
