/**
 * Tests that need root: they make network namespaces, links and routes.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { ScratchNamespace } from "./scratch_namespace.ts";

/** What a test needs beside root. */
export interface TestNeeds {
  /** A program that it starts, by its name: "wireguard-go". */
  readonly program?: string;
  /** A type of network device that the kernel has, as `ip link add type` names it: "ipip". */
  readonly linkType?: string;
}

/**
 * Registers a test that needs root, and perhaps more. Without it the test is ignored, and its name says why; but in CI
 * (`CI=true`), where nothing may be skipped unseen, it fails, unless the machine's kernel is what lacks something.
 */
export function rootTest(
  name: string,
  fn: (t: Deno.TestContext) => void | Promise<void>,
  { program, linkType }: TestNeeds = {},
): void {
  const missing = Deno.uid() !== 0
    ? "root"
    : program !== undefined && !hasProgram(program)
    ? program
    : undefined;
  if (missing === undefined) {
    const lacks = linkType !== undefined && !hasLinkType(linkType);
    if (lacks) Deno.test.ignore(`${name} (needs a kernel with ${linkType})`, fn);
    else Deno.test(name, fn);
  } else if (Deno.env.get("CI") === "true") {
    Deno.test(`${name} (needs ${missing})`, () => {
      throw new Error(`needs ${missing}: CI must run the tests with it`);
    });
  } else {
    Deno.test.ignore(`${name} (needs ${missing})`, fn);
  }
}

/** Whether the kernel makes devices of a type; for tests that do otherwise where it does not. */
export function hasLinkType(type: string): boolean {
  using namespace = new ScratchNamespace();
  try {
    namespace.ip(`link add denim0 type ${type}`);
    return true;
  } catch (error) {
    return !String(error).includes("Unknown device type");
  }
}

function hasProgram(name: string): boolean {
  const folders = `${Deno.env.get("PATH") ?? ""}:/usr/sbin:/sbin`.split(":");
  return folders.some((folder) => existsSync(`${folder}/${name}`));
}
