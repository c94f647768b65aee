/**
 * Which part of denim may import which. The picture, in one line:
 * `agent` → (`plugin`, `backends`, `core/stores`) → `core/linux` → `core/*.ts`; stores skip `linux`.
 * Within a part, imports make no circle.
 *
 * @module
 */

/** One import: paths from the checkout's root, or what the module graph calls a module from outside. */
export interface Edge {
  /** The importing file. */
  readonly from: string;
  /** The imported one. */
  readonly to: string;
  /** What the import says. */
  readonly specifier: string;
}

/** What an import leads to that names no module. The types check says nothing of dynamic imports. */
export const NO_MODULE = "no module";

/** What the parts may import beside themselves. Tests may import everything. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  "core": [],
  "core/linux": ["core"],
  "core/stores": ["core"],
  "backends": ["core", "core/linux"],
  "plugin": ["core", "core/linux"],
  "agent": ["core", "core/linux", "core/stores", "backends", "plugin"],
  "examples": ["core", "core/linux", "core/stores", "backends", "plugin", "agent"],
  ".ci": [],
};

/** The packages from outside that one store alone may load, and why. */
const OF_ONE_STORE: readonly (readonly [name: string, store: string, why: string])[] = [
  ["etcd3", "etcd", "which costs each start 95 ms"],
  ["yaml", "kubernetes", "for kubeconfigs, which a pod does without"],
];

/** A part of the checkout; `piece` is one backend or store, "" outside those. */
interface Room {
  readonly name: string;
  readonly piece: string;
}

/**
 * The circles of files that import each other, types included, each as `a → b → a`, from its first file in the
 * alphabet: a reader of such a file has to know them all.
 */
export function circles(edges: Iterable<Edge>): string[] {
  const imports = new Map<string, Set<string>>();
  for (const { from, to } of edges) {
    if (from === to) continue;
    if (!imports.has(from)) imports.set(from, new Set());
    imports.get(from)!.add(to);
  }
  const found: string[] = [];
  const done = new Set<string>();
  for (const start of [...imports.keys()].sort()) {
    const way = wayBack(start, imports, done);
    // The files before this one are in no circle with it, or were named with theirs.
    for (const file of way ?? [start]) done.add(file);
    if (way !== undefined) found.push([...way, start].join(" → "));
  }
  return found;
}

/** A shortest way from a file back to itself that avoids the files in `not`. */
function wayBack(
  start: string,
  imports: ReadonlyMap<string, ReadonlySet<string>>,
  not: ReadonlySet<string>,
): readonly string[] | undefined {
  const reachedFrom = new Map<string, string>();
  const queue = [start];
  for (const file of queue) {
    for (const next of imports.get(file) ?? []) {
      if (next === start) {
        const way = [file];
        while (way[0] !== start) way.unshift(reachedFrom.get(way[0]!)!);
        return way;
      }
      if (not.has(next) || reachedFrom.has(next)) continue;
      reachedFrom.set(next, file);
      queue.push(next);
    }
  }
  return undefined;
}

/** The edges that go against the picture, each as `file → file: rule`, in order and once. */
export function violations(edges: Iterable<Edge>): string[] {
  const found = new Set<string>();
  for (const edge of edges) {
    const rule = brokenRule(edge);
    if (rule !== undefined) found.add(`${edge.from} → ${edge.to}: ${rule}`);
  }
  return [...found].sort();
}

function brokenRule({ from, to, specifier }: Edge): string | undefined {
  if (to === NO_MODULE) return `there is no module ${specifier}; is it in its package's exports?`;
  const source = roomOf(from);
  const target = roomOf(to);
  if (source === "tests" || source === "outside") return undefined;
  if (source === "unknown") return "the file is in no room of denim's";
  if (target === "outside") {
    if (source.name === "core" && !/^npm:\/?zod(@|\/|$)/.test(to)) {
      return "core/*.ts is pure: of what is not ours it imports zod alone";
    }
    const elsewhere = OF_ONE_STORE.find(([name, store]) =>
      new RegExp(`^npm:/?${name}(@|/|$)`).test(to) &&
      (source.name !== "core/stores" || source.piece !== store)
    );
    if (elsewhere === undefined) return undefined;
    const [name, store, why] = elsewhere;
    return `only core/stores/${store} loads ${name}, ${why}`;
  }
  if (target === "tests") return "only tests import tests";
  if (target === "unknown") return "the imported file is in no room of denim's";
  if (source.name !== target.name) {
    if (!MAY_IMPORT[source.name]!.includes(target.name)) {
      const allowed = MAY_IMPORT[source.name]!.join(", ") || "nothing else of ours";
      return `${source.name} may import ${allowed}`;
    }
    return packageOf(source) !== packageOf(target) && /^[./]|^file:/.test(specifier)
      ? `another package is imported by its name, @denim/${packageOf(target)}`
      : undefined;
  }
  if (source.piece === "" ? isMod(from) : source.piece === target.piece) return undefined;
  if (target.piece !== "") {
    return source.piece === ""
      ? `only ${source.name}/mod.ts imports one of its pieces`
      : `no one of ${source.name} imports another`;
  }
  return isMod(to) && source.piece !== "" ? `${to} imports them all` : undefined;
}

function roomOf(path: string): Room | "tests" | "outside" | "unknown" {
  if (/^[a-z]+:/.test(path) || path.startsWith(".ci/std/")) return "outside";
  if (path.startsWith("tests/") || /_test\.tsx?$/.test(path)) return "tests";
  const folders = path.split("/").slice(0, -1);
  const inner = folders.slice(0, 2).join("/");
  const name = inner in MAY_IMPORT ? inner : folders[0] ?? "";
  if (!(name in MAY_IMPORT)) return "unknown";
  const depth = name.split("/").length;
  return { name, piece: ["backends", "core/stores"].includes(name) ? folders[depth] ?? "" : "" };
}

function packageOf({ name }: Room): string {
  return name.split("/")[0]!;
}

function isMod(path: string): boolean {
  return path.endsWith("/mod.ts");
}
