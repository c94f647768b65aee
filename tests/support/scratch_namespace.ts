/**
 * A network namespace for one test, and iproute2 as a witness that shares no code with denim.
 *
 * @module
 */

import { NetworkNamespace } from "@denim/core/linux/namespace";

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
    return iproute("ip", ["-n", this.name, ...command.split(" ")]);
  }

  /** Runs iproute2's `ip` inside, and reads the JSON that it prints. */
  // deno-lint-ignore no-explicit-any -- iproute2's JSON has a shape for each object
  ipJson(command: string): any[] {
    return JSON.parse(this.ip(`-j ${command}`) || "[]");
  }

  /** Runs iproute2's `bridge` inside, and returns what it prints. Throws what it complains of. */
  bridge(command: string): string {
    return iproute("bridge", ["-n", this.name, ...command.split(" ")]);
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

function iproute(command: string, args: readonly string[]): string {
  const { success, stdout, stderr } = new Deno.Command(command, { args: [...args] }).outputSync();
  const decoder = new TextDecoder();
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}
