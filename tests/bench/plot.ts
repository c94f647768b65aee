/**
 * Costs against sizes, drawn as SVG: a small file that says all it needs, and is readable on light and dark pages.
 *
 * @module
 */

/** One picture. */
export interface Figure {
  /** The file's name, without its ending. */
  readonly name: string;
  /** What is drawn. */
  readonly title: string;
  /** The unit of the costs. */
  readonly unit: string;
  /** A line each, at most three. */
  readonly series: readonly {
    readonly name: string;
    /** By size, ascending: sizes and costs, all of them above 0. */
    readonly points: readonly (readonly [size: number, cost: number])[];
  }[];
}

const WIDTH = 640, HEIGHT = 360;
const LEFT = 72, RIGHT = 96, TOP = 44, BOTTOM = 40;
/** For light and dark pages; told apart by their lightness, too. */
const COLOURS = [["#1257a8", "#7db8ff"], ["#9a6700", "#e3b341"], ["#a3296f", "#ff8fc7"]] as const;

/** Draws a figure. Both axes are logarithmic: sizes and costs go over orders of magnitude. */
export function draw({ title, unit, series }: Figure): string {
  const points = series.flatMap((one) => one.points);
  const x = axis(points.map(([size]) => size), LEFT, WIDTH - RIGHT);
  const y = axis(points.map(([, cost]) => cost), HEIGHT - BOTTOM, TOP);
  const sizes = [...new Set(points.map(([size]) => size))];
  const parts = [
    text(LEFT, 24, `${title} (${unit})`, 'class="title"'),
    ...ticks(points.map(([, cost]) => cost)).map((cost) =>
      `<path class="grid" d="M${LEFT} ${y(cost)}H${WIDTH - RIGHT}"/>` +
      text(LEFT - 8, y(cost) + 4, shown(cost), 'text-anchor="end"')
    ),
    ...sizes.map((size) =>
      text(x(size), HEIGHT - BOTTOM + 20, shown(size), 'text-anchor="middle"')
    ),
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "peers", 'text-anchor="middle"'),
    ...series.map(({ name, points }, index) => {
      const way = points.map(([size, cost]) => `${x(size)} ${y(cost)}`).join("L");
      const dots = points.map(([size, cost]) =>
        `<circle cx="${x(size)}" cy="${y(cost)}" r="3"><title>${escaped(name)}, ${shown(size)}: ${
          shown(cost)
        } ${unit}</title></circle>`
      );
      const [size, cost] = points.at(-1)!;
      return `<g class="s${index}"><path class="line" d="M${way}"/>${dots.join("")}` +
        `${text(x(size) + 8, y(cost) + 4, name)}</g>`;
    }),
  ];
  const colours = (which: 0 | 1) =>
    COLOURS.map((pair, index) => `.s${index}{stroke:${pair[which]};fill:${pair[which]}}`).join("");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${
    escaped(title)
  }">
<style>
text{font:12px system-ui,sans-serif;fill:#1f2328;stroke:none}.title{font-weight:600}
.grid{stroke:#d1d9e0}.line{fill:none;stroke-width:2}${colours(0)}
g text{fill:inherit}
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.grid{stroke:#3d444d}${
    colours(1)
  }g text{fill:inherit}}
</style>
${parts.join("\n")}
</svg>
`;
}

/** Places numbers on an axis from `from` to `to`, in tenths of a point. */
function axis(numbers: readonly number[], from: number, to: number): (number: number) => number {
  const [min, max] = [Math.log(Math.min(...numbers)), Math.log(Math.max(...numbers))];
  const span = Math.max(max - min, Number.EPSILON);
  return (number) => Math.round(10 * (from + (to - from) * (Math.log(number) - min) / span)) / 10;
}

/** The numbers of 1, 2, 5, 10, 20, 50 … that lie between some. */
function ticks(numbers: readonly number[]): number[] {
  const [min, max] = [Math.min(...numbers), Math.max(...numbers)];
  const found: number[] = [];
  for (let power = 10 ** Math.floor(Math.log10(min)); power <= max; power *= 10) {
    found.push(...[1, 2, 5].map((digit) => digit * power));
  }
  return found.filter((number) => number >= min && number <= max);
}

function text(x: number, y: number, content: string, attributes = ""): string {
  return `<text x="${x}" y="${y}" ${attributes}>${escaped(content)}</text>`;
}

function shown(number: number): string {
  return number.toLocaleString("en", { maximumSignificantDigits: 3 });
}

function escaped(content: string): string {
  return content.replace(/[&<>"]/g, (found) => `&#${found.charCodeAt(0)};`);
}
