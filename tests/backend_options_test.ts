/** What holds of the options of every backend that denim has. */

import { builtin } from "@denim/backends";
import { type BackendSession, MAX_PACKET_BYTES } from "@denim/core";
import { NetlinkSocket } from "@denim/core/linux";
import assert from "node:assert/strict";
import { findOuterInterface } from "../agent/outer_interface.ts";
import { nodeContext } from "./support/node_context.ts";
import { rootTest } from "./support/root_test.ts";
import { ScratchNamespace } from "./support/scratch_namespace.ts";

/** Every option of every backend, as net-conf names it. */
const OPTIONS: Readonly<Record<string, readonly string[]>> = {
  vxlan: ["VNI", "Port", "MTU", "GBP", "Learning", "DirectRouting"],
  "host-gw": [],
  wireguard: [
    "PSK",
    "ListenPort",
    "ListenPortV6",
    "MTU",
    "Mode",
    "PersistentKeepaliveInterval",
  ],
  ipip: ["DirectRouting"],
  udp: ["Port", "MTU", "Offloads", "PartialChecksums"],
  alloc: [],
  extension: [
    "PreStartupCommand",
    "PostStartupCommand",
    "SubnetAddCommand",
    "SubnetRemoveCommand",
    "CommandTimeoutSeconds",
    "MTU",
  ],
};

Deno.test("null for an option means its default, as in Go", () => {
  for (const { type, options } of builtin) {
    const defaults = options.safeParse({ Type: type }).data;
    const names = OPTIONS[type]!;
    const given = Object.keys(typeof defaults === "object" && defaults !== null ? defaults : {});
    assert.deepEqual(given.filter((name) => name !== "Type"), names, "none is left out here");
    for (const name of names.flatMap((name) => [name, name.toLowerCase()])) {
      assert.deepEqual(
        options.safeParse({ Type: type, [name]: null }).data,
        defaults,
        `${type} ${name}`,
      );
    }
  }
});

rootTest(
  "an outer device with a larger MTU than any packet leaves pods one that a veth can have",
  async () => {
    using namespace = new ScratchNamespace();
    namespace.ip("link set lo up");
    namespace.ip("addr add 10.99.0.1/32 dev lo");
    assert.match(namespace.ip("link show lo"), /mtu 65536/);
    for (const { type, options, open } of builtin) {
      const opening = Promise.withResolvers<BackendSession>();
      namespace.run(() => {
        using socket = new NetlinkSocket();
        const choice = { iface: ["10.99.0.1"], ifaceRegex: [], ifaceCanReach: undefined };
        const outer = findOuterInterface(socket, { ...choice, publicIps: new Map() }, [4]);
        open(nodeContext({ outer }), options.parse({ Type: type }))
          .then(opening.resolve, opening.reject);
      });
      await using session = await opening.promise;
      namespace.ip(
        `link add v0 mtu ${session.mtuBytes} type veth peer name v1 mtu ${session.mtuBytes}`,
      );
      namespace.ip("link del v0");
      assert.ok(session.mtuBytes > MAX_PACKET_BYTES - 100, type);
    }
  },
);
