/**
 * denim's CNI plugin. One process replaces the chain flannel, bridge, host-local; or flannel alone, if another plugin
 * than bridge does the work.
 *
 * @module
 */

export { type Answer, answer, type Question } from "./plugin.ts";
export { PluginServer, type ServedCall } from "./serve_plugin.ts";
export { type LauncherOptions, pluginScript } from "./launcher.ts";
export type { ReadVariable } from "./environment.ts";
export { isCniName } from "./environment.ts";
export { DEFAULT_NETWORKS_DIR } from "./host_local_conf.ts";
export { DEFAULT_DATA_DIR } from "./network_conf.ts";
