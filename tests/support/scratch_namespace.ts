/**
 * A network namespace for one test, and iproute2 in it.
 *
 * @module
 */

import { NetworkNamespace } from "@denim/core/linux/namespace";
import { iproute } from "./iproute.ts";

/** A namespace that is gone when its scope ends, with all that is in it. */
export class ScratchNamespace implements Disposable {
  /** Its name, of its own in each test. */
  readonly name: string = `denim-test-${crypto.getRandomValues(new Uint8Array(4)).toHex()}`;
  readonly #namespace = NetworkNamespace.create(this.name);

  /** Its path, as `CNI_NETNS` has it. */
  get path(): string {
    return this.#namespace.path;
  }

  /** Runs a synchronous function inside. */
  run<T>(fn: () => T extends Promise<unknown> ? never : T): T {
    return this.#namespace.run(fn);
  }

  /** Runs iproute2's `ip` inside, and returns what it prints. Throws what it complains of. */
  ip(command: string): string {
    return iproute("ip", this.name, command);
  }

  /** Runs iproute2's `ip` inside, and reads the JSON that it prints. */
  // deno-lint-ignore no-explicit-any -- iproute2's JSON has a shape for each object
  ipJson(command: string): any[] {
    return JSON.parse(this.ip(`-j ${command}`) || "[]");
  }

  /** Runs iproute2's `bridge` inside, and returns what it prints. Throws what it complains of. */
  bridge(command: string): string {
    return iproute("bridge", this.name, command);
  }

  /**
   * Makes the outer device eth0, up and with a carrier, whose other end is eth1 in the same namespace; at 10.99.0.1
   * and, with `ipv6`, at fd99::1.
   */
  addOuterDevice({ ipv6 = false }: { readonly ipv6?: boolean } = {}): void {
    this.ip("link add eth0 type veth peer name eth1");
    this.ip("addr add 10.99.0.1/24 dev eth0");
    if (ipv6) this.ip("addr add fd99::1/64 dev eth0 nodad");
    for (const name of ["lo", "eth0", "eth1"]) this.ip(`link set ${name} up`);
  }

  /** The forwarding database of a device. */
  // deno-lint-ignore no-explicit-any -- iproute2's JSON
  fdb(device: string): any[] {
    return JSON.parse(this.bridge(`-j fdb show dev ${device}`) || "[]");
  }

  /** Removes it. */
  [Symbol.dispose](): void {
    this.#namespace[Symbol.dispose]();
    NetworkNamespace.remove(this.name);
  }
}
