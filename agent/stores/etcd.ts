/**
 * `--store etcd`: leases in etcd, with flannel's flags.
 *
 * @module
 */

import { ConfigError, type Logger, type Metrics } from "@denim/core";
import type { EtcdStore } from "@denim/core/stores/etcd";
import { flag, type ParsedFlags } from "../flag_table.ts";
import { single, text } from "../flag_types.ts";
import type { StoreKind } from "./store_kind.ts";

/** Which etcd, and how to get in. */
export interface EtcdSpec {
  /** The servers' URLs. */
  readonly endpoints: readonly string[];
  /** What all keys begin with. */
  readonly prefix: string;
  /** The user to act as. */
  readonly username: string | undefined;
  /** The user's password; it is never logged. */
  readonly password: string | undefined;
  /** The file with the client's certificate. */
  readonly certFile: string | undefined;
  /** The file with the client's private key. */
  readonly keyFile: string | undefined;
  /** The file with the CAs that may have signed the servers' certificates. */
  readonly caFile: string | undefined;
}

/** flannel's. Of the two, one is enough. */
const DEFAULT_ENDPOINTS = "http://127.0.0.1:4001,http://127.0.0.1:2379";

const FLAGS = [
  flag(
    "etcd-endpoints",
    single("URLS", parseEndpoints),
    "URLs of etcd's servers, comma-separated; one that answers is enough",
    DEFAULT_ENDPOINTS,
  ),
  flag("etcd-prefix", text("KEY"), "what all keys in etcd begin with", "/coreos.com/network"),
  flag("etcd-cafile", text("PATH"), "CAs of etcd's certificate; the system's unless given"),
  flag("etcd-certfile", text("PATH"), "certificate to show to etcd"),
  flag("etcd-keyfile", text("PATH"), "private key of that certificate"),
  flag("etcd-username", text("NAME"), "user to act as in etcd"),
  flag(
    "etcd-password",
    text("TEXT"),
    "that user's password; better given as FLANNELD_ETCD_PASSWORD, since all users see arguments",
  ),
] as const;

type EtcdFlags = ParsedFlags<typeof FLAGS[number]>;

/** etcd, chosen by any of its flags. A cluster's net-conf is its administrator's to write: no file seeds it. */
export const etcd = {
  name: "etcd",
  usage: "etcd",
  flags: FLAGS,
  chosenBy: FLAGS.map(({ name }) => name),
  parse(place, flags) {
    if (place !== undefined) {
      throw new ConfigError(`--store etcd:${place}: --etcd-endpoints says where etcd is`);
    }
    const { values, label } = flags;
    const [username, password] = [values["etcd-username"], values["etcd-password"]];
    const [certFile, keyFile] = [values["etcd-certfile"], values["etcd-keyfile"]];
    if (password !== undefined && username === undefined) {
      throw new ConfigError(`${label("etcd-password")} needs --etcd-username`);
    }
    if ((certFile === undefined) !== (keyFile === undefined)) {
      throw new ConfigError("--etcd-certfile and --etcd-keyfile go together: give both or neither");
    }
    return {
      endpoints: values["etcd-endpoints"],
      prefix: values["etcd-prefix"],
      username,
      password,
      certFile,
      keyFile,
      caFile: values["etcd-cafile"],
    };
  },
  async open(spec, { log, metrics, netConfFile: { path, isNamed } }) {
    if (isNamed) {
      log.warn(
        "net-conf-file-ignored",
        `--net-config-path ${path} is ignored: etcd has the net-conf; ` +
          `\`denim config set ${path}\` writes the file into etcd`,
      );
    }
    return await openEtcd(spec, { log, metrics, patient: true });
  },
  openAdmin: (spec, { log }) => openEtcd(spec, { log, patient: false }),
} satisfies StoreKind<typeof FLAGS[number], EtcdSpec>;

/** How the store's messages name what flags give it. */
const NAMES = {
  caFile: "--etcd-cafile",
  certFile: "--etcd-certfile",
  keyFile: "--etcd-keyfile",
  username: "--etcd-username",
  password: "FLANNELD_ETCD_PASSWORD",
};

async function openEtcd(
  spec: EtcdSpec,
  options: { readonly log: Logger; readonly patient: boolean; readonly metrics?: Metrics },
): Promise<EtcdStore> {
  const { EtcdStore } = await import("@denim/core/stores/etcd");
  return EtcdStore.open({ ...spec, ...options, ...{ names: NAMES } });
}

function parseEndpoints(text: string): readonly string[] {
  const endpoints = text.split(",").map((part) => part.trim()).filter((part) => part !== "");
  if (endpoints.length === 0) throw new ConfigError("it names no server");
  return endpoints.map(parseEndpoint);
}

/** No scheme means `http`, as in etcd's own client; no port means etcd's. */
function parseEndpoint(text: string): string {
  if (text.includes("@")) {
    throw new ConfigError(
      "a URL holds a user's name or password; give --etcd-username, and the password as " +
        "FLANNELD_ETCD_PASSWORD",
    );
  }
  const url = URL.parse(/^[a-z]+:\/\//i.test(text) ? text : `http://${text}`);
  if (
    url === null || !["http:", "https:"].includes(url.protocol) || url.pathname !== "/" ||
    url.search !== "" || url.hash !== ""
  ) throw new ConfigError(`"${text}" is not a URL such as http://10.0.0.1:2379`);
  // A URL keeps no port that is its scheme's own.
  const port = url.port || (/:(80|443)\/?$/.exec(text)?.[1] ?? "2379");
  return `${url.protocol}//${url.hostname}:${port}`;
}
