/**
 * The part of an agent that attaches pods, alone: it serves in the folder that its argument names, until it is killed.
 *
 * @module
 */

import { NO_METRICS } from "@denim/core";
import { CniServer } from "../../agent/cni_server.ts";
import { createLogger } from "../../agent/log.ts";

new CniServer({ path: Deno.args[0]!, log: createLogger({ format: "text" }), metrics: NO_METRICS });
