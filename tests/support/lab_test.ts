/**
 * Tests on a laboratory of their own.
 *
 * @module
 */

import { messageOf } from "@denim/core";
import { Lab, type LabOptions } from "@denim/agent/lab";
import { rootTest, type TestNeeds } from "./root_test.ts";

/** Registers a test that needs a laboratory. Where it fails, its error has the agents' logs. */
export function labTest(
  name: string,
  options: LabOptions & TestNeeds,
  fn: (lab: Lab, t: Deno.TestContext) => Promise<void>,
): void {
  rootTest(name, async (t) => {
    await using lab = await Lab.create(options);
    try {
      await fn(lab, {
        ...t,
        // A step that fails ends the test: the next one would find another cluster than it expects.
        async step(...args: Parameters<Deno.TestContext["step"]>) {
          if (!await t.step(...args)) throw new Error("a step failed");
          return true;
        },
      } as Deno.TestContext);
    } catch (error) {
      const logs = lab.nodes.map((node) => `${node.name}:\n${read(node.logFile)}`);
      throw new Error(`${messageOf(error)}\n${logs.join("\n")}`, { cause: error });
    }
  }, options);
}

function read(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "no log\n";
  }
}
