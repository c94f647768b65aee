import { ConfigError } from "@denim/core";
import assert from "node:assert/strict";
import { goRegExp } from "./go_regexp.ts";

/** What Go's `regexp.MatchString` (Go 1.26) says of texts that match, and of texts that do not. */
const CASES: readonly (readonly [pattern: string, matches: string[], others: string[]])[] = [
  ["^eth[0-9]+$", ["eth0", "eth10"], ["xeth0", "eth0\n", "eth"]],
  ["10\\.0\\.", ["10.0.0.7"], ["10a0b"]],
  ["(?i)ETH.*", ["eth0", "ETH0"], ["ens3"]],
  ["a(?i)b|c", ["aB", "C"], ["Ab"]],
  ["(a(?i)b)c", ["aBc"], ["aBC"]],
  ["(?i:E)th", ["eth", "Eth"], ["eTH"]],
  ["(?i)(?-i)e", ["e"], ["E"]],
  ["(?i)k", ["k", "K", "\u212a"], []],
  ["^[[:alpha:]]+$", ["eth"], ["eth0", ":"]],
  ["^[[:^digit:]_]$", ["a", "_"], ["7"]],
  ["^[[:space:]]$", ["\v", " "], ["\u00a0"]],
  ["^\\s$", [" ", "\t"], ["\v", "\u00a0"]],
  ["^\\S$", ["\v", "\u00a0"], [" "]],
  ["(?i)^\\P{Lu}$", ["-"], ["a", "A"]],
  ["^\\p{Greek}$", ["α"], ["a"]],
  ["^\\p{^Greek}\\PL$", ["a7"], ["αb"]],
  ["\\Aeth0\\z", ["eth0"], ["eth0z", "zeth0"]],
  ["(?m)^b$", ["a\nb\nc"], ["a\rb"]],
  ["^a.c$", ["abc", "a\rc"], ["a\nc"]],
  ["(?s)^a.c$", ["a\nc"], []],
  ["(?P<n>e)th(?<m>0)", ["eth0"], ["eth1"]],
  ["(?U)a+", ["aa"], ["b"]],
  ["^\\Qa.b*\\E+$", ["a.b*", "a.b**"], ["axb"]],
  ["^[]a]$", ["]", "a"], ["[]a]"]],
  ["^[^]a]$", ["b"], ["]", "a"]],
  ["^[a&&b-]$", ["&", "b", "-"], ["c"]],
  ["^[[a]$", ["[", "a"], ["b"]],
  ["^a{,3}$", ["a{,3}"], ["a", "aaa"]],
  ["^{}]$", ["{}]"], []],
  ["^a{2}b{1,}c{0,1}?$", ["aabbc", "aab"], ["ab"]],
  ["^\\x41\\x{1F600}\\101\\07$", ["A😀A\x07"], []],
  ["^.$", ["😀"], ["ab"]],
  ["\\bé", [], ["é"]],
  ["^(|a)*b$", ["b", "aab"], ["c"]],
  ["^*a", ["a", "ba"], ["b"]],
];

for (const [pattern, matches, others] of CASES) {
  Deno.test(`goRegExp() reads ${pattern} as Go does`, () => {
    const { test, source } = goRegExp(pattern);
    assert.equal(source, pattern);
    for (const text of matches) assert.ok(test(text), JSON.stringify(text));
    for (const text of others) assert.ok(!test(text), JSON.stringify(text));
  });
}

const REFUSED: readonly (readonly [pattern: string, reason: RegExp])[] = [
  ["(", /a closing \) is missing$/],
  ["a)", /there is a \) too many$/],
  ["[a", /the closing \] of \[a is missing$/],
  ["a**", /\* has nothing that it may repeat$/],
  ["*a", /\* has nothing that it may repeat$/],
  ["a{1001}", /\{1001\} is not a repetition of up to 1000$/],
  ["a{2,1}", /\{2,1\} is not a repetition/],
  ["(?=a)", /\(\?=a does not begin a group of Go's$/],
  ["(?<=a)", /\(\?<= does not begin a group of Go's$/],
  ["(?P=n)", /\(\?P= does not begin a group of Go's$/],
  ["eth0\\Z", /\\Z is not an escape of Go's$/],
  ["(a)\\1", /\\1 is not an escape of Go's$/],
  ["\\u0041", /\\u is not an escape of Go's$/],
  ["\\x{110000}", /\\x\{110000\} is not a character$/],
  ["a\\", /a backslash stands at its end$/],
  ["[[:letter:]]", /\[:letter:\] is not a class of Go's$/],
  ["[b-a]", /the range b-a is empty$/],
  ["\\p{Klingon}", /\\p\{Klingon\} is not a class that denim knows$/],
  // Go's C leaves out what JavaScript's has: code points without a character.
  ["\\pC", /\\pC is not a class that denim knows$/],
];

for (const [pattern, reason] of REFUSED) {
  Deno.test(`goRegExp() refuses ${pattern}`, () => {
    assert.throws(() => goRegExp(pattern), (error) => {
      assert.ok(error instanceof ConfigError);
      assert.ok(error.message.startsWith(`"${pattern}" is not a regular expression that denim`));
      assert.match(error.message, reason);
      return true;
    });
  });
}
