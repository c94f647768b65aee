/**
 * docs/configuration.md: made from the flag table, net-conf's schema and the backends' options, so that it says what
 * denim does.
 *
 * @module
 */

import type { Flag } from "../../agent/flag_table.ts";
import { AGENT_FLAGS } from "../../agent/flags.ts";
import { STORE_FLAGS } from "../../agent/stores/mod.ts";
import { builtin } from "../../backends/mod.ts";
import { NET_CONF_KEYS } from "../../core/net_conf.ts";
import { ROOT } from "../../.ci/source_files.ts";

/** Where the page is. */
export const CONFIGURATION_PAGE: string = `${ROOT}/docs/configuration.md`;

/** What `deno doc` says of one exported thing; of an interface, its properties. */
interface Documented {
  readonly name: string;
  readonly declarations: readonly {
    readonly def?: {
      readonly properties?: readonly {
        readonly name: string;
        readonly jsDoc?: { readonly doc?: string };
      }[];
    };
  }[];
}

/** The page's text, as `deno fmt` would have it. */
export async function configurationPage(): Promise<string> {
  const ofStores = new Set(STORE_FLAGS.map(({ name }) => name as string));
  const shown = AGENT_FLAGS.filter(({ help }) => help !== undefined);
  const text = `<!-- Made by \`deno task docs\` from the flags and the schemas. Change those. -->

# Configuration

## net-conf

One JSON document for the whole cluster. Keys may come in any case, a key that is \`null\` counts as
absent (but not \`Backend\`), and unknown keys are ignored. \`denim config check FILE\` checks one.

${table(["key", "what it says"], NET_CONF_KEYS.map(([key, says]) => [code(key), says]))}

${builtin.map(({ type, options }) => backendSection(type, options.parse({}))).join("\n\n")}

## denim agent

Each flag may come from the environment, too: \`--public-ip\` as \`FLANNELD_PUBLIC_IP\`. An argument
wins over the environment, and an empty variable counts as absent. A switch may be given alone or
with \`=true\` or \`=false\`. The flags of flannel's logger (\`-v\`, \`--logtostderr\` and so on) are taken and
do nothing.

### The node

${flagTable(shown.filter(({ name }) => !ofStores.has(name)))}

### The store

${flagTable(shown.filter(({ name }) => ofStores.has(name)))}

With \`--kube-subnet-mgr\`, \`NODE_NAME\` says which node this is, else \`POD_NAME\` and \`POD_NAMESPACE\` do.
`;
  return await formatted(text);
}

/** A text in Markdown as `deno fmt` writes it. */
async function formatted(text: string): Promise<string> {
  const process = new Deno.Command(Deno.execPath(), {
    args: ["fmt", "--ext", "md", "-"],
    cwd: ROOT,
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = process.stdin.getWriter();
  await writer.write(new TextEncoder().encode(text));
  await writer.close();
  return new TextDecoder().decode((await process.output()).stdout);
}

function backendSection(type: string, defaults: Readonly<Record<string, unknown>>): string {
  const heading = `### Backend: ${type}\n\n`;
  const documented = documentedOptions(type);
  const undocumented = Object.keys(defaults).filter((key) => !documented.has(key));
  if (undocumented.length > 0) {
    throw new Error(`backends/mod.ts exports no options of ${type} with ${undocumented}`);
  }
  if (documented.size === 0) return `${heading}It has no options.`;
  const rows = Array.from(documented, ([key, says]) => [
    code(key),
    defaults[key] === undefined ? "" : code(JSON.stringify(defaults[key])),
    says.replaceAll("\n", " "),
  ]);
  return heading + table(["key", "default", "what it says"], rows);
}

const modules = new Deno.Command(Deno.execPath(), {
  args: ["doc", "--quiet", "--json", "backends/mod.ts"],
  cwd: ROOT,
}).outputSync();
const { nodes } = JSON.parse(new TextDecoder().decode(modules.stdout)) as {
  readonly nodes: Readonly<Record<string, { readonly symbols: readonly Documented[] }>>;
};

/** The properties of a backend's `…Options` and their doc comments: `host-gw` has `HostGwOptions`, if any. */
function documentedOptions(type: string): ReadonlyMap<string, string> {
  const name = type.replace(/(?:^|-)(.)/g, (_, first: string) => first.toUpperCase()) + "Options";
  const found = Object.values(nodes).flatMap(({ symbols }) => symbols)
    .find((symbol) => symbol.name === name);
  const properties = found?.declarations.flatMap(({ def }) => def?.properties ?? []) ?? [];
  return new Map(properties.map((property) => [property.name, property.jsDoc?.doc ?? ""]));
}

function flagTable(flags: readonly Flag[]): string {
  const rows = flags.map(({ name, type: { placeholder }, help, fallback }) => [
    code(`--${name}${placeholder === undefined ? "" : ` ${placeholder}`}`),
    fallback === undefined ? "" : code(fallback),
    help!,
  ]);
  return table(["flag", "default", "what it says"], rows);
}

function code(text: string): string {
  return `\`${text}\``;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => "---"), ...rows]
    .map((cells) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`)
    .join("\n");
}
