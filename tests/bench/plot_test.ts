import assert from "node:assert/strict";
import { draw } from "./plot.ts";

Deno.test("draw gives each contestant a line, places sizes and costs by their logarithms, and escapes names", () => {
  const svg = draw({
    name: "x",
    title: "time",
    unit: "ms",
    series: [
      { name: "a & b", points: [[100, 10], [1_000, 100], [10_000, 1_000]] },
      { name: "one", points: [[100, 1_000]] },
    ],
  });
  const [line, other] = [...svg.matchAll(/class="line" d="M([^"]*)"/g)].map(([, way]) => way);
  const points = line!.split("L").map((point) => point.split(" ").map(Number));
  const [[x0, y0], [x1, y1], [x2, y2]] = points as [number[], number[], number[]];
  assert.ok(Math.abs(x1! - (x0! + x2!) / 2) < 0.2);
  assert.ok(Math.abs(y1! - (y0! + y2!) / 2) < 0.2);
  assert.ok(y2! < y0!, "more is higher");
  assert.equal(other, `${x0} ${y2}`);
  assert.match(svg, /a &#38; b/);
  assert.match(svg, /prefers-color-scheme:dark/);
});
