/**
 * kubeconfig files, as kubectl has them (https://kubernetes.io/docs/reference/config-api/kubeconfig.v1).
 *
 * @module
 */

import { dirname, resolve } from "node:path";
import { parse, YAMLError } from "yaml";
import * as z from "zod";
import { ConfigError, readConfig } from "../../mod.ts";
import { type Access, readFile, readToken, serverUrl, type TlsSettings } from "./access.ts";
import { execPlugin, findPlugin, type Plugins } from "./exec_plugin.ts";

const text = z.string().nullish().transform((value) => value || undefined);

const cluster = z.object({
  "server": z.string(),
  "certificate-authority": text,
  "certificate-authority-data": text,
  "insecure-skip-tls-verify": z.boolean().nullish(),
  "tls-server-name": text,
  "proxy-url": text,
});

const user = z.object({
  "client-certificate": text,
  "client-certificate-data": text,
  "client-key": text,
  "client-key-data": text,
  "token": text,
  "tokenFile": text,
  "username": text,
  "as": text,
  "auth-provider": z.unknown().optional(),
  "exec": execPlugin.nullish(),
});

const named = <Shape extends z.ZodType, Key extends string>(key: Key, shape: Shape) =>
  z.array(
    z.object({ name: z.string(), [key]: shape } as { name: z.ZodString } & Record<Key, Shape>),
  )
    .nullish();

const kubeconfig = z.object({
  "current-context": text,
  "contexts": named("context", z.object({ cluster: z.string(), user: text })),
  "clusters": named("cluster", cluster),
  "users": named("user", user.nullish()),
});

/** What a user may be known by that denim can't do, and what to do about it. */
const REFUSED = {
  "username": "API servers take no passwords since Kubernetes 1.19: use a token or a certificate",
  "as": "denim acts as nobody else: make a kubeconfig of the user's own",
  "auth-provider": "kubectl has none since Kubernetes 1.26: use an exec plugin",
} as const;

/**
 * Reads the access of a kubeconfig's current context, with the files that it names, and runs its plugin if it
 * has one. Rejects with a ConfigError that names the file and what is wrong in it, or a RuntimeError if the
 * plugin fails.
 *
 * @param options.server the server to go to in place of the cluster's
 * @param options.plugins the plugins that ran before, with what they gave; a new one is added
 */
export async function readKubeconfig(
  path: string,
  { server, plugins }: { readonly server: string | undefined; readonly plugins: Plugins },
  signal: AbortSignal,
): Promise<Access> {
  const where = `kubeconfig ${path}`;
  const document = parseYaml(await readFile("kubeconfig", path), where);
  const config = readConfig(kubeconfig, document, where);
  const context = find(config.contexts, config["current-context"], "context", where).context;
  const cluster = find(config.clusters, context.cluster, "cluster", where).cluster;
  const user = (context.user && find(config.users, context.user, "user", where).user) || undefined;
  for (const [key, advice] of Object.entries(REFUSED)) {
    if (user?.[key as keyof typeof REFUSED] === undefined) continue;
    throw new ConfigError(`${where}: user ${context.user} has "${key}": ${advice}`);
  }
  const ofCluster = `${where}: cluster ${context.cluster}`;
  const ofUser = `${where}: user ${context.user}`;
  const directory = dirname(resolve(path));
  const pem = async (
    from: Readonly<Record<string, unknown>> | undefined,
    key: string,
    owner: string,
  ) => {
    const inline = from?.[`${key}-data`] as string | undefined;
    if (inline !== undefined) return decodeBase64(inline, `${owner}: ${key}-data`);
    const file = from?.[key] as string | undefined;
    return file && await readFile(`${owner}: ${key}`, resolve(directory, file));
  };
  const insecure = cluster["insecure-skip-tls-verify"] ?? false;
  const ca = await pem(cluster, "certificate-authority", ofCluster);
  if (insecure && ca !== undefined) {
    throw new ConfigError(
      `${ofCluster} has a certificate-authority and insecure-skip-tls-verify: leave out one of them`,
    );
  }
  const url = server ?? serverUrl(cluster.server, `${ofCluster}: server`);
  const plugin = user?.exec && findPlugin(plugins, {
    where: ofUser,
    directory,
    plugin: user.exec,
    cluster: {
      "server": url,
      "tls-server-name": cluster["tls-server-name"],
      "insecure-skip-tls-verify": insecure || undefined,
      "certificate-authority-data": ca && btoa(ca),
      "proxy-url": cluster["proxy-url"],
    },
  });
  const issued = await plugin?.credential(signal);
  const tls: TlsSettings = {
    ca,
    cert: issued?.clientCertificateData ?? await pem(user, "client-certificate", ofUser),
    key: issued?.clientKeyData ?? await pem(user, "client-key", ofUser),
    serverName: cluster["tls-server-name"],
    insecure,
  };
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    throw new ConfigError(
      `${ofUser}: a client-certificate and a client-key go together: give both`,
    );
  }
  return {
    server: url,
    tls,
    proxyUrl: cluster["proxy-url"],
    async token(signal) {
      if (user?.tokenFile !== undefined) {
        return await readToken(`${ofUser}: tokenFile`, resolve(directory, user.tokenFile));
      }
      return user?.token ?? (await plugin?.credential(signal))?.token;
    },
  };
}

function parseYaml(source: string, where: string): unknown {
  try {
    return parse(source);
  } catch (error) {
    if (!(error instanceof YAMLError)) throw error;
    const [line] = error.message.split("\n");
    // Not the lines around it: there may be a key in them.
    throw new ConfigError(`${where} is not YAML: ${line!.replace(/:$/, "")}`);
  }
}

function find<Item extends { readonly name: string }>(
  items: readonly Item[] | null | undefined,
  name: string | undefined,
  kind: string,
  where: string,
): Item {
  if (name === undefined) {
    throw new ConfigError(`${where} has no current-context: kubectl config use-context sets one`);
  }
  const found = items?.find((item) => item.name === name);
  if (found !== undefined) return found;
  const known = items?.map((item) => item.name).join(", ") || "none";
  throw new ConfigError(`${where} names the ${kind} ${name}, but has ${known}`);
}

function decodeBase64(text: string, where: string): string {
  try {
    return atob(text.replace(/\s/g, ""));
  } catch {
    // Nothing of what is in it: it may be a key.
    throw new ConfigError(`${where} is not base64`);
  }
}
