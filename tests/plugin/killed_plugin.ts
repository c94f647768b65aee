/**
 * denim's CNI plugin, which kills itself (kill_at_step.ts).
 *
 * @module
 */

import "./kill_at_step.ts";
import { runPlugin } from "../../plugin/run_plugin.ts";

await runPlugin();
