/**
 * `deploy/kubernetes` as an operator would apply it.
 *
 * @module
 */

import { parseAllDocuments } from "yaml";
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

/** The folder of the manifests, charts and overlays. */
export const DEPLOY: string = `${ROOT}/deploy`;

/** A manifest that names the manifests' network, for a cluster's own. */
export function withNetwork(text: string, network: string): string {
  return text.replace("10.244.0.0/16", network);
}

/** The text of a manifest. */
export function readManifest(name: string): string {
  return Deno.readTextFileSync(`${DEPLOY}/kubernetes/${name}`);
}
