/**
 * Trying what the kernel can do, without touching this machine's network.
 *
 * @module
 */

import { type KernelState, type Logger, messageOf, throwDefect } from "@denim/core";
import {
  findLink,
  NetlinkSocket,
  NetworkNamespace,
  Reconciler,
  writeNewBridge,
  writeNewVeth,
} from "@denim/core/linux";

/**
 * Has the reconciler make a state in a network namespace of its own, which is gone afterwards, with a device of the
 * outer interface's name in it. Also makes what the CNI plugin makes for pods. The kernel loads modules for that, as it
 * would for the agent. Throws a LinuxError without CAP_SYS_ADMIN.
 *
 * @returns why it failed, as messages for operators
 */
export function tryInKernel(
  state: KernelState,
  outerDevice: string,
  log: Logger,
): readonly string[] {
  const name = `denim-check-${crypto.getRandomValues(new Uint8Array(4)).toHex()}`;
  using namespace = NetworkNamespace.create(name);
  using _removed = { [Symbol.dispose]: () => NetworkNamespace.remove(name) };
  return namespace.run(() => {
    using socket = new NetlinkSocket();
    const failures: string[] = [];
    const make = (what: string, write: () => void) => {
      try {
        write();
      } catch (error) {
        throwDefect(error);
        failures.push(`${messageOf(error)}; pods need ${what}: load the kernel's module for it`);
      }
    };
    // A loopback is there already.
    const taken = findLink(socket, outerDevice) !== undefined;
    make("a veth pair", () =>
      socket.request(
        "make a veth pair",
        (writer) =>
          writeNewVeth(writer, { name: taken ? "denim0" : outerDevice, up: true }, {
            name: "denim1",
          }),
      ));
    make(
      "a bridge",
      () => socket.request("make a bridge", (writer) => writeNewBridge(writer, "denim2", {})),
    );
    if (failures.length > 0) return failures;
    using reconciler = new Reconciler({ log });
    reconciler.set("trial", state);
    return reconciler.apply().failures;
  });
}
