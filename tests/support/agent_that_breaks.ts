/**
 * An agent with a defect that shows once the cluster changes. The first argument says where the defect is, the others
 * are the agent's.
 *
 * @module
 */

import { runAgent } from "@denim/agent";
import { vxlan } from "@denim/backends";
import type { BackendSession, LeaseEvent } from "@denim/core";
import { SqliteStore } from "@denim/core/stores/sqlite";

/** The public IP of the peer at which an agent with a defect in `peerState` or `watch` fails. */
export const FATAL_PEER = "10.99.0.77";
/** The VNI at which an agent with a defect in `open` fails. */
export const FATAL_VNI = 7;
/** Where the defect may be. */
export const DEFECTS = ["peerState", "watch", "open"] as const;

if (import.meta.main) {
  const [defect, ...args] = Deno.args;
  if (defect === "watch") breakWatch();
  Deno.exit(
    await runAgent({
      args,
      backends: [{
        ...vxlan,
        async open(node, options) {
          if (defect === "open" && options.VNI === FATAL_VNI) fail(defect);
          const session: BackendSession = await vxlan.open(node, options);
          const peerState = session.peerState.bind(session);
          if (defect !== "peerState") return session;
          session.peerState = (peer) =>
            `${peer.halves[0]!.publicIp}` === FATAL_PEER ? fail(defect) : peerState(peer);
          return session;
        },
      }],
    }),
  );
}

/** The agent opens its store itself, so that only the class can be changed. */
function breakWatch(): void {
  const { watch } = SqliteStore.prototype;
  SqliteStore.prototype.watch = async function* (signal): AsyncGenerator<LeaseEvent> {
    for await (const event of watch.call(this, signal)) {
      const leases = event.kind === "snapshot" ? event.leases : event.put;
      const found = leases.some(({ halves }) => `${halves[0]!.publicIp}` === FATAL_PEER);
      yield found ? fail("watch") : event;
    }
  };
}

function fail(what: string): never {
  throw new TypeError(`a defect that a test put into ${what}`);
}
