/**
 * Waiting until pods reach each other.
 *
 * @module
 */

import type { Pod } from "@denim/agent/lab";
import type { IpAddress } from "@denim/core";
import { eventually } from "./wait.ts";

/** Waits until an address answers a pod: a node may hear of another a moment after that one is ready. */
export async function reached(from: Pod, to: IpAddress): Promise<void> {
  await eventually(
    `${from.name} reaches ${to}`,
    async () => (await from.ping(to)).timeMs !== undefined,
  );
}
