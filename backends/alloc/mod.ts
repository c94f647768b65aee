/**
 * The alloc backend: a lease and subnet.env, and nothing that carries packets. For networks whose routers
 * learn the subnets in a way of their own, as a cloud's route table.
 *
 * @module
 */

import type { Backend, NodeContext } from "@denim/core";
import * as z from "zod";

/** The backend, for `runAgent`. It has no options, and publishes nothing. */
export const alloc: Backend<unknown, unknown> = {
  type: "alloc",
  leaseType: "",
  options: z.unknown(),
  peerData: z.unknown(),
  needs: () => ({ state: [] }),
  open: ({ outer }: NodeContext) =>
    Promise.resolve({
      mtuBytes: outer.mtuBytes,
      publishes: new Map(),
      reachesPeers: false,
      nodeState: () => [],
      peerState: () => [],
      [Symbol.asyncDispose]: () => Promise.resolve(),
    }),
};
