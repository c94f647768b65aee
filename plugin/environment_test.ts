import assert from "node:assert/strict";
import { interfaceNameProblem, isCniName, readArgs, readVariables } from "./environment.ts";

const GOOD = { CNI_CONTAINERID: "c1", CNI_NETNS: "/run/netns/x", CNI_IFNAME: "eth0" };

function read(command: string, variables: Readonly<Record<string, string>>) {
  return readVariables(command, (name) => variables[name]);
}

Deno.test("readVariables takes what a runtime gives", () => {
  assert.deepEqual(read("ADD", { ...GOOD, CNI_ARGS: "A=1", CNI_NETNS_OVERRIDE: "True" }), {
    containerId: "c1",
    netns: "/run/netns/x",
    ifName: "eth0",
    args: "A=1",
    path: "",
    netnsOverride: true,
  });
  assert.equal(read("DEL", { ...GOOD, CNI_NETNS: "" }).netns, "");
});

for (
  const [name, command, variables, message] of [
    [
      "all that is missing",
      "ADD",
      {},
      "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME missing in the environment: " +
      "ADD needs CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME",
    ],
    [
      "what is empty",
      "DEL",
      { ...GOOD, CNI_IFNAME: "" },
      "CNI_IFNAME missing in the environment: DEL needs CNI_CONTAINERID, CNI_IFNAME",
    ],
    [
      "an id that is a path",
      "DEL",
      { ...GOOD, CNI_CONTAINERID: "../c1" },
      'CNI_CONTAINERID="../c1" in the environment must be a letter or digit, ' +
      "then letters, digits, '_', '.' and '-'",
    ],
    [
      "a name that is too long",
      "ADD",
      { ...GOOD, CNI_IFNAME: "e123456789012345" },
      'CNI_IFNAME="e123456789012345" in the environment ' +
      "is too long: a device's name has at most 15 bytes",
    ],
    [
      "a name that is none",
      "ADD",
      { ...GOOD, CNI_IFNAME: "eth 0" },
      `CNI_IFNAME="eth 0" in the environment must have no '/', ':' or white space`,
    ],
    [
      "a name that the kernel would make another of",
      "ADD",
      { ...GOOD, CNI_IFNAME: "eth%d" },
      `CNI_IFNAME="eth%d" in the environment must have no '%': ` +
      "the kernel puts a number in its place",
    ],
    [
      "a name that the kernel keeps for itself",
      "CHECK",
      { ...GOOD, CNI_IFNAME: "default" },
      `CNI_IFNAME="default" in the environment is the kernel's name for the settings of new devices`,
    ],
  ] as const
) {
  Deno.test(`readVariables names ${name}`, () => {
    assert.throws(() => read(command, variables), { code: 4, message });
  });
}

Deno.test("interfaceNameProblem and isCniName keep the spec's rules", () => {
  for (const good of ["eth0", "e12345678901234", "ünï", "a.b", "alle", "a-b", "0", "lo0"]) {
    assert.equal(interfaceNameProblem(good), undefined, good);
  }
  const expanded = ["eth%d", "%d", "a%b", "%", "e%%"], special = ["all", "default", "lo"];
  const spaces = ["a b", "a\tb", "a\v", "a\n", "\0", "à", "a\u00a0b"];
  for (const bad of ["", ".", "..", "a/b", "a:b", "üüüüüüüü", ...expanded, ...special, ...spaces]) {
    assert.notEqual(interfaceNameProblem(bad), undefined, bad);
  }
  for (const good of ["a", "9_.-", "cbr0"]) assert.ok(isCniName(good), good);
  for (const bad of ["", ".a", "-a", "a/b", "a b", "a\n"]) assert.ok(!isCniName(bad), bad);
});

Deno.test("readArgs reads MAC and IP, and passes others by where it may", () => {
  const args = readArgs("K8S_POD=x=y;IgnoreUnknown=1;MAC=02-00-00-00-00-01;IP=10.5.3.9/24");
  assert.equal(`${args.mac}`, "02:00:00:00:00:01");
  assert.equal(`${args.ip}`, "10.5.3.9");
  assert.deepEqual(readArgs(""), { mac: undefined, ip: undefined });
  assert.deepEqual(readArgs("IP=;MAC="), { mac: undefined, ip: undefined });
});

for (
  const [text, reason] of [
    ["IP", /has "IP", which is not KEY=VALUE/],
    ["IP=10.5.3", /has IP, which is not an IP address/],
    ["MAC=1", /has MAC, which is not an Ethernet address/],
    ["IgnoreUnknown=maybe", /has IgnoreUnknown, which is not true or false/],
    ["A=1;B=2", /has A, B, which denim does not know/],
    ["IgnoreUnknown=0;A=1", /has A, which denim does not know/],
  ] as const
) {
  Deno.test(`readArgs refuses ${text}`, () => {
    assert.throws(() => readArgs(text), (error: { code?: number; message?: string }) => {
      assert.equal(error.code, 4);
      assert.match(error.message!, reason);
      assert.match(error.message!, /^CNI_ARGS=/);
      return true;
    });
  });
}
