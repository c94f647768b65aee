import assert from "node:assert/strict";
import { type Answer, answer, type Question } from "./plugin.ts";

const ENVIRONMENT = {
  CNI_COMMAND: "ADD",
  CNI_CONTAINERID: "c1",
  CNI_NETNS: "/nowhere/netns",
  CNI_IFNAME: "eth0",
};
const CONF = {
  cniVersion: "0.4.0",
  name: "cbr0",
  type: "denim",
  subnetFile: "/nowhere/subnet.env",
};
const LATEST = { ...CONF, cniVersion: "1.1.0" };
const CHECK = { ...ENVIRONMENT, CNI_COMMAND: "CHECK" };

async function carriedOut(question: Question): Promise<Answer> {
  const answered = answer(question);
  return typeof answered === "function" ? await answered() : answered;
}

async function ask(environment: Readonly<Record<string, string>>, input: string | object = CONF) {
  const text = typeof input === "string" ? input : JSON.stringify(input);
  const { output, failed } = await carriedOut({
    read: (name) => environment[name],
    readInput: () => text,
    warn: console.error,
  });
  return { failed, json: JSON.parse(output) };
}

Deno.test("VERSION answers in the runtime's version", async () => {
  for (const [input, cniVersion] of [['{"cniVersion":"0.4.0"}', "0.4.0"], ["", "1.1.0"]] as const) {
    assert.deepEqual(await ask({ CNI_COMMAND: "VERSION" }, input), {
      failed: false,
      json: {
        cniVersion,
        supportedVersions: ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
      },
    });
  }
});

for (
  const [name, environment, input, cniVersion, code, message] of [
    ["no command", {}, CONF, "1.1.0", 4, /CNI_COMMAND is missing/],
    ["an unknown command", { CNI_COMMAND: "PUT" }, CONF, "1.1.0", 4, /PUT .* not a command of CNI/],
    ["CHECK of nothing", { CNI_COMMAND: "CHECK" }, CONF, "1.1.0", 4, /CNI_CONTAINERID, CNI_NETNS/],
    ["CHECK before 0.4.0", CHECK, { ...CONF, cniVersion: "0.3.1" }, "0.3.1", 1, /has no CHECK/],
    ["CHECK without prevResult", CHECK, CONF, "0.4.0", 7, /prevResult is missing/],
    ["GC before 1.1.0", { CNI_COMMAND: "GC" }, CONF, "0.4.0", 1, /"0\.4\.0" has no GC/],
    [
      "GC without a list",
      { CNI_COMMAND: "GC" },
      LATEST,
      "1.1.0",
      7,
      /valid-attachments is missing/,
    ],
    ["STATUS before 1.1.0", { CNI_COMMAND: "STATUS" }, CONF, "0.4.0", 1, /has no STATUS/],
    ["STATUS without subnet.env", { CNI_COMMAND: "STATUS" }, LATEST, "1.1.0", 50, /there is no/],
    ["a prototype's name", { CNI_COMMAND: "toString" }, CONF, "1.1.0", 4, /not a command of CNI/],
    ["missing variables", { CNI_COMMAND: "ADD" }, CONF, "1.1.0", 4, /CNI_CONTAINERID, CNI_NETNS/],
    ["no JSON", ENVIRONMENT, "{", "1.1.0", 6, /standard input is not JSON/],
    ["no input", ENVIRONMENT, "", "1.1.0", 6, /it is empty/],
    ["another version", ENVIRONMENT, { ...CONF, cniVersion: "9.9.9" }, "1.1.0", 1, /"9\.9\.9"/],
    ["CHECK without a version", CHECK, { name: "cbr0" }, "0.1.0", 1, /"0\.1\.0" has no CHECK/],
    [
      "0.2.0, in its own words",
      ENVIRONMENT,
      { ...CONF, cniVersion: "0.2.0" },
      "0.2.0",
      11,
      /there is no \/nowhere\/subnet\.env/,
    ],
    ["no name", ENVIRONMENT, { ...CONF, name: "" }, "0.4.0", 7, /name is ""/],
    ["no subnet.env", ENVIRONMENT, CONF, "0.4.0", 11, /there is no \/nowhere\/subnet\.env/],
  ] as const
) {
  Deno.test(`the plugin answers with the spec's error: ${name}`, async () => {
    const { failed, json } = await ask(environment as Record<string, string>, input);
    assert.match(json.msg, message);
    assert.deepEqual([failed, json.cniVersion, json.code], [true, cniVersion, code]);
  });
}

for (
  const [name, text, message] of [
    ["empty", "", /cut short: .*FLANNEL_SUBNET/],
    [
      "cut between lines",
      "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.3.1/24\n",
      /FLANNEL_MTU/,
    ],
    [
      "cut in the last word",
      "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=tr",
      /FLANNEL_IPMASQ=tr/,
    ],
    ["junk", "\0\0\0\0\0\0\xff\n=\n", /cut short: .*FLANNEL_SUBNET/],
    [
      "of another network's subnet",
      "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.6.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
      /the subnet 10\.6\.3\.0\/24 is not in the network 10\.5\.0\.0\/16; restart the agent/,
    ],
  ] as const
) {
  Deno.test(`ADD refuses a subnet.env that is ${name}`, async () => {
    const subnetFile = Deno.makeTempFileSync({ prefix: "denim-subnet-" });
    try {
      Deno.writeTextFileSync(subnetFile, text);
      const { failed, json } = await ask(ENVIRONMENT, { ...CONF, subnetFile });
      assert.match(json.msg, message);
      assert.deepEqual([failed, json.code], [true, 6]);
    } finally {
      Deno.removeSync(subnetFile);
    }
  });
}

Deno.test("a defect of denim's is an error of CNI, with its stack there and on standard error", async () => {
  const told: string[] = [];
  const { output, failed } = await carriedOut({
    read: (name) => ENVIRONMENT[name as "CNI_IFNAME"],
    readInput: () => {
      throw new TypeError("x is undefined");
    },
    warn: (line) => told.push(line),
  });
  const { code, msg, details } = JSON.parse(output);
  assert.deepEqual([failed, code, msg], [true, 999, "x is undefined"]);
  assert.match(details, /denim has a defect; .*TypeError: x is undefined\n +at .*plugin_test/);
  assert.deepEqual(told, [details]);
});
