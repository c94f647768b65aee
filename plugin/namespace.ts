/**
 * The container's network namespace, as the runtime names it.
 *
 * @module
 */

import { findLink, LinuxError, NetlinkSocket, NetworkNamespace } from "@denim/core/linux/attach";
import { CNI_CODE, CniError } from "./cni_error.ts";
import type { CniVariables } from "./environment.ts";

/** What the kernel says where a path leads nowhere. */
const GONE = ["ENOENT", "ENOTDIR"];

/**
 * Opens the container's namespace. Where there is none, answers with the error that says so: an ADD fails
 * with it, a DEL goes on. Throws a CniError where the namespace is the node's own, in which a container's
 * `eth0` would be the node's.
 */
export function openNamespace(variables: CniVariables): NetworkNamespace | CniError {
  const { netns, netnsOverride } = variables;
  if (netns === "") return new CniError(CNI_CODE.invalidEnvironment, "CNI_NETNS is empty");
  let namespace: NetworkNamespace;
  try {
    namespace = NetworkNamespace.open(netns);
  } catch (error) {
    if (!(error instanceof LinuxError)) throw error;
    const what = `CNI_NETNS=${netns} in the environment`;
    if (GONE.includes(error.code)) {
      return new CniError(
        CNI_CODE.unknownContainer,
        `${what}: there is no such network namespace`,
        { cause: error },
      );
    }
    // The file that a namespace's name was, once the namespace is gone.
    if (error.code === "EINVAL") {
      return new CniError(CNI_CODE.invalidNamespace, `${what} is not a network namespace`, {
        cause: error,
      });
    }
    const hint = error.code === "EPERM" ? "; the plugin needs root" : "";
    throw new CniError(CNI_CODE.kernel, `${what}: ${error.message}${hint}`, { cause: error });
  }
  if (!netnsOverride && isOwn(netns)) {
    namespace[Symbol.dispose]();
    throw new CniError(
      CNI_CODE.invalidNamespace,
      `CNI_NETNS=${netns} in the environment is the plugin's own network namespace, ` +
        "not a container's",
    );
  }
  return namespace;
}

function isOwn(path: string): boolean {
  const theirs = Deno.statSync(path), ours = Deno.statSync("/proc/thread-self/ns/net");
  return theirs.dev === ours.dev && theirs.ino === ours.ino;
}

/** A pod's namespace, with a socket in it. */
export class PodNamespace implements Disposable {
  /** The namespace. */
  readonly namespace: NetworkNamespace;
  /** A socket in it. */
  readonly socket: NetlinkSocket;

  /** Takes over an open namespace. */
  constructor(namespace: NetworkNamespace) {
    this.namespace = namespace;
    this.socket = namespace.run(() => new NetlinkSocket());
  }

  /** Closes both. */
  [Symbol.dispose](): void {
    this.socket[Symbol.dispose]();
    this.namespace[Symbol.dispose]();
  }
}

/** Opens the container's namespace, which must be there. Throws a CniError where it is not. */
export function openPod(variables: CniVariables): PodNamespace {
  const namespace = openNamespace(variables);
  if (namespace instanceof CniError) throw namespace;
  return new PodNamespace(namespace);
}

/** Throws a CniError where the container has the interface that an ADD shall make. */
export function refuseSecondAdd({ socket }: PodNamespace, { netns, ifName }: CniVariables): void {
  if (findLink(socket, ifName) === undefined) return;
  throw new CniError(
    CNI_CODE.conflict,
    `${netns} has an interface ${ifName} already: a second ADD needs a DEL first`,
  );
}
