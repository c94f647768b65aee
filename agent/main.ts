/**
 * The program `denim`.
 *
 * @module
 */

import { runDenim } from "./run_denim.ts";

await runDenim();
