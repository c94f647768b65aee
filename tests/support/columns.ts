/**
 * Tables for people.
 *
 * @module
 */

/** Rows as lines, with columns as wide as they need be; those from `firstNumber` on are set to the right. */
export function formatColumns(rows: readonly (readonly string[])[], firstNumber: number): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) =>
    row.map((cell, column) =>
      column < firstNumber ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)
    ).join("  ")
  ).join("\n");
}
