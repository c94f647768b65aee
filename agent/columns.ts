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
  const widths: number[] = [];
  for (const row of rows) {
    for (let column = 0; column < row.length; column++) {
      widths[column] = Math.max(widths[column] ?? 0, row[column]!.length);
    }
  }
  return rows.map((row) => {
    let line = indent;
    for (let column = 0; column < row.length; column++) {
      const cell = row[column]!, width = widths[column]!;
      if (column > 0) line += "  ";
      line += column < firstNumber ? cell.padEnd(width) : cell.padStart(width);
    }
    return line.trimEnd();
  }).join("\n");
}
