/**
 * A host as `denim doctor` sees it: files, processes, devices.
 *
 * @module
 */

import { Cidr, FAMILIES, parseSubnetEnv, type SubnetEnv, throwDefect } from "@denim/core";
import {
  type ForwardDrop,
  forwardDrops,
  type LinkState,
  listAddresses,
  listLinks,
  listProcFolder,
  NetlinkSocket,
  readProcFile,
  udpPortHolder,
  wireguardStatus,
} from "@denim/core/linux";

/** Where things are on a host. */
export interface HostPaths {
  /** subnet.env. */
  readonly subnetFile: string;
  /** The socket of the agent's API. */
  readonly apiSocket: string;
  /** Where container runtimes look for network configurations. */
  readonly cniConfDir: string;
  /** Where they look for plugins. */
  readonly cniBinDir: string;
}

/** A network that a device is in. */
export interface HostNetwork {
  /** The device's name. */
  readonly device: string;
  /** The network of one of its addresses. */
  readonly network: Cidr;
}

/** Answers checks' questions. It changes nothing. */
export interface Host {
  /** Where things are. */
  readonly paths: HostPaths;
  /** What subnet.env says; `undefined` if there is none that can be read: no agent was ready here. */
  readonly subnetEnv: SubnetEnv | undefined;
  /** A file's text; `undefined` if it cannot be read. */
  read(path: string): string | undefined;
  /** The names in a folder, sorted; none if it cannot be read. */
  list(path: string): readonly string[];
  /** The names of the running processes (`comm`, at most 15 octets). */
  readonly processes: ReadonlySet<string>;
  /** The network devices. */
  readonly links: readonly LinkState[];
  /** The networks of the devices' addresses. */
  readonly networks: readonly HostNetwork[];
  /** What drops packets of these networks where they are forwarded; nothing if that cannot be read. */
  forwardDrops(networks: readonly Cidr[]): readonly ForwardDrop[];
  /** What a program prints; `undefined` if it is not there or fails. */
  run(program: string, ...args: readonly string[]): string | undefined;
  /**
   * Who has a UDP port, on any address: a program's name, that of a device of WireGuard's, or "kernel" if it is neither,
   * or another user's; `undefined` if nobody has it.
   */
  portUser(port: number): string | undefined;
  /** How much of a file system is free, from 0 to 1; `undefined` if the path is not there. */
  free(path: string): { readonly bytes: number; readonly share: number } | undefined;
}

/** This host, in this thread's network namespace. */
export class ThisHost implements Host {
  readonly paths: HostPaths;
  readonly subnetEnv: SubnetEnv | undefined;
  readonly processes: ReadonlySet<string>;
  readonly links: readonly LinkState[];
  readonly networks: readonly HostNetwork[];

  /** Looks at it once. */
  constructor(paths: HostPaths) {
    this.paths = paths;
    this.subnetEnv = this.#subnetEnv();
    this.processes = new Set(
      this.list("/proc").filter((name) => /^\d+$/.test(name))
        .flatMap((pid) => this.read(`/proc/${pid}/comm`)?.trim() ?? []),
    );
    using socket = new NetlinkSocket();
    this.links = listLinks(socket);
    this.networks = FAMILIES.flatMap((family) => listAddresses(socket, family))
      .flatMap(({ index, address, prefixLength }) => {
        const device = this.links.find((link) => link.index === index)?.name;
        return device === undefined || address.isLinkLocal
          ? []
          : [{ device, network: new Cidr(address, prefixLength) }];
      });
  }

  #subnetEnv(): SubnetEnv | undefined {
    const { subnetFile } = this.paths;
    const text = this.read(subnetFile);
    try {
      return text === undefined ? undefined : parseSubnetEnv(text, subnetFile);
    } catch (error) {
      throwDefect(error);
      return undefined;
    }
  }

  read(path: string): string | undefined {
    return readable(() => readProcFile(path));
  }

  list(path: string): readonly string[] {
    return readable(() => listProcFolder(path).sort()) ?? [];
  }

  forwardDrops(networks: readonly Cidr[]): readonly ForwardDrop[] {
    return readable(() => forwardDrops(networks)) ?? [];
  }

  run(program: string, ...args: readonly string[]): string | undefined {
    return readable(() => {
      const { success, stdout } = new Deno.Command(program, {
        args: [...args],
        stdin: "null",
        stderr: "null",
      }).outputSync();
      return success ? new TextDecoder().decode(stdout) : undefined;
    });
  }

  portUser(port: number): string | undefined {
    const holder = readable(() => udpPortHolder(port));
    if (holder !== "kernel") return holder?.name;
    const device = this.links.filter(({ type }) => type === "wireguard").find(({ name }) =>
      readable(() => wireguardStatus(name)?.listenPort()) === port
    );
    return device?.name ?? holder;
  }

  free(path: string): { readonly bytes: number; readonly share: number } | undefined {
    // In the form that POSIX has: device, size, used and free in KiB.
    const [, line] = this.run("df", "-P", "-k", path)?.split("\n") ?? [];
    if (line === undefined) return undefined;
    const [, size, , free] = line.trim().split(/\s+/).map(Number);
    return { bytes: free! * 1024, share: size === 0 ? 1 : free! / size! };
  }
}

/** What is not there, or not for this user, is `undefined`. */
function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    throwDefect(error);
    return undefined;
  }
}
