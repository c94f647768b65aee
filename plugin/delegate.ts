/**
 * Hands the work to another plugin (CNI spec 1.1.0, section 4, "Plugin Delegation"): finds it on `CNI_PATH`, runs it
 * with the same environment, and gives it the configuration that flannel would give it. Loaded only when it is used.
 *
 * @module
 */

import { throwDefect } from "@denim/core/errors";
import { findLink, NetlinkSocket } from "@denim/core/linux/attach";
import { InheritedLock } from "@denim/core/linux/inherited-lock";
import { markGateway } from "./bridge.ts";
import { CNI_CODE, CniError, DelegateError, toCniError } from "./cni_error.ts";
import { ConfObject, type JsonObject, show } from "./conf_object.ts";
import {
  bridgeOf,
  BUILT_IN,
  notBuiltIn,
  readSubnetEnv,
  renderDelegate,
  typeOf,
} from "./delegate_conf.ts";
import type { CniVariables } from "./environment.ts";
import { openNamespace, openPod, refuseSecondAdd } from "./namespace.ts";
import type { NetworkConf } from "./network_conf.ts";
import {
  awaitRecord,
  hasGateway,
  lockRecords,
  pathOfRecord,
  readSavedConf,
  removeSavedConf,
  renewSavedConf,
  saveConf,
} from "./saved_conf.ts";

/**
 * ADD. It writes the record first, so that a DEL finds what to undo whatever happens. If the delegate fails, denim
 * runs its DEL, as the spec asks.
 */
export async function delegateAdd(
  conf: NetworkConf,
  variables: CniVariables,
  delegate: ConfObject,
): Promise<string> {
  const plugin = pluginFor(delegate, variables);
  using pod = openPod(variables);
  using _lock = lockRecords(conf.dataDir, "shared");
  awaitRecord(conf.dataDir, variables);
  // Before the delegate sees a second ADD: its DEL would remove what the first one made.
  refuseSecondAdd(pod, variables);
  const before = readSavedConf(conf.dataDir, variables);
  saveConf(conf.dataDir, variables, delegate);
  // The delegate has the lock too, and goes on if denim is killed.
  using _record = new InheritedLock(pathOfRecord(conf.dataDir, variables));
  try {
    markBridge(conf, delegate);
    const result = await run(plugin, "ADD", delegate.json, variables);
    markBridge(conf, delegate);
    renewSavedConf(conf.dataDir, variables);
    return result;
  } catch (error) {
    if (await undone(run(plugin, "DEL", delegate.json, variables))) {
      if (before === undefined) removeSavedConf(conf.dataDir, variables);
      else saveConf(conf.dataDir, variables, before);
    }
    throw error;
  }
}

/** Marks the bridge plugin's bridge for the agent, if it is there, as an ADD by denim's own bridge does. */
function markBridge({ dataDir }: NetworkConf, delegate: ConfObject): void {
  if (typeOf(delegate) !== BUILT_IN) return;
  using socket = new NetlinkSocket();
  const bridge = findLink(socket, bridgeOf(delegate));
  if (bridge?.type === "bridge") markGateway(socket, bridge, hasGateway(dataDir, delegate));
}

/**
 * DEL, from the record. If the container has no record, or that of an ADD to another network, the delegate gets what
 * an ADD would make of the configuration now; if nothing can be made of it, there is nothing to remove.
 */
export async function delegateDel(
  conf: NetworkConf,
  variables: CniVariables,
  record: ConfObject | undefined,
): Promise<string> {
  // A delegate would remove the node's own interface of that name.
  const called = isLost(variables) ? { ...variables, netns: "" } : variables;
  const del = (delegate: ConfObject) =>
    run(pluginFor(delegate, variables), "DEL", delegate.json, called);
  if (record !== undefined) {
    awaitRecord(conf.dataDir, variables);
    await del(record);
    removeSavedConf(conf.dataDir, variables);
    return "";
  }
  const delegate = tryTo(() => {
    const rendered = renderDelegate(conf, readSubnetEnv(conf.subnetFile));
    pluginFor(rendered, variables);
    return rendered;
  });
  if (delegate === undefined) return "";
  const deleting = del(delegate);
  if (!await undone(deleting)) await deleting;
  return "";
}

/** Whether CNI_NETNS leads to the node's own namespace, or to a file that is no longer a namespace. */
function isLost(variables: CniVariables): boolean {
  const namespace = openNamespace(variables);
  if (namespace instanceof CniError) return namespace.code === CNI_CODE.invalidNamespace;
  namespace[Symbol.dispose]();
  return false;
}

/** CHECK, with the runtime's `prevResult` and `runtimeConfig`. */
export async function delegateCheck(
  conf: NetworkConf,
  variables: CniVariables,
  delegate: ConfObject,
): Promise<string> {
  const plugin = pluginFor(delegate, variables);
  const fromRuntime = ["prevResult", "runtimeConfig"].flatMap((key) => {
    const value = conf.json.get(key);
    return value === undefined ? [] : [[key, value] as const];
  });
  const asked = { ...delegate.json, ...Object.fromEntries(fromRuntime) };
  await run(plugin, "CHECK", asked, variables);
  return "";
}

/** STATUS: checks that the delegate is there, speaks the network's version, and says that it is ready. */
export async function delegateStatus(
  conf: NetworkConf,
  variables: CniVariables,
  delegate: ConfObject,
): Promise<string> {
  let plugin: string;
  try {
    plugin = pluginFor(delegate, variables);
  } catch (error) {
    throwDefect(error);
    throw new CniError(CNI_CODE.notReady, toCniError(error).message, { cause: error });
  }
  const spoken = await spokenVersions(plugin, conf, variables);
  if (!spoken.includes(conf.cniVersion)) {
    throw new CniError(
      CNI_CODE.notReady,
      `${plugin} speaks CNI ${spoken.join(", ")}, not the network's cniVersion ` +
        `"${conf.cniVersion}": every ADD would fail`,
    );
  }
  await run(plugin, "STATUS", delegate.json, variables);
  return "";
}

/** GC, if the delegate speaks the network's version. Throws a CniError if the delegate is not there. */
export async function delegateGc(
  conf: NetworkConf,
  variables: CniVariables,
  delegate: ConfObject,
  attachments: JsonObject,
): Promise<void> {
  const plugin = pluginFor(delegate, variables);
  const spoken = await spokenVersions(plugin, conf, variables);
  if (!spoken.includes(conf.cniVersion)) return;
  const asked = { ...delegate.json, cniVersion: conf.cniVersion, ...attachments };
  await run(plugin, "GC", asked, variables);
}

/**
 * Finds the plugin that does a delegate's work in the folders of `CNI_PATH`. Throws a CniError if it is not there. If
 * it is the bridge plugin, the error names the key that denim's own bridge can't serve.
 */
function pluginFor(delegate: ConfObject, variables: CniVariables): string {
  const lacking = typeOf(delegate) === BUILT_IN ? notBuiltIn(delegate) : undefined;
  try {
    return findPlugin(typeOf(delegate), variables);
  } catch (cause) {
    throwDefect(cause);
    if (lacking === undefined) throw cause;
    throw new CniError(
      lacking.code,
      `${lacking.message}; the "${BUILT_IN}" plugin does, and is not in CNI_PATH=${variables.path}: ` +
        "install it there, or leave the key out",
      { cause },
    );
  }
}

/** Whether the plugin that does a delegate's work is there. */
export function hasPlugin(delegate: ConfObject, variables: CniVariables): boolean {
  return tryTo(() => pluginFor(delegate, variables)) !== undefined;
}

/** Finds a plugin by its name in the folders of `CNI_PATH`. Throws a CniError if it is not there. */
function findPlugin(type: string, { path }: Pick<CniVariables, "path">): string {
  if (type.includes("/")) {
    throw new CniError(
      CNI_CODE.invalidConfig,
      `delegate.type is ${show(type)}; it must be a plugin's name without a folder`,
    );
  }
  if (path === "") {
    throw new CniError(
      CNI_CODE.invalidEnvironment,
      `CNI_PATH missing in the environment: it says where the plugin "${type}" is (delegate.type)`,
    );
  }
  const found = path.split(":").filter((folder) => folder !== "")
    .map((folder) => `${folder}/${type}`).find(isFile);
  if (found !== undefined) return found;
  throw new CniError(
    CNI_CODE.invalidConfig,
    `delegate.type is "${type}", and there is no such plugin in CNI_PATH=${path}: ` +
      "install it there, or name another",
  );
}

function isFile(path: string): boolean {
  return tryTo(() => Deno.statSync(path).isFile) ?? false;
}

/** The versions of the spec that a plugin speaks (CNI spec 1.1.0, section 2, "VERSION"). */
async function spokenVersions(
  plugin: string,
  { cniVersion }: NetworkConf,
  variables: CniVariables,
): Promise<readonly string[]> {
  const text = await run(plugin, "VERSION", { cniVersion }, variables);
  return ConfObject.parse(text, `what ${plugin} says to VERSION`).strings("supportedVersions");
}

/**
 * Runs a plugin, and returns what it prints. Its standard error goes to denim's. If it fails, throws a DelegateError
 * with its own words, or a CniError if it printed none.
 */
async function run(
  plugin: string,
  command: string,
  conf: JsonObject,
  variables: CniVariables,
): Promise<string> {
  const child = new Deno.Command(plugin, {
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: variables.containerId,
      CNI_NETNS: variables.netns,
      CNI_IFNAME: variables.ifName,
      CNI_ARGS: variables.args,
      CNI_PATH: variables.path,
    },
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const writer = child.stdin.getWriter();
  const written = writer.write(new TextEncoder().encode(JSON.stringify(conf)))
    .then(() => writer.close())
    // A plugin may end without reading its input, and says why itself.
    .catch(throwDefect);
  const [{ success, code, signal, stdout }] = await Promise.all([child.output(), written]);
  const output = new TextDecoder().decode(stdout);
  if (success) return output;
  const failure = parseFailure(output);
  if (failure !== undefined) throw failure;
  throw new CniError(
    CNI_CODE.delegate,
    `${plugin}, run for ${command}, ${
      signal === null ? `exited with ${code}` : `died of ${signal}`
    }` +
      ` and printed ${
        output === "" ? "nothing" : show(output)
      }, which is not an error in the form of the CNI spec`,
  );
}

/** Parses an error in the spec's form (CNI spec 1.1.0, section 5, "Error"); `undefined` if the text is not one. */
function parseFailure(text: string): DelegateError | undefined {
  return tryTo(() => {
    const json = ConfObject.parse(text, "");
    const code = json.get("code");
    if (json.string("msg") === undefined) return undefined;
    return new DelegateError(text, typeof code === "number" ? code : undefined);
  });
}

function tryTo<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    throwDefect(error);
    return undefined;
  }
}

/**
 * Whether a DEL left nothing behind. A plugin that does not speak the version made nothing in its ADD either. Throws
 * only defects.
 */
function undone(del: Promise<unknown>): Promise<boolean> {
  return del.then(() => true, (error) => {
    throwDefect(error);
    return error instanceof DelegateError && error.code === CNI_CODE.incompatibleVersion;
  });
}
