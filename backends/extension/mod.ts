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
  Backoff,
  type BackoffOptions,
  type Cidr,
  type Family,
  type IpAddress,
  type KernelState,
  type Lease,
  leaseHalf,
  MAX_PACKET_BYTES,
  messageOf,
  type NodeContext,
  type Peer,
  RuntimeError,
  sleep,
  throwDefect,
} from "@denim/core";
import * as z from "zod";
import { PeerCommands, type PeerSteps } from "./peer_commands.ts";
import { type CommandOutput, MAX_OUTPUT_BYTES, runCommand } from "./run_command.ts";

/** How often a command is tried without which the node can't go on. */
const START_ATTEMPTS = 5;
/** The waits between, each twice the one before. */
const START_BACKOFF: BackoffOptions = { minMs: 500, maxMs: 4_000 };

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
const options: z.ZodType<ExtensionOptions> = anyCase(z.object({
  PreStartupCommand: command,
  PostStartupCommand: command,
  SubnetAddCommand: command,
  SubnetRemoveCommand: command,
  CommandTimeoutSeconds: z.number().positive().max(3600).default(30),
  MTU: z.int().min(0).max(MAX_PACKET_BYTES).default(0),
}));

const peerData: z.ZodType<string> = z.string().default("");

/** The backend, for `runAgent`. */
export const extension: Backend<ExtensionOptions, string> = {
  type: "extension",
  leaseType: "extension",
  options,
  peerData,
  // What its commands need, they alone know.
  needs: () => ({ state: [] }),
  open: (node, options) => ExtensionSession.open(node, options),
};

class ExtensionSession implements BackendSession<string> {
  readonly mtuBytes: number;
  readonly publishes: ReadonlyMap<Family, string>;
  readonly #node: NodeContext;
  readonly #options: ExtensionOptions;
  readonly #commands: PeerCommands;
  readonly #peers = new Map<string, PeerSteps>();

  private constructor(node: NodeContext, options: ExtensionOptions, published: string) {
    this.#node = node;
    this.#options = options;
    this.#commands = node.scope.get(PeerCommands, () => new PeerCommands(node));
    this.mtuBytes = options.MTU || node.outer.mtuBytes;
    // flannel writes it once, whatever the families.
    this.publishes = new Map(
      published === "" ? [] : [[node.config.families[0]!.family, published]],
    );
  }

  static async open(node: NodeContext, options: ExtensionOptions): Promise<ExtensionSession> {
    const { output, cut } = await insist(node, () => run(node, options, "PreStartupCommand"));
    if (!cut) return new ExtensionSession(node, options, output);
    throw new RuntimeError(
      `PreStartupCommand wrote more than ${MAX_OUTPUT_BYTES} bytes, too much to be published`,
    );
  }

  nodeState(): KernelState {
    return [];
  }

  peerState(): KernelState {
    return [];
  }

  async onLeased(own: Lease): Promise<void> {
    const network = (family: Family) =>
      this.#node.config.families.find((config) => config.family === family)?.network;
    const variables = {
      NETWORK: `${network(4) ?? ""}`,
      IPV6NETWORK: `${network(6) ?? ""}`,
      ...lookOf((family) => leaseHalf(own, family)),
    };
    await insist(
      this.#node,
      () => run(this.#node, this.#options, "PostStartupCommand", variables),
    );
  }

  peersChanged(put: Iterable<Peer<string>>, removed: Iterable<string>): void {
    for (const key of removed) this.#remove(key);
    for (const peer of put) {
      const steps = {
        add: () => this.#runForPeer("SubnetAddCommand", peer),
        remove: () => this.#runForPeer("SubnetRemoveCommand", peer),
      };
      this.#peers.set(peer.key, steps);
      this.#commands.want(peer.key, steps);
    }
  }

  #remove(key: string): void {
    const steps = this.#peers.get(key);
    if (steps === undefined) return;
    this.#peers.delete(key);
    this.#commands.drop(key, steps);
  }

  async #runForPeer(
    name: "SubnetAddCommand" | "SubnetRemoveCommand",
    { halves }: Peer<string>,
  ): Promise<void> {
    const variables = lookOf((family) => halves.find(({ subnet }) => subnet.family === family));
    const input = halves.find(({ data }) => data !== "")?.data ?? "";
    await run(this.#node, this.#options, name, variables, input);
  }

  /** Removes the peers, if the node goes on; if it stops, they stay. */
  [Symbol.asyncDispose](): Promise<void> {
    for (const key of this.#peers.keys()) this.#remove(key);
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

/** Runs one of the commands, unless it is empty. */
async function run(
  { log, signal }: NodeContext,
  options: ExtensionOptions,
  name: CommandName,
  variables: Readonly<Record<string, string>> = {},
  input = "",
): Promise<CommandOutput> {
  const command = options[name];
  if (command === "") return { output: "", errors: "", cut: false };
  const timeoutMs = options.CommandTimeoutSeconds * 1000;
  const written = await runCommand(command, { name, variables, input, timeoutMs, signal });
  const { output, errors } = written;
  const subject = variables.SUBNET || variables.IPV6SUBNET;
  log.info("command-ran", `${name} ran${subject ? ` for ${subject}` : ""}`, {
    ...output && { output },
    ...errors && { errors },
  });
  return written;
}

/** Tries several times what must succeed. */
async function insist<T>({ log, signal }: NodeContext, work: () => Promise<T>): Promise<T> {
  const backoff = new Backoff(START_BACKOFF);
  for (let attempt = 1;; attempt++) {
    try {
      return await work();
    } catch (error) {
      throwDefect(error);
      if (signal.aborted || attempt === START_ATTEMPTS) throw error;
      log.warn("command-retried", `${messageOf(error)}; trying again`);
    }
    await sleep(backoff.next(), signal);
    signal.throwIfAborted();
  }
}
