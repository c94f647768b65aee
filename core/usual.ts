/**
 * Schemas of what is read tens of thousands of times, and nearly always as it should be.
 *
 * @module
 */

import * as z from "zod";

/**
 * A schema in front of another: `read` reads what is as it should be, by hand and so in a fraction of the time; what it
 * gives `undefined` for the other schema judges.
 *
 * ```ts
 * import { usually } from "@denim/core";
 * import * as z from "zod";
 * const port = usually((value) => value === 8472 ? 8472 : undefined, z.int().max(65_535));
 * console.log(port.parse(8472), port.safeParse("8472").success); // 8472 false
 * ```
 */
export function usually<Output>(
  read: (value: unknown) => Output | undefined,
  schema: z.ZodType<Output>,
): z.ZodType<Output> {
  return z.unknown().transform((value, context) => {
    const usual = read(value);
    if (usual !== undefined) return usual;
    const parsed = schema.safeParse(value);
    if (parsed.success) return parsed.data;
    for (const { message, path } of parsed.error.issues) {
      context.addIssue({ code: "custom", message, path });
    }
    return z.NEVER;
  });
}
