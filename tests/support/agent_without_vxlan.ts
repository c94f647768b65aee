/**
 * An agent whose VXLAN devices are of a kind that the kernel lacks: a fake of a kernel without VXLAN, which
 * can't be had where VXLAN is built in.
 *
 * @module
 */

import { runAgent } from "@denim/agent";
import { vxlan } from "@denim/backends";
import type { KernelState } from "@denim/core";

Deno.exit(
  await runAgent({
    backends: [{
      ...vxlan,
      async open(node, options) {
        const session = await vxlan.open(node, options);
        const withOther = (state: KernelState) =>
          state.map((object) =>
            object.kind === "link" && object.mac !== undefined
              ? { ...object, info: { ...object.info, type: "denim-none" as unknown as "vxlan" } }
              : object
          );
        return {
          mtuBytes: session.mtuBytes,
          publishes: session.publishes,
          nodeState: (own) => withOther(session.nodeState(own)),
          peerState: (peer) => session.peerState(peer),
          [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
        } satisfies Awaited<ReturnType<typeof vxlan.open>>;
      },
    }],
  }),
);
