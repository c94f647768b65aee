/**
 * Programs that get a user credentials, as clouds have them: client-go's exec plugins
 * (https://kubernetes.io/docs/reference/config-api/client-authentication.v1).
 *
 * @module
 */

import { resolve } from "node:path";
import * as z from "zod";
import { ConfigError, messageOf, RuntimeError, throwDefect } from "../../mod.ts";

/** A kubeconfig's `exec`. */
export const execPlugin = z.object({
  apiVersion: z.enum(["client.authentication.k8s.io/v1"]),
  command: z.string().min(1),
  args: z.array(z.string()).nullish(),
  env: z.array(z.object({ name: z.string(), value: z.string() })).nullish(),
  installHint: z.string().nullish(),
  provideClusterInfo: z.boolean().nullish(),
  interactiveMode: z.string().nullish(),
});

const status = z.object({
  expirationTimestamp: z.string().nullish(),
  token: z.string().optional(),
  clientCertificateData: z.string().optional(),
  clientKeyData: z.string().optional(),
});

const execCredential = z.object({ apiVersion: execPlugin.shape.apiVersion, status });

/** What a plugin gives: a token, or a certificate and its key in PEM, or both. */
export type ExecCredential = z.output<typeof status>;

/** How a plugin is run. */
export interface ExecSourceOptions {
  /** How messages name whose plugin it is. */
  readonly where: string;
  /** The kubeconfig's directory, from which a command with a slash in it is found. */
  readonly directory: string;
  /** The kubeconfig's `exec`. */
  readonly plugin: z.output<typeof execPlugin>;
  /** What it is told of the cluster, if it wants to be. */
  readonly cluster: Readonly<Record<string, unknown>>;
}

/** Plugins by what they are run with. */
export type Plugins = Map<string, ExecSource>;

/** The plugin that is run in this way, with what it gave; a new one if there is none. */
export function findPlugin(plugins: Plugins, options: ExecSourceOptions): ExecSource {
  const key = JSON.stringify(options);
  const found = plugins.get(key) ?? new ExecSource(options);
  plugins.set(key, found);
  return found;
}

/** A plugin, and the credential that it gave last. */
export class ExecSource {
  readonly #options: ExecSourceOptions;
  #credential: ExecCredential | undefined;

  /** Nothing is run yet. Throws a ConfigError if the plugin would have to ask a person. */
  constructor(options: ExecSourceOptions) {
    this.#options = options;
    const { where, plugin } = options;
    if (plugin.interactiveMode === "Always") {
      throw new ConfigError(
        `${where}: the plugin ${plugin.command} asks a person (interactiveMode Always), and an agent runs ` +
          "without one: use another user",
      );
    }
  }

  /**
   * The credential that holds now; runs the plugin if it gave none yet, or one that has expired. Rejects with
   * a ConfigError if there is no such program, and with a RuntimeError if it fails.
   */
  async credential(signal: AbortSignal): Promise<ExecCredential> {
    const until = this.#credential?.expirationTimestamp;
    const expired = until != null && Date.parse(until) <= Date.now();
    if (this.#credential === undefined || expired) this.#credential = await this.#run(signal);
    return this.#credential;
  }

  async #run(signal: AbortSignal): Promise<ExecCredential> {
    const { where, directory, plugin, cluster } = this.#options;
    const { command, apiVersion } = plugin;
    const path = command.includes("/") ? resolve(directory, command) : command;
    const spec = { interactive: false, ...plugin.provideClusterInfo ? { cluster } : {} };
    const info = JSON.stringify({ kind: "ExecCredential", apiVersion, spec });
    const env = Object.fromEntries(plugin.env?.map(({ name, value }) => [name, value]) ?? []);
    let output: Deno.CommandOutput;
    try {
      output = await new Deno.Command(path, {
        args: plugin.args ?? [],
        env: { ...env, KUBERNETES_EXEC_INFO: info },
        stdin: "null",
        signal,
      }).output();
    } catch (error) {
      if (error !== signal.reason) throwDefect(error);
      signal.throwIfAborted();
      const hint = plugin.installHint ? `; ${plugin.installHint.trim()}` : "";
      throw new ConfigError(
        `${where}: the plugin ${path} can't be run: ${messageOf(error)}${hint}`,
        { cause: error },
      );
    }
    signal.throwIfAborted();
    const decoder = new TextDecoder();
    if (!output.success) {
      const said = decoder.decode(output.stderr).trim().split("\n").at(-1);
      throw new RuntimeError(`${where}: the plugin ${path} failed with ${output.code}: ${said}`);
    }
    const { success, data } = execCredential.safeParse(tryJson(decoder.decode(output.stdout)));
    const hasCert = data?.status.clientCertificateData !== undefined;
    const paired = hasCert === (data?.status.clientKeyData !== undefined);
    if (!success || !paired || data.status.token === undefined && !hasCert) {
      // Nothing of what it printed: it may be a token.
      throw new RuntimeError(
        `${where}: the plugin ${path} printed no ExecCredential of ${apiVersion} with a token, or a ` +
          "certificate and its key",
      );
    }
    return data.status;
  }
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
