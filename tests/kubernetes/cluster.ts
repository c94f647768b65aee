/**
 * A real Kubernetes on this machine, with each node in namespaces of its own. The program that makes it is not
 * denim's: `CLUSTER` names it, and it has to know `up N`, `down`, `in NODE COMMAND` (`cp`: the control plane's network),
 * `kubectl …` and `load NODE ARCHIVE`.
 *
 * @module
 */

import assert from "node:assert/strict";
import { IpAddress } from "@denim/core";
import { NetworkNamespace } from "@denim/core/linux/namespace";
import { SteadyPing } from "../faults/steady_ping.ts";
import { eventually } from "../support/wait.ts";
import { helmProgram } from "./helm.ts";

/** The image of busybox that every node has. */
const BUSYBOX = "denim.test/busybox:1";
/** A loaded machine takes long to start a pod. */
const PATIENCE_MS = 180_000;

/** A pod that runs. */
export interface ClusterPod {
  /** Its name. */
  readonly name: string;
  /** Its IPv4 address. */
  readonly address: string;
  /** Opens its network namespace. */
  open(): NetworkNamespace;
}

/** What a pod is to be, beside its name and its node. */
export interface PodOptions {
  /** A port of the node that leads to port 80 of the pod. */
  readonly hostPort?: number;
}

/** The cluster. */
export class Cluster implements AsyncDisposable {
  readonly #program: string;
  readonly #directory: string;
  /** The numbers of the nodes: node 1 is named `n1` and has the address 10.99.0.1. */
  readonly nodes: readonly number[];

  private constructor(program: string, nodes: number) {
    this.#program = program;
    this.#directory = Deno.env.get("KDIR") ?? "/tmp/denim-cluster";
    this.nodes = Array.from({ length: nodes }, (_, index) => index + 1);
  }

  /** Makes one. Its nodes have no network yet. */
  static async up(nodes: number, proxyMode: string): Promise<Cluster> {
    const program = Deno.env.get("CLUSTER");
    if (program === undefined) {
      throw new Error("CLUSTER has to name the program that makes a cluster");
    }
    const cluster = new Cluster(program, nodes);
    await cluster.#call(["down"]);
    await cluster.#call(["up", `${nodes}`], { PROXY_MODE: proxyMode });
    return cluster;
  }

  /** Ends it and removes everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#call(["down"]);
  }

  async #call(
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
    input = "",
  ): Promise<string> {
    // Files, not pipes: what it starts and leaves running would keep those open.
    const output = Deno.makeTempFileSync({ prefix: "denim-cluster-" });
    try {
      const child = new Deno.Command("sh", {
        args: ["-c", 'exec "$0" "$@" >"$OUTPUT" 2>"$OUTPUT.err"', this.#program, ...args],
        env: { ...env, OUTPUT: output },
        stdin: "piped",
      }).spawn();
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(input));
      await writer.close();
      const { success } = await child.status;
      const text = Deno.readTextFileSync(output);
      if (!success) {
        throw new Error(`${args.join(" ")}: ${text}${Deno.readTextFileSync(`${output}.err`)}`);
      }
      return text;
    } finally {
      Deno.removeSync(output);
      Deno.removeSync(`${output}.err`);
    }
  }

  /** Runs kubectl; what it prints. Rejects with what it complains of. */
  async kubectl(...args: readonly string[]): Promise<string> {
    return (await this.#call(["kubectl", ...args])).trim();
  }

  /** Runs helm, from the control plane's network. Rejects with what it complains of. */
  async helm(...args: readonly string[]): Promise<void> {
    const program = helmProgram();
    if (program === undefined) {
      throw new Error("there is no helm: put it on PATH, or name it with HELM");
    }
    await this.#call(["in", "cp", program, `--kubeconfig=${this.#directory}/kubeconfig`, ...args]);
  }

  /** Has Kubernetes make, or change, what a manifest says. */
  async apply(manifest: string): Promise<void> {
    await this.#call(["kubectl", "apply", "-f", "-"], {}, manifest);
  }

  /** Has Kubernetes remove what a manifest says, and waits until it is gone. */
  async delete(manifest: string): Promise<void> {
    await this.#call(["kubectl", "delete", "--ignore-not-found", "-f", "-"], {}, manifest);
  }

  /** Runs a shell script on a node, or in the control plane's network (`cp`). Rejects with what it complains of. */
  async on(node: number | "cp", script: string): Promise<string> {
    return (await this.#call(["in", `${node}`, "sh", "-ec", script])).trim();
  }

  /** Puts an image archive onto every node. */
  async load(archive: string): Promise<void> {
    for (const node of this.nodes) await this.#call(["load", `${node}`, archive]);
  }

  /** Waits until a DaemonSet's pods are ready on all nodes, or on all that it wants. */
  async rolledOut(namespace: string, name: string): Promise<void> {
    await this.kubectl(
      "-n",
      namespace,
      "rollout",
      "status",
      `ds/${name}`,
      `--timeout=${PATIENCE_MS / 1000}s`,
    );
  }

  /** Waits until all nodes are Ready. */
  async nodesReady(): Promise<void> {
    await this.kubectl(
      "wait",
      "--for=condition=Ready",
      "nodes",
      "--all",
      `--timeout=${PATIENCE_MS / 1000}s`,
    );
  }

  /** Starts a pod, whose web server answers at port 80: its name, and at `/cgi-bin/who` who asks. */
  async pod(node: number, name: string, { hostPort }: PodOptions = {}): Promise<ClusterPod> {
    const web = `mkdir -p /www/cgi-bin; echo ${name} >/www/index.html; ` +
      `printf '#!/bin/sh\\necho; echo "$REMOTE_ADDR"\\n' >/www/cgi-bin/who; chmod +x /www/cgi-bin/who; ` +
      "exec httpd -f -h /www";
    const container = {
      name: "c",
      image: BUSYBOX,
      imagePullPolicy: "Never",
      command: ["sh", "-c", web],
      ...hostPort === undefined ? {} : { ports: [{ containerPort: 80, hostPort }] },
    };
    await this.apply(JSON.stringify({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, labels: { app: name } },
      spec: { nodeName: `n${node}`, terminationGracePeriodSeconds: 0, containers: [container] },
    }));
    await this.kubectl(
      "wait",
      "--for=condition=Ready",
      `pod/${name}`,
      `--timeout=${PATIENCE_MS / 1000}s`,
    );
    const address = await this.kubectl("get", "pod", name, "-o", "jsonpath={.status.podIP}");
    const pid = await this.on(
      node,
      `
      ctr="ctr -a ${this.#directory}/n${node}/run/containerd.sock -n k8s.io"
      for id in $($ctr containers ls -q 'labels."io.kubernetes.pod.name"==${name}'); do
        $ctr task ls | awk -v id="$id" '$1 == id { print $2 }'
      done | head -n 1`,
    );
    return { name, address, open: () => NetworkNamespace.open(`/proc/${pid}/ns/net`) };
  }

  /** What a web server says to a pod. Rejects with what this machine's curl complains of. */
  async get({ name, open }: ClusterPod, url: string): Promise<string> {
    using namespace = open();
    const command = new Deno.Command("curl", {
      args: ["--silent", "--show-error", "--fail", "--max-time", "5", url],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
    const { success, stdout, stderr } = await namespace.run(() => command.spawn()).output();
    if (!success) throw new Error(`${name}: ${url}: ${new TextDecoder().decode(stderr)}`);
    return new TextDecoder().decode(stdout);
  }

  /** Makes a service of one pod. */
  async service(name: string, app: string, spec: object = {}): Promise<string> {
    await this.apply(JSON.stringify({
      apiVersion: "v1",
      kind: "Service",
      metadata: { name },
      spec: { selector: { app }, ports: [{ port: 80 }], ...spec },
    }));
    return await this.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}");
  }

  /**
   * Kills the API server. The result starts it again, as it was, and waits for it; and what ends without it, as a
   * controller manager does that is no leader any more.
   */
  killApiServer(): () => Promise<void> {
    const processes = Deno.readTextFileSync(`${this.#directory}/pids`).trim().split("\n")
      .flatMap((pid) => ClusterProcess.find(pid) ?? []);
    const named = (name: string) => processes.find(({ program }) => program.endsWith(`/${name}`))!;
    const server = named("kube-apiserver");
    Deno.kill(server.pid, "SIGKILL");
    return async () => {
      for (const one of [server, named("kube-controller-manager"), named("kube-scheduler")]) {
        if (ClusterProcess.find(`${one.pid}`) !== undefined) continue;
        const started = await this.on(
          "cp",
          `(${one.command} >>${one.program.split("/").at(-1)}.log 2>&1) & echo $!`,
        );
        Deno.writeTextFileSync(`${this.#directory}/pids`, `${started}\n`, { append: true });
        await eventually("the API server is ready", async () => {
          try {
            return await this.kubectl("get", "--raw", "/readyz") === "ok";
          } catch {
            return false;
          }
        }, PATIENCE_MS);
      }
    };
  }

  /** Does something under a ping of 200 packets a second, of which none may be lost; how many were sent. */
  async underPing(
    from: ClusterPod,
    to: ClusterPod,
    what: string,
    run: () => Promise<void>,
  ): Promise<void> {
    await using ping = await SteadyPing.start(from, IpAddress.parse(to.address));
    const startMs = performance.now();
    await run();
    await ping.steady(5_000);
    const { lost } = await ping.stop();
    const tookS = ((performance.now() - startMs) / 1000).toFixed(0);
    console.log(`${what}: ${lost} packets lost in ${tookS} s`);
    assert.equal(lost, 0, what);
  }

  /** What of denim's kind there is on a node: devices, addresses, routes, rules, files. */
  async inventory(node: number): Promise<string> {
    return await this.on(
      node,
      `set +e
      ip -o link | sed 's/^[0-9]*: //; s/@.*//; s/:.*//' | grep -v ^veth
      ip -o address | awk '{ print $2, $4 }' | grep -v ' fe80'
      ip route; ip -6 route | grep -v fe80; ip nexthop
      nft list tables | grep -iE 'flannel|denim'
      iptables-save 2>/dev/null | grep -iE 'flannel|denim'
      cd /; find opt/cni/bin etc/cni/net.d run/flannel run/denim var/lib/denim var/lib/cni/denim \
        var/lib/cni/networks -type f 2>/dev/null | sort`,
    );
  }
}

/** A process of the cluster's. */
class ClusterProcess {
  /** A way to start it again, for a shell. */
  readonly command: string;

  private constructor(
    readonly pid: number,
    readonly program: string,
    args: readonly string[],
    cwd: string,
  ) {
    this.command = `cd ${cwd}; exec ${[program, ...args].map((word) => `'${word}'`).join(" ")}`;
  }

  /** The one with this number; `undefined` if it has ended. */
  static find(pid: string): ClusterProcess | undefined {
    try {
      const [program, ...args] = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0").slice(
        0,
        -1,
      );
      if (program === undefined) return undefined;
      return new ClusterProcess(Number(pid), program, args, Deno.readLinkSync(`/proc/${pid}/cwd`));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  }
}
