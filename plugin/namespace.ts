/**
 * The container's network namespace, as the runtime names it.
 *
 * @module
 */

import { findLink, LinuxError, NetlinkSocket, NetworkNamespace } from "@denim/core/linux/attach";
import { CNI_CODE, CniError } from "./cni_error.ts";
import type { CniVariables } from "./environment.ts";

/** The errors of a path that leads nowhere, or to a process that is just ending. */
const GONE = ["ENOENT", "ENOTDIR", "ESRCH"];

/**
 * Opens the container's namespace. Returns the error that says so if the path does not lead to one, or leads to
 * the node's own, in which a container's `eth0` would be the node's: an ADD fails with it, a DEL goes on, since the
 * container is gone. A process's path, `/proc/PID/ns/net`, leads to the node's once a process of the node has the
 * container's former number. Throws a CniError if the kernel does not let the plugin in.
 */
export function openNamespace(variables: CniVariables): NetworkNamespace | CniError {
  const { netns, netnsOverride } = variables;
  if (netns === "") return new CniError(CNI_CODE.invalidEnvironment, "CNI_NETNS is empty");
  const what = `CNI_NETNS=${netns} in the environment`;
  let namespace: NetworkNamespace;
  try {
    namespace = NetworkNamespace.open(netns);
  } catch (cause) {
    if (!(cause instanceof LinuxError)) throw cause;
    if (GONE.includes(cause.code)) {
      return new CniError(
        CNI_CODE.unknownContainer,
        `${what}: there is no such network namespace`,
        { cause },
      );
    }
    // `ip netns` and runtimes mount a namespace on a file. The file is still there when the namespace is not.
    if (cause.code === "EINVAL") {
      return new CniError(CNI_CODE.invalidNamespace, `${what} is not a network namespace`, {
        cause,
      });
    }
    const hint = cause.code === "EPERM" ? "; the plugin needs root" : "";
    throw new CniError(CNI_CODE.kernel, `${what}: ${cause.message}${hint}`, { cause });
  }
  if (netnsOverride || !namespace.isHere) return namespace;
  namespace[Symbol.dispose]();
  return new CniError(
    CNI_CODE.invalidNamespace,
    `${what} is the plugin's own network namespace, not a container's`,
  );
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

/** Opens the container's namespace. Throws a CniError if it is not there, or is the node's own. */
export function openPod(variables: CniVariables): PodNamespace {
  const namespace = openNamespace(variables);
  if (namespace instanceof CniError) throw namespace;
  return new PodNamespace(namespace);
}

/** Throws a CniError if the container already has the interface that an ADD would make. */
export function refuseSecondAdd({ socket }: PodNamespace, { netns, ifName }: CniVariables): void {
  if (findLink(socket, ifName) === undefined) return;
  throw new CniError(
    CNI_CODE.conflict,
    `${netns} has an interface ${ifName} already: a second ADD needs a DEL first`,
  );
}
