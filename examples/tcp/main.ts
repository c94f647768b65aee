/**
 * denim with one more backend.
 *
 * @module
 */

import { runDenim } from "@denim/agent/run-denim";

await runDenim(async (builtin) => [...builtin, (await import("./tcp_backend.ts")).tcp]);
