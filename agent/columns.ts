/**
 * Tables of text, for people.
 *
 * @module
 */

/**
 * Rows as lines, with columns as wide as their widest cell.
 *
 * ```ts
 * import { formatColumns } from "@denim/agent/columns";
 * console.log(formatColumns([["NODE", "PODS"], ["node1", "7"]], { firstNumber: 1 }));
 * // NODE   PODS
 * // node1     7
 * ```
 *
 * @param options.firstNumber the first column of numbers, which are set to the right; no column unless given
 * @param options.indent what each line begins with; nothing unless given
 */
export function formatColumns(
  rows: readonly (readonly string[])[],
  options: { readonly firstNumber?: number; readonly indent?: string } = {},
): string {
  const { firstNumber = Infinity, indent = "" } = options;
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => row[column]!.length))
  );
  return rows.map((row) => {
    const cells = row.map((cell, column) =>
      column < firstNumber ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)
    );
    return `${indent}${cells.join("  ")}`.trimEnd();
  }).join("\n");
}
