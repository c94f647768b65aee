/**
 * Rules in nft's language.
 *
 * @module
 */

import type { Rule } from "../../core/linux/netfilter/rule.ts";

/** The rule as `nft list table` prints it. */
export function nftText({ matches, verdict, comment }: Rule): string {
  const words = matches.map((match) => {
    if (match.kind === "mark") {
      const [mask, value] = [match.mask, match.value].map((word) =>
        `0x${word.toString(16).padStart(8, "0")}`
      );
      return `meta mark & ${mask} == ${value}`;
    }
    const { kind, network, not } = match;
    return `${network.family === 4 ? "ip" : "ip6"} ${kind} ${not ? "!= " : ""}${network}`;
  });
  const action = verdict.kind === "masquerade" && verdict.fullyRandom
    ? "masquerade fully-random"
    : verdict.kind;
  return [...words, action, `comment "${comment}"`].join(" ");
}
