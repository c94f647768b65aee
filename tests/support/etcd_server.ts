/**
 * A real etcd, Debian's, for one test, and `etcdctl` as a witness that shares no code with denim.
 *
 * @module
 */

import type { NetworkNamespace } from "@denim/core/linux/namespace";
import { getAvailablePort } from "@std/net/get-available-port";
import { eventually } from "./wait.ts";

const LOOPBACK = "127.0.0.1";

/** How a server is set up. */
export interface EtcdServerOptions {
  /** The host at which clients reach it, on any address of the machine; 127.0.0.1 alone unless given. */
  readonly host?: string;
  /** The namespace to run in; the test's own unless given. */
  readonly namespace?: NetworkNamespace;
  /** Flags more, which may give it TLS. */
  readonly args?: readonly string[];
  /** `http` unless given. */
  readonly scheme?: "http" | "https";
  /** Flags for `etcdctl`, which has to get in as well. */
  readonly clientArgs?: readonly string[];
}

/** A server that is gone, with its data, when its scope ends. */
export class EtcdServer implements AsyncDisposable {
  /** Where clients reach it. */
  readonly url: string;
  readonly #options: EtcdServerOptions;
  readonly #directory: string;
  readonly #localUrl: string;
  readonly #listenUrl: string;
  readonly #peerUrl: string;
  /** The cluster's members with their peer URLs, as etcd's flag has them. */
  #members: string;
  #process: Deno.ChildProcess | undefined;

  private constructor(options: EtcdServerOptions) {
    this.#options = options;
    const { host = LOOPBACK, scheme = "http" } = options;
    const port = (fixed: number) => options.namespace === undefined ? getAvailablePort() : fixed;
    const clientPort = port(2379);
    this.url = `${scheme}://${host}:${clientPort}`;
    this.#localUrl = `${scheme}://${LOOPBACK}:${clientPort}`;
    this.#listenUrl = `${scheme}://${
      options.host === undefined ? LOOPBACK : "0.0.0.0"
    }:${clientPort}`;
    this.#peerUrl = `http://${LOOPBACK}:${port(2380)}`;
    this.#directory = Deno.makeTempDirSync({ prefix: "denim-etcd-" });
    this.#members = this.#member;
  }

  get #member(): string {
    return `${this.#name}=${this.#peerUrl}`;
  }

  /** Of its own within a cluster. */
  get #name(): string {
    return this.#directory.replace(/^.*\//, "");
  }

  /** Makes a cluster of several and starts them. */
  static async startCluster(size: number): Promise<readonly EtcdServer[] & AsyncDisposable> {
    return await attempt(async () => {
      const servers = Array.from({ length: size }, () => new EtcdServer({}));
      for (const server of servers) server.#members = servers.map((one) => one.#member).join(",");
      const cluster = Object.assign(servers, {
        async [Symbol.asyncDispose]() {
          await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
        },
      });
      try {
        await Promise.all(servers.map((server) => server.start()));
        return cluster;
      } catch (error) {
        await cluster[Symbol.asyncDispose]();
        throw error;
      }
    });
  }

  /** Whether it leads its cluster. */
  leads(): boolean {
    const [{ Status }] = JSON.parse(this.ctl("endpoint", "status", "-w", "json"));
    return Status.leader === Status.header.member_id;
  }

  /** Makes another member the cluster's leader; to be asked of the one that leads. */
  handOver(to: EtcdServer): void {
    // The number is larger than JSON's are.
    const [, id] = to.ctl("endpoint", "status", "-w", "simple").split(", ");
    this.ctl("move-leader", id!);
  }

  /** The number of watches that it serves. */
  async watches(): Promise<number> {
    return await this.metric("etcd_debugging_mvcc_watcher_total");
  }

  /** Makes one and starts it. */
  static async start(options: EtcdServerOptions = {}): Promise<EtcdServer> {
    return await attempt(async () => {
      const server = new EtcdServer(options);
      try {
        await server.start();
        return server;
      } catch (error) {
        await server[Symbol.asyncDispose]();
        throw error;
      }
    });
  }

  /** Starts it again after {@link EtcdServer.stop}, with the data that it had. */
  async start(): Promise<void> {
    const log = `${this.#directory}/log`;
    Deno.writeTextFileSync(log, "");
    const args = [
      ...["--name", this.#name, "--data-dir", `${this.#directory}/data`],
      ...["--listen-client-urls", this.#listenUrl, "--advertise-client-urls", this.url],
      ...["--listen-peer-urls", this.#peerUrl, "--initial-advertise-peer-urls", this.#peerUrl],
      ...["--initial-cluster", this.#members],
      ...["--logger", "zap", "--log-outputs", log, "--enable-grpc-gateway=false"],
      ...this.#options.args ?? [],
    ];
    const command = new Deno.Command("etcd", {
      args,
      env: { ETCD_UNSUPPORTED_ARCH: Deno.build.arch === "aarch64" ? "arm64" : "" },
      stdin: "null",
      stdout: "null",
      stderr: "null",
    });
    const spawn = () => command.spawn();
    const process = this.#options.namespace?.run(spawn) ?? spawn();
    this.#process = process;
    let ended = false;
    process.status.then(() => ended = true);
    await eventually("etcd is ready", () => {
      if (ended) throw new Error(`etcd ended:\n${Deno.readTextFileSync(log)}`);
      return /serving (insecure )?client/.test(Deno.readTextFileSync(log));
    }, 20_000);
  }

  /** Ends it; its data stay. */
  async stop(how: "SIGTERM" | "SIGKILL" = "SIGKILL"): Promise<void> {
    this.signal(how);
    await this.#process?.status;
    this.#process = undefined;
  }

  /** Sends its process a signal, such as SIGSTOP. One that has ended by itself hears nothing. */
  signal(how: Deno.Signal): void {
    try {
      this.#process?.kill(how);
    } catch (error) {
      // Deno's words for a process that it has waited for.
      if (!(error instanceof TypeError)) throw error;
    }
  }

  /** Deletes its data, as if it were set up again. To be called while it is stopped. */
  wipe(): void {
    Deno.removeSync(`${this.#directory}/data`, { recursive: true });
  }

  /** Runs `etcdctl` and returns what it prints. Throws what it complains of. */
  ctl(...args: string[]): string {
    return this.#ctl(args);
  }

  /** Makes an etcd lease and returns its id, in hexadecimal. */
  grant(seconds: number): string {
    return /lease ([0-9a-f]+) granted/.exec(this.ctl("lease", "grant", `${seconds}`))![1]!;
  }

  /** Runs `etcdctl`'s commands in one transaction, at most 128. */
  txn(commands: readonly string[]): void {
    const input = `${this.#directory}/txn`;
    Deno.writeTextFileSync(input, `\n${commands.join("\n")}\n\n\n`);
    this.#ctl(["txn"], input);
  }

  #ctl(args: readonly string[], input = "/dev/null"): string {
    const flags = ["--endpoints", this.#localUrl, ...this.#options.clientArgs ?? [], ...args];
    const command = new Deno.Command("sh", {
      args: ["-c", 'input="$1"; shift; exec etcdctl "$@" <"$input"', "etcdctl", input, ...flags],
      env: { ETCDCTL_API: "3" },
    });
    const run = () => command.outputSync();
    const { success, stdout, stderr } = this.#options.namespace?.run(run) ?? run();
    const decoder = new TextDecoder();
    if (!success) throw new Error(`etcdctl ${args.join(" ")}: ${decoder.decode(stderr)}`);
    return decoder.decode(stdout);
  }

  /** The present revision. */
  revision(): number {
    return JSON.parse(this.ctl("get", "x", "-w", "json")).header.revision;
  }

  /** A counter of the server's own (`/metrics`), summed over its labels' values that match. */
  async metric(name: string, labels: RegExp = /./): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    return text.split("\n")
      .filter((line) => /[ {]/.test(line[name.length] ?? "") && line.startsWith(name))
      .filter((line) => labels.test(line))
      .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  }

  /** Ends it and removes its data. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process !== undefined) {
      this.signal("SIGKILL");
      await this.stop();
    }
    Deno.removeSync(this.#directory, { recursive: true });
  }
}

/** Starts something on ports that were free, three times at most: in the meantime another may have taken one. */
async function attempt<T>(start: () => Promise<T>): Promise<T> {
  for (let left = 2;; left--) {
    try {
      return await start();
    } catch (error) {
      if (left === 0) throw error;
    }
  }
}
