import { ConfigError, IpAddress } from "@denim/core";
import assert from "node:assert/strict";
import type { ParsedFlags } from "./flag_table.ts";
import {
  AGENT_FLAGS,
  type AgentFlag,
  type AgentFlags,
  agentHelp,
  ignoredFlags,
  parseAgentFlags,
} from "./flags.ts";

type Environment = Readonly<Record<string, string>>;

function parse(args: readonly string[], environment: Environment = {}): ParsedFlags<AgentFlag> {
  const flags = parseAgentFlags(args, environment);
  assert.ok(typeof flags !== "string");
  return flags;
}

Deno.test("the agent's defaults", () => {
  const { values, source } = parse([]);
  const { iface, "iface-regex": ifaceRegex, "iface-can-reach": ifaceCanReach } = values;
  assert.deepEqual([iface, ifaceRegex, ifaceCanReach], [[], [], undefined]);
  assert.deepEqual([values["public-ip"], values["public-ipv6"]], [undefined, undefined]);
  assert.equal(values["subnet-file"], "/run/flannel/subnet.env");
  assert.equal(values["subnet-lease-renew-margin"], 60 * 60_000);
  assert.equal(values["net-config-path"], "/etc/kube-flannel/net-conf.json");
  assert.equal(`${values["healthz-ip"]} ${values["healthz-port"]}`, "127.0.0.1 0");
  assert.deepEqual([values["log-format"], values.debug], ["text", false]);
  assert.deepEqual([values["ip-masq"], values["ip-masq-fully-random-disable"]], [false, false]);
  assert.equal(source("net-config-path"), "default");
});

Deno.test("help names every flag but those without effect, in lines of at most 100 columns", () => {
  const help = agentHelp();
  for (const { name, help: text } of AGENT_FLAGS) {
    assert.equal(new RegExp(`^  --${name} `, "m").test(help), text !== undefined, name);
  }
  const long = help.split("\n").filter((line) => line.length > 100);
  assert.deepEqual(long, []);
});

Deno.test("no two flags share a name", () => {
  const names = AGENT_FLAGS.map(({ name }) => name);
  assert.deepEqual(names, [...new Set(names)]);
});

/** What is given, and what comes of it: values by name. */
type Case = readonly [args: readonly string[], Environment, Partial<AgentFlags>];

const ADDRESS = IpAddress.parse("192.0.2.1");
const CASES: readonly Case[] = [
  // One dash or two, the value behind = or a space.
  [["-public-ip=192.0.2.1"], {}, { "public-ip": ADDRESS }],
  [["--public-ip=192.0.2.1"], {}, { "public-ip": ADDRESS }],
  [["-public-ip", "192.0.2.1"], {}, { "public-ip": ADDRESS }],
  [["--public-ip", "192.0.2.1"], {}, { "public-ip": ADDRESS }],
  // A value may begin with a dash; the last one counts.
  [["--subnet-file", "-x"], {}, { "subnet-file": "-x" }],
  [["--log-format", "json", "--log-format=text"], {}, { "log-format": "text" }],
  // Interfaces add up, in their order.
  [["--iface", "eth1", "--iface=10.0.0.1"], {}, { iface: ["eth1", "10.0.0.1"] }],
  // The environment gives what the arguments leave out.
  [[], { FLANNELD_PUBLIC_IPV6: "fd99::1" }, { "public-ipv6": IpAddress.parse("fd99::1") }],
  [[], { FLANNELD_IFACE: "eth7" }, { iface: ["eth7"] }],
  [["--iface", "eth0"], { FLANNELD_IFACE: "eth7" }, { iface: ["eth0"] }],
  [[], { FLANNELD_DEBUG: "true" }, { debug: true }],
  [[], { FLANNELD_DEBUG: "0" }, { debug: false }],
  [["--debug"], { FLANNELD_DEBUG: "false" }, { debug: true }],
  [["--debug=false"], { FLANNELD_DEBUG: "true" }, { debug: false }],
  // Empty variables are ignored; help and version are asked for by arguments alone.
  [[], { FLANNELD_HEALTHZ_IP: "", FLANNELD_IFACE: "", FLANNELD_DEBUG: "" }, {
    "healthz-ip": IpAddress.parse("127.0.0.1"),
    iface: [],
    debug: false,
  }],
  [[], { FLANNELD_VERSION: "v0.26.1", FLANNELD_HELP: "true" }, {}],
  // Masquerade.
  [["--ip-masq"], {}, { "ip-masq": true, "ip-masq-fully-random-disable": false }],
  [["-ip-masq=t", "-ip-masq-fully-random-disable"], {}, {
    "ip-masq": true,
    "ip-masq-fully-random-disable": true,
  }],
  [[], { FLANNELD_IP_MASQ: "true" }, { "ip-masq": true }],
  [["--ip-masq=false"], { FLANNELD_IP_MASQ: "true" }, { "ip-masq": false }],
  [["--ip-blackhole-route"], {}, { "ip-blackhole-route": true }],
  [[], { FLANNELD_IP_BLACKHOLE_ROUTE: "F" }, { "ip-blackhole-route": false }],
  [[], {}, { "iptables-forward-rules": true, "iptables-resync": 5 }],
  [["--iptables-forward-rules=0", "--iptables-resync=30"], {}, {
    "iptables-forward-rules": false,
    "iptables-resync": 30,
  }],
  // Kubernetes is followed if it is chosen, and its other flags harm nothing if it is not.
  [["--kube-subnet-mgr", "--kubeconfig-file", "", "--kube-api-url="], {}, {
    "kube-subnet-mgr": true,
    "kubeconfig-file": undefined,
    "kube-api-url": undefined,
    "kube-annotation-prefix": "flannel.alpha.coreos.com",
    "set-node-network-unavailable": true,
  }],
  [["-kube-subnet-mgr=false", "--set-node-network-unavailable=false"], {}, {
    "kube-subnet-mgr": false,
    "set-node-network-unavailable": false,
  }],
  // klog's flags, whose values may stand apart.
  [["-v=4", "--logtostderr", "--vmodule=a=1", "--alsologtostderr=true", "--debug"], {}, {
    debug: true,
  }],
  [["-v", "4", "-stderrthreshold", "INFO", "--log_dir", "/x"], {}, {}],
];

for (const [args, environment, expected] of CASES) {
  const variables = Object.entries(environment).map((pair) => pair.join("="));
  Deno.test(`flags: ${[...variables, ...args].join(" ")}`, () => {
    const { values } = parse(args, environment);
    for (const [name, value] of Object.entries(expected)) {
      assert.deepEqual(values[name as keyof AgentFlags], value, name);
    }
  });
}

Deno.test("--help and --version are answered whatever else is given", () => {
  assert.equal(parseAgentFlags(["--iface=", "--help"], {}), "help");
  assert.equal(parseAgentFlags(["-version"], { FLANNELD_PUBLIC_IP: "x" }), "version");
});

Deno.test("--iface-regex is Go's, and may be repeated", () => {
  const { values } = parse(["--iface-regex", "(?i)ETH.*", "--iface-regex=^ens"]);
  assert.deepEqual(values["iface-regex"].map(({ source }) => source), ["(?i)ETH.*", "^ens"]);
  assert.equal(values["iface-regex"][0]!.test("eth0"), true);
});

Deno.test("flags without effect are told by the names that they were given under", () => {
  const flags = parse(["-v=4", "--logtostderr", "--ip-masq"], {
    FLANNELD_ONE_OUTPUT: "true",
  });
  assert.deepEqual(ignoredFlags(flags), ["--logtostderr", "FLANNELD_ONE_OUTPUT", "--v"]);
});

const WRONG: readonly (readonly [readonly string[], Environment, message: string | RegExp])[] = [
  [["--nonsense"], {}, "--nonsense: denim agent has no such flag; see denim agent --help"],
  [["--no-debug"], {}, /^--no-debug: denim agent has no such flag/],
  [["--etcd-pasword", "hunter2"], {}, /^--etcd-pasword: denim agent has no such flag/],
  [["--etcd-pasword=hunter2"], {}, /^--etcd-pasword: denim agent has no such flag/],
  [["stray"], {}, "stray: not a flag: denim agent takes no operands"],
  [["--debug", "false"], {}, "false: not a flag: denim agent takes no operands"],
  [["--", "-v"], {}, "-v: not a flag: denim agent takes no operands"],
  [["--ip-blackhole-route=2"], {}, '--ip-blackhole-route: "2" is neither true nor false'],
  [["--ip-masq=yes"], {}, '--ip-masq: "yes" is neither true nor false'],
  [["--debug=maybe"], {}, '--debug: "maybe" is neither true nor false'],
  [["--iface="], {}, "--iface: the value is empty"],
  [["--subnet-file="], {}, "--subnet-file: the value is empty"],
  [["--subnet-file"], {}, "--subnet-file: a value is missing"],
  [["--iface-regex", "("], {}, /^--iface-regex: "\(" is not a regular expression .*closing \)/],
  [["--iface-can-reach", "eth0"], {}, '--iface-can-reach: "eth0" is not a valid IP address'],
  [["--public-ip", "fd99::1"], {}, '--public-ip: "fd99::1" is not a valid IPv4 address'],
  [[], { FLANNELD_PUBLIC_IPV6: "10.0.0.1" }, /^FLANNELD_PUBLIC_IPV6: .* valid IPv6 address$/],
  [["--subnet-lease-renew-margin", "1440"], {}, /"1440" is not a whole number from 1 to 1439$/],
  [["--subnet-lease-renew-margin", "1.5"], {}, /"1\.5" is not a whole number/],
  [["--healthz-port", "70000"], {}, /from 0 to 65535/],
  [["--healthz-ip", "localhost"], {}, /^--healthz-ip: "localhost" is not a valid IP address/],
  [["--log-format", "xml"], {}, '--log-format: "xml" is not one of text, json'],
];

for (const [args, environment, message] of WRONG) {
  const variables = Object.entries(environment).map((pair) => pair.join("="));
  Deno.test(`wrong flags: ${[...variables, ...args].join(" ")}`, () => {
    assert.throws(() => parseAgentFlags(args, environment), (error) => {
      assert.ok(error instanceof ConfigError);
      if (typeof message === "string") assert.equal(error.message, message);
      else assert.match(error.message, message);
      assert.doesNotMatch(error.message, /hunter2/);
      return true;
    });
  });
}
