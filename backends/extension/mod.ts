/**
 * The extension backend: commands in net-conf do what a backend does. For trying out a way of carrying
 * packets before it is worth a backend of its own. Commands, environment and standard input are flannel's.
 *
 * @module
 */

import {
  anyCase,
  type Backend,
  type BackendSession,
  type Cidr,
  type Family,
  type IpAddress,
  type KernelState,
  type Lease,
  leaseHalf,
  messageOf,
  type NodeContext,
  type Peer,
  RuntimeError,
  sleep,
} from "@denim/core";
import { z, type ZodType } from "zod";
import { PeerCommands } from "./peer_commands.ts";
import { type CommandOutput, runCommand } from "./run_command.ts";

/** How often a command without which the node can't go on is tried … */
const START_ATTEMPTS = 5;
/** … with waits from this, doubling. */
const START_RETRY_MS = 500;

/** net-conf's `Backend` object, with flannel's names. A command that is empty is not run. */
export interface ExtensionOptions {
  /** Run before the node has its lease; what it writes to standard output is published. */
  readonly PreStartupCommand: string;
  /**
   * Run when the node has its lease, with `NETWORK`, `SUBNET`, `PUBLIC_IP`, and `IPV6NETWORK`, `IPV6SUBNET`,
   * `PUBLIC_IPV6`; those of a family that the cluster does not use are empty.
   */
  readonly PostStartupCommand: string;
  /**
   * Run for each peer at the start, when it comes and when it changes, with its `SUBNET`, `PUBLIC_IP`,
   * `IPV6SUBNET` and `PUBLIC_IPV6`, and what it published on standard input.
   */
  readonly SubnetAddCommand: string;
  /** Run for each peer when it leaves and before it changes, as `SubnetAddCommand` was. */
  readonly SubnetRemoveCommand: string;
  /** How long a command may take, in seconds (30). Not flannel's. */
  readonly CommandTimeoutSeconds: number;
  /** The MTU for pods, in bytes; 0 stands for the outer device's, flannel's choice (0). Not flannel's. */
  readonly MTU: number;
}

const command = z.string().default("");
const options: ZodType<ExtensionOptions> = anyCase(z.object({
  PreStartupCommand: command,
  PostStartupCommand: command,
  SubnetAddCommand: command,
  SubnetRemoveCommand: command,
  CommandTimeoutSeconds: z.number().positive().max(3600).default(30),
  MTU: z.int().min(0).max(65_535).default(0),
}));

const peerData: ZodType<string> = z.string().default("");

/** The backend, for `runAgent`. */
export const extension: Backend<ExtensionOptions, string> = {
  type: "extension",
  leaseType: "extension",
  options,
  peerData,
  open: (node, options) => ExtensionSession.open(node, options),
};

class ExtensionSession implements BackendSession<string> {
  readonly mtuBytes: number;
  readonly publishes: ReadonlyMap<Family, string>;
  readonly #node: NodeContext;
  readonly #options: ExtensionOptions;
  readonly #ending: AbortController;
  readonly #signal: AbortSignal;
  readonly #peers: PeerCommands<Peer<string>>;

  private constructor(
    node: NodeContext,
    options: ExtensionOptions,
    ending: AbortController,
    published: string,
  ) {
    this.#node = node;
    this.#options = options;
    this.#ending = ending;
    this.#signal = AbortSignal.any([node.signal, ending.signal]);
    this.mtuBytes = options.MTU || node.outer.mtuBytes;
    // flannel writes it once, whatever the families.
    this.publishes = new Map(
      published === "" ? [] : [[node.config.families[0]!.family, published]],
    );
    const steps = {
      add: (peer: Peer<string>) => this.#runForPeer("SubnetAddCommand", peer),
      remove: (peer: Peer<string>) => this.#runForPeer("SubnetRemoveCommand", peer),
    };
    this.#peers = new PeerCommands(steps, node.log, this.#signal);
  }

  static async open(node: NodeContext, options: ExtensionOptions): Promise<ExtensionSession> {
    const { PreStartupCommand } = options;
    const published = PreStartupCommand === ""
      ? ""
      : await insist(node, () => run(node, options, "PreStartupCommand", {}, "", node.signal));
    return new ExtensionSession(node, options, new AbortController(), published);
  }

  node(): KernelState {
    return [];
  }

  peer(): KernelState {
    return [];
  }

  async leased(own: Lease): Promise<void> {
    if (this.#options.PostStartupCommand === "") return;
    const network = (family: Family) =>
      this.#node.config.families.find((config) => config.family === family)?.network;
    const variables = {
      NETWORK: `${network(4) ?? ""}`,
      IPV6NETWORK: `${network(6) ?? ""}`,
      ...lookOf((family) => leaseHalf(own, family)),
    };
    await insist(
      this.#node,
      () => run(this.#node, this.#options, "PostStartupCommand", variables, "", this.#signal),
    );
  }

  peersChanged(put: Iterable<Peer<string>>, removed: Iterable<string>): void {
    for (const key of removed) this.#peers.want(key, undefined);
    for (const peer of put) this.#peers.want(peer.key, peer);
  }

  async #runForPeer(
    name: "SubnetAddCommand" | "SubnetRemoveCommand",
    { halves }: Peer<string>,
  ): Promise<void> {
    if (this.#options[name] === "") return;
    const variables = lookOf((family) => halves.find(({ subnet }) => subnet.family === family));
    const input = halves.find(({ data }) => data !== "")?.data ?? "";
    await run(this.#node, this.#options, name, variables, input, this.#signal);
  }

  /** Kills what still runs. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    return Promise.resolve();
  }
}

/** A node's subnets and addresses, under flannel's names. */
function lookOf(
  half: (family: Family) => { subnet: Cidr; publicIp: IpAddress } | undefined,
): Record<string, string> {
  return {
    SUBNET: `${half(4)?.subnet ?? ""}`,
    PUBLIC_IP: `${half(4)?.publicIp ?? ""}`,
    IPV6SUBNET: `${half(6)?.subnet ?? ""}`,
    PUBLIC_IPV6: `${half(6)?.publicIp ?? ""}`,
  };
}

type CommandName = Exclude<keyof ExtensionOptions, "CommandTimeoutSeconds" | "MTU">;

/** Runs one of the commands and resolves to what it wrote to standard output. */
async function run(
  { log }: NodeContext,
  options: ExtensionOptions,
  name: CommandName,
  variables: Readonly<Record<string, string>>,
  input: string,
  signal: AbortSignal,
): Promise<string> {
  const timeoutMs = options.CommandTimeoutSeconds * 1000;
  const written: CommandOutput = await runCommand(
    options[name],
    { name, variables, input, timeoutMs, signal },
  );
  const { output, errors } = written;
  const subject = variables.SUBNET || variables.IPV6SUBNET;
  log.info(`${name} ran${subject ? ` for ${subject}` : ""}`, {
    ...output && { output },
    ...errors && { errors },
  });
  return output;
}

/** Tries what must succeed several times. */
async function insist<T>({ log, signal }: NodeContext, work: () => Promise<T>): Promise<T> {
  for (let attempt = 1, waitMs = START_RETRY_MS;; attempt++, waitMs *= 2) {
    try {
      return await work();
    } catch (error) {
      if (signal.aborted || attempt === START_ATTEMPTS) throw error;
      log.warn(`${messageOf(error)}; trying again`);
    }
    if (!await sleep(waitMs, signal)) throw new RuntimeError("the node stops");
  }
}
