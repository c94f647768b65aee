/**
 * The agent's subnet.env, as the plugin reads it.
 *
 * @module
 */

import { parseSubnetEnv, type SubnetEnv } from "@denim/core/subnet-env";
import { CNI_CODE, CniError, toCniError } from "./cni_error.ts";

/** Reads the file. It is not there before the agent has a lease, which is worth waiting for. */
export function readSubnetEnv(path: string): SubnetEnv {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new CniError(
      CNI_CODE.tryAgainLater,
      `there is no ${path}: the agent writes it once the node has its subnet; see the agent's log`,
    );
  }
  try {
    return parseSubnetEnv(text, path);
  } catch (error) {
    throw new CniError(CNI_CODE.decodingFailure, toCniError(error).message);
  }
}
