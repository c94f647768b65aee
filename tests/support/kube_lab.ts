/**
 * A laboratory on Kubernetes: real agents in namespaces, and a real kube-apiserver if there is one, which they reach by
 * the router between them.
 *
 * @module
 */

import { NetworkNamespace } from "@denim/core/linux/namespace";
import { Lab, type LabNode, type LabOptions } from "@denim/agent/lab";
import { startKubeServer } from "./kube_cluster.ts";
import { kubeconfigText, type KubeServer, nodeManifest, RULES } from "./kube_server.ts";
import { HttpGate } from "./http_gate.ts";
import { TcpProxy } from "./tcp_proxy.ts";
import { all } from "./wait.ts";

const ROUTER = "10.99.0.254";
/** Where Kubernetes' nodes are. */
export const NODES = "/api/v1/nodes";
/** What the names of flannel's annotations begin with. */
export const PREFIX = "flannel.alpha.coreos.com";

/** Nodes that are made at the same time. */
const MAKERS = 16;

/** What Kubernetes says of a node, as far as tests ask. */
export interface KubeNode {
  /** Its annotations. */
  readonly metadata: { readonly annotations: Readonly<Record<string, string>> };
  /** Its conditions. */
  readonly status: { readonly conditions?: readonly Readonly<Record<string, string>>[] };
}

/** How a laboratory is made. */
export type KubeLabOptions = Pick<LabOptions, "nodes" | "netConf" | "agentProgram">;

/** A laboratory whose agents find their leases in Kubernetes. */
export class KubeLab implements AsyncDisposable {
  /** The API server. */
  readonly server: KubeServer;
  /** The nodes. */
  readonly lab: Lab;
  /** The nodes' way to the server. */
  readonly way: TcpProxy;
  /** Another one, which tells what is asked; for `--kube-api-url`. */
  readonly gate: HttpGate;
  /** The agents' kubeconfig. */
  readonly kubeconfig: string;
  readonly #parts: AsyncDisposableStack;

  private constructor(
    { server, lab, way, gate, kubeconfig }: Pick<
      KubeLab,
      "server" | "lab" | "way" | "gate" | "kubeconfig"
    >,
    parts: AsyncDisposableStack,
  ) {
    this.server = server;
    this.lab = lab;
    this.way = way;
    this.gate = gate;
    this.kubeconfig = kubeconfig;
    this.#parts = parts;
  }

  /** Makes one. Kubernetes has no nodes yet. */
  static async create(options: KubeLabOptions): Promise<KubeLab> {
    await using parts = new AsyncDisposableStack();
    const server = parts.use(await startKubeServer());
    await server.grant(RULES);
    const directory = Deno.makeTempDirSync({ prefix: "denim-kube-" });
    parts.defer(() => Deno.removeSync(directory, { recursive: true }));
    const kubeconfig = `${directory}/kubeconfig`;
    const storeFlags = ["--kube-subnet-mgr", "--kubeconfig-file", kubeconfig];
    const lab = await Lab.create({ ...options, storeFlags });
    // The agents end before their way to the server does.
    const namespace = parts.use(NetworkNamespace.open(`/run/netns/${lab.prefix}-net`));
    const way = parts.use(new TcpProxy(server.url, { namespace, host: ROUTER }));
    const gate = parts.use(new HttpGate(server.url, server.caFile, { namespace, host: ROUTER }));
    parts.use(lab);
    const cluster = { "server": `https://${way.host}`, "certificate-authority": server.caFile };
    Deno.writeTextFileSync(kubeconfig, kubeconfigText(cluster, { token: await server.token() }));
    return new KubeLab({ server, lab, way, gate, kubeconfig }, parts.move());
  }

  /** The nodes, of which Kubernetes knows those that were registered. */
  get nodes(): readonly LabNode[] {
    return this.lab.nodes;
  }

  /** Has Kubernetes know a node, as a kubelet and kube-controller-manager would. */
  async register(
    name: string,
    podCIDRs: readonly string[],
    annotations: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    await this.server.admin("POST", NODES, nodeManifest(name, podCIDRs, annotations));
  }

  /** Has Kubernetes know nodes by their manifests, several at the same time. */
  async makeNodes(manifests: readonly unknown[]): Promise<void> {
    const waiting = [...manifests];
    await all(Array.from({ length: MAKERS }, async () => {
      while (waiting.length > 0) await this.server.admin("POST", NODES, waiting.pop());
    }));
  }

  /** Has Kubernetes know the node `other` with 10.5.`number`.0/24, which flannel would have annotated so. */
  async registerFlannels(number: number): Promise<void> {
    await this.register(`other${number}`, [`10.5.${number}.0/24`], {
      [`${PREFIX}/kube-subnet-manager`]: "true",
      [`${PREFIX}/backend-type`]: "vxlan",
      [`${PREFIX}/backend-data`]: `{"VNI":1,"VtepMAC":"0a:00:00:00:00:${number}"}`,
      [`${PREFIX}/public-ip`]: `10.99.0.${number}`,
    });
  }

  /** Reads a node. */
  async read(name: string): Promise<KubeNode> {
    return await this.server.admin("GET", `${NODES}/${name}`) as KubeNode;
  }

  /** Whether the node's condition says what flannel's says of a node with a network. */
  async isUsable({ name }: LabNode): Promise<boolean> {
    const { conditions = [] } = (await this.read(name)).status;
    const condition = conditions.find(({ type }) => type === "NetworkUnavailable");
    return condition?.status === "False" && condition.reason === "FlannelIsUp";
  }

  /** The cluster's net-conf is another now. */
  async setNetConf(netConf: unknown): Promise<void> {
    // Renamed: an agent that reads it meanwhile finds no half of it.
    const path = `${this.lab.directory}/net-conf.json`;
    await Deno.writeTextFile(`${path}.new`, JSON.stringify(netConf));
    await Deno.rename(`${path}.new`, path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#parts.disposeAsync();
  }
}
