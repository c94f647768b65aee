/**
 * `deno run -A tests/kubernetes/proof.ts PART…`: denim on a real Kubernetes, by its image and its manifest, shown and not
 * only tested. It makes clusters of its own, one after the other, and takes minutes; docs/develop.md says what
 * it needs.
 *
 * @module
 */

import assert from "node:assert/strict";
import { eventually } from "../support/wait.ts";
import { Cluster, type ClusterPod } from "./cluster.ts";
import { FLANNEL_IMAGE, flannelManifest, writeFlannelImage } from "./flannel.ts";
import { CHART } from "./helm.ts";
import { DENIM_IMAGE, KUBECTL_IMAGE, writeDenimImage, writeKubectlImage } from "./image.ts";
import { DEPLOY, NAMESPACE, readManifest, withNetwork } from "./manifest.ts";

const NETWORK = "10.5.0.0/16";
/** An address outside of the cluster, in the control plane's network, which is all nodes' router. */
const OUTSIDE = "192.0.2.1";
const OUTAGE_MS = 60_000;
/** Says of a node which network's agent it has, while a cluster changes from one to the other. */
const LABEL = "pod-network";
/** Keeps flannel away from denim's nodes. */
const NOT_WHERE_DENIM_IS = {
  op: "add",
  path:
    "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/" +
    "nodeSelectorTerms/0/matchExpressions/-",
  value: { key: LABEL, operator: "NotIn", values: ["denim"] },
};

/** How denim gets onto a cluster, and away from it. */
interface Way {
  install(cluster: Cluster): Promise<void>;
  uninstall(cluster: Cluster): Promise<void>;
}

const byManifest: Way = {
  install: (cluster) => cluster.apply(withNetwork(readManifest("denim.yml"), NETWORK)),
  async uninstall(cluster) {
    await cluster.kubectl("-n", NAMESPACE, "delete", "daemonset", "denim");
    await cluster.apply(readManifest("uninstall/uninstall.yml"));
    await cluster.rolledOut(NAMESPACE, "denim-uninstall");
    await cluster.delete(readManifest("denim.yml"));
  },
};

const byHelm: Way = {
  async install(cluster) {
    await load(cluster, writeKubectlImage);
    await cluster.helm(
      ...["install", "denim", CHART, "--namespace", NAMESPACE, "--create-namespace"],
      ...["--set", `podCidr=${NETWORK}`, "--set", "uninstall.enabled=true"],
      ...["--set", "uninstall.args={--yes}", "--set", `uninstall.kubectl.image=${KUBECTL_IMAGE}`],
    );
  },
  async uninstall(cluster) {
    await cluster.helm("uninstall", "denim", "--namespace", NAMESPACE);
  },
};

const PARTS: Readonly<Record<string, () => Promise<void>>> = {
  manifest: () => proof(byManifest, "iptables"),
  "manifest-nftables": () => proof(byManifest, "nftables"),
  chart: () => proof(byHelm, "iptables"),
  flannel: () => proofOfChange(),
};

async function proof(way: Way, proxyMode: string): Promise<void> {
  await using cluster = await Cluster.up(3, proxyMode);
  await load(cluster, writeDenimImage);
  const before = await Promise.all(cluster.nodes.map((node) => cluster.inventory(node)));

  const startMs = performance.now();
  await way.install(cluster);
  await cluster.nodesReady();
  await cluster.rolledOut(NAMESPACE, "denim");
  say("nodes are Ready", startMs);

  const pods = await startPods(cluster);
  await pairs(cluster, pods);
  await services(cluster, pods);
  await seen(cluster);
  const [a, , c] = pods as [ClusterPod, ClusterPod, ClusterPod];
  await cluster.underPing(a, c, "rolling update", async () => {
    await cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "ds/denim");
    await cluster.rolledOut(NAMESPACE, "denim");
  });
  await cluster.underPing(a, c, "the agent's pod of a node deleted", async () => {
    await cluster.kubectl(
      ...["-n", NAMESPACE, "delete", "pod", "-l", "app.kubernetes.io/name=denim"],
      "--field-selector=spec.nodeName=n1",
    );
    await cluster.rolledOut(NAMESPACE, "denim");
  });
  await cluster.underPing(a, c, "API server killed for a minute", async () => {
    const start = cluster.killApiServer();
    await new Promise((resolve) => setTimeout(resolve, OUTAGE_MS));
    await start();
    await cluster.rolledOut(NAMESPACE, "denim");
  });
  const late = await cluster.pod(2, "late");
  await pairs(cluster, [...pods, late]);

  await cluster.kubectl("delete", "pods", "--all");
  await way.uninstall(cluster);
  for (const [index, node] of cluster.nodes.entries()) {
    assert.equal(await cluster.inventory(node), before[index], `what is left on node n${node}`);
  }
  console.log("everything deleted: nothing is left on the nodes");
}

/** flannel's nodes become denim's, one by one, and flannel's again. */
async function proofOfChange(): Promise<void> {
  await using cluster = await Cluster.up(3, "iptables");
  await load(cluster, writeDenimImage);
  await load(cluster, writeFlannelImage);
  await cluster.apply(flannelManifest(NETWORK));
  await cluster.nodesReady();
  await cluster.kubectl(
    ...["-n", "kube-flannel", "patch", "daemonset", "kube-flannel-ds", "--type=json", "-p"],
    JSON.stringify([NOT_WHERE_DENIM_IS]),
  );
  await cluster.rolledOut("kube-flannel", "kube-flannel-ds");
  const pods = await startPods(cluster);
  const [a, , c] = pods as [ClusterPod, ClusterPod, ClusterPod];
  await pairs(cluster, pods);
  const runs = (node: number, namespace: string, app: string) => async () =>
    await cluster.kubectl(
      ...["-n", namespace, "get", "pods", "-l", app, `--field-selector=spec.nodeName=n${node}`],
      ...["-o", 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'],
    ) === "True";
  const change = async (
    to: string,
    ...agents: readonly (readonly [namespace: string, app: string])[]
  ) => {
    for (const node of cluster.nodes) {
      await cluster.kubectl("label", "node", `n${node}`, `${LABEL}=${to}`, "--overwrite");
      for (const [namespace, app] of agents) {
        await eventually(`${app} on n${node}`, runs(node, namespace, app), 120_000);
      }
      pods.push(await cluster.pod(node, `${to}-${node}`));
      await pairs(cluster, pods);
    }
  };

  await cluster.apply(
    withNetwork(await cluster.kubectl("kustomize", `${DEPLOY}/move`), NETWORK),
  );
  await cluster.underPing(a, c, "flannel's nodes become denim's", async () => {
    await change("denim", [NAMESPACE, "app.kubernetes.io/name=denim"]);
  });
  await cluster.underPing(a, c, "denim's nodes become flannel's", async () => {
    await change("flannel", ["kube-flannel", "app=flannel"], [
      NAMESPACE,
      "app.kubernetes.io/name=denim-uninstall",
    ]);
  });
}

async function load(cluster: Cluster, write: (file: string) => void): Promise<void> {
  const archive = Deno.makeTempFileSync({ prefix: "denim-image-" });
  try {
    write(archive);
    await cluster.load(archive);
  } finally {
    Deno.removeSync(archive);
  }
}

/** Two pods on the first node, one on each other. */
async function startPods(cluster: Cluster): Promise<ClusterPod[]> {
  return await Promise.all([
    cluster.pod(1, "a", { hostPort: 8080 }),
    cluster.pod(1, "b"),
    cluster.pod(2, "c"),
    cluster.pod(3, "d"),
  ]);
}

async function pairs(cluster: Cluster, pods: readonly ClusterPod[]): Promise<void> {
  await Promise.all(pods.map(async (from) => {
    for (const to of pods) {
      if (from === to) continue;
      assert.equal(await cluster.get(from, `http://${to.address}`), `${to.name}\n`);
    }
  }));
  console.log(`pods of all ${pods.length * (pods.length - 1)} pairs talk`);
}

async function services(cluster: Cluster, pods: readonly ClusterPod[]): Promise<void> {
  const b = pods[1]!;
  const service = await cluster.service("a", "a");
  await eventually("the service is there", async () => {
    try {
      return await cluster.get(b, `http://${service}`) === "a\n";
    } catch {
      return false;
    }
  }, 60_000);
  for (const pod of pods) assert.equal(await cluster.get(pod, `http://${service}`), "a\n");
  console.log("a service is reached from every pod, its own one too (hairpin)");

  const get = (url: string) => `curl --silent --show-error --fail --max-time 5 ${url}`;
  assert.equal(await cluster.on(2, get("http://10.99.0.1:8080")), "a");
  assert.equal(await cluster.on("cp", get("http://10.99.0.1:8080")), "a");
  assert.equal(await cluster.get(pods[2]!, "http://10.99.0.1:8080"), "a\n");
  console.log("a host port is reached from a node, from outside and from a pod");

  await cluster.on(
    "cp",
    `
    ip addr add ${OUTSIDE}/32 dev br0
    mkdir -p /tmp/denim-outside/cgi-bin
    printf '#!/bin/sh\\necho; echo "$REMOTE_ADDR"\\n' >/tmp/denim-outside/cgi-bin/who
    chmod +x /tmp/denim-outside/cgi-bin/who
    busybox httpd -p ${OUTSIDE}:80 -h /tmp/denim-outside`,
  );
  for (const pod of pods) {
    const who = await cluster.get(pod, `http://${OUTSIDE}/cgi-bin/who`);
    assert.match(who, /10\.99\.0\.[123]\n$/, `${pod.name} is seen as ${who}`);
  }
  await cluster.on(
    "cp",
    `ip addr del ${OUTSIDE}/32 dev br0; rm -r /tmp/denim-outside
    kill $(ss -Hltnp "src ${OUTSIDE}" | sed -n 's/.*pid=\\([0-9]*\\).*/\\1/p')`,
  );
  console.log("pods reach the outside, under their nodes' addresses");

  await cluster.service("local", "a", {
    type: "NodePort",
    externalTrafficPolicy: "Local",
    ports: [{ port: 80, nodePort: 30_080 }],
  });
  await eventually("the node port is there", async () => {
    try {
      return await cluster.on("cp", get("http://10.99.0.1:30080")) === "a";
    } catch {
      return false;
    }
  }, 60_000);
  assert.match(
    await cluster.on("cp", get("http://10.99.0.1:30080/cgi-bin/who")),
    /10\.99\.0\.100\]?$/,
  );
  console.log("a node port with externalTrafficPolicy Local keeps the client's address");
}

/** What an operator sees: by commands in an agent's pod, on the page, and by Events while an agent hangs. */
async function seen(cluster: Cluster): Promise<void> {
  for (const command of ["status", "peers", "mesh", "doctor"]) {
    await cluster.kubectl("-n", NAMESPACE, "exec", "ds/denim", "--", "denim", command);
  }
  assert.match(await cluster.on(1, "curl -fsS http://127.0.0.1:8081/"), /<title>denim/);
  const found = async () =>
    await cluster.kubectl(
      ...["get", "events", "--field-selector=reason=PeersInTrouble", "-o"],
      "jsonpath={range .items[*]}{.involvedObject.name} {.message}{end}",
    );
  const agent = (signal: string) =>
    cluster.on(
      2,
      `here=$(readlink /proc/self/ns/net)
      for process in /proc/[0-9]*; do
        [ "$(readlink $process/ns/net)" = "$here" ] || continue
        if grep -q kube-subnet-mgr $process/cmdline; then kill -${signal} \${process#/proc/}; fi
      done`,
    );
  const strickenMs = performance.now();
  await agent("STOP");
  await eventually("Events of the others", async () => {
    const told = await found();
    return /\bn1 .*no-agent/.test(told) && /\bn3 .*no-agent/.test(told);
  }, 30_000);
  say("the other nodes' Events tell of an agent that hangs", strickenMs);
  const mendedMs = performance.now();
  await agent("CONT");
  await eventually("no such Events", async () => await found() === "", 30_000);
  say("and that all is well", mendedMs);
}

function say(what: string, startMs: number): void {
  console.log(`${what} after ${((performance.now() - startMs) / 1000).toFixed(1)} s`);
}

const parts = Deno.args.length === 0 ? Object.keys(PARTS) : Deno.args;
const unknown = parts.filter((part) => !Object.hasOwn(PARTS, part));
if (unknown.length > 0) {
  console.error(`${unknown.join()}: the parts are ${Object.keys(PARTS).join(", ")}`);
  Deno.exit(2);
}
for (const part of parts) {
  console.log(`${part}: with ${DENIM_IMAGE}${part === "flannel" ? ` and ${FLANNEL_IMAGE}` : ""}`);
  await PARTS[part]!();
}
