/**
 * The chart, as `helm` renders it.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { ROOT } from "../../.ci/source_files.ts";
import { NAMESPACE } from "./manifest.ts";

/** The chart's folder. */
export const CHART: string = `${ROOT}/deploy/helm/denim`;

/** Where helm is: `HELM` names it, or it is on PATH; `undefined` if it is not there. */
export function helmProgram(): string | undefined {
  const named = Deno.env.get("HELM");
  if (named !== undefined) return named;
  return (Deno.env.get("PATH") ?? "").split(":")
    .map((folder) => `${folder}/helm`).find((path) => existsSync(path));
}

/** What `helm template` makes of the chart with these values. Rejects with what it complains of. */
export async function renderChart(
  values: object = {},
  args: readonly string[] = [],
): Promise<string> {
  const program = helmProgram();
  if (program === undefined) {
    throw new Error("there is no helm: put it on PATH, or name it with HELM");
  }
  const child = new Deno.Command(program, {
    args: [
      "template",
      "denim",
      CHART,
      "--namespace",
      NAMESPACE,
      "--values",
      "-",
    ]
      .concat(args),
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(values)));
  await writer.close();
  const { success, stdout, stderr } = await child.output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
