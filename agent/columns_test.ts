import assert from "node:assert/strict";
import { formatColumns } from "./columns.ts";

Deno.test("formatColumns() makes each column as wide as its widest cell", () => {
  const rows = [["NAME", "N", "END"], ["a", "100", ""], ["longer", "7", "x"]];
  assert.equal(formatColumns(rows), "NAME    N    END\na       100\nlonger  7    x");
  assert.equal(
    formatColumns(rows, { firstNumber: 1, indent: "  " }),
    "  NAME      N  END\n  a       100\n  longer    7    x",
  );
});

Deno.test("formatColumns() makes nothing of no rows", () => assert.equal(formatColumns([]), ""));
