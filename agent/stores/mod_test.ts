import { ConfigError } from "@denim/core";
import assert from "node:assert/strict";
import { parseFlags } from "../flag_table.ts";
import { chooseStore, type ChosenStore, STORE_FLAGS } from "./mod.ts";

type Environment = Readonly<Record<string, string>>;

function choose(args: readonly string[], environment: Environment = {}): ChosenStore {
  const flags = parseFlags("denim agent", STORE_FLAGS, { args, environment });
  return chooseStore(flags);
}

const ETCD = {
  endpoints: ["http://127.0.0.1:4001", "http://127.0.0.1:2379"],
  prefix: "/coreos.com/network",
  username: undefined,
  password: undefined,
  certFile: undefined,
  keyFile: undefined,
  caFile: undefined,
};
const AT_1 = { ...ETCD, endpoints: ["http://10.0.0.1:2379"] };
const ENDPOINTS = "--etcd-endpoints=http://10.0.0.1:2379";
const FROM_ENVIRONMENT = { FLANNELD_ETCD_ENDPOINTS: "http://10.0.0.1:2379" };

const KUBERNETES = {
  apiUrl: undefined,
  kubeconfigFile: undefined,
  annotationPrefix: "flannel.alpha.coreos.com",
  setNetworkUnavailable: true,
};

const CASES: readonly (readonly [readonly string[], Environment, name: string, spec: unknown])[] = [
  [[], {}, "sqlite", { path: "/var/lib/denim/denim.db" }],
  [["--store", "sqlite:/x"], {}, "sqlite", { path: "/x" }],
  [["--store", "sqlite:C:x"], {}, "sqlite", { path: "C:x" }],
  [["--store", "etcd"], {}, "etcd", ETCD],
  [["--store", "etcd", ENDPOINTS], {}, "etcd", AT_1],
  // A store's own flag chooses it.
  [["--etcd-prefix=/other"], {}, "etcd", { ...ETCD, prefix: "/other" }],
  [[], FROM_ENVIRONMENT, "etcd", AT_1],
  [[], { FLANNELD_ETCD_ENDPOINTS: "" }, "sqlite", { path: "/var/lib/denim/denim.db" }],
  // --store wins; an argument wins over the environment.
  [["--store", "sqlite:/x"], FROM_ENVIRONMENT, "sqlite", { path: "/x" }],
  [[], { ...FROM_ENVIRONMENT, FLANNELD_STORE: "sqlite:/x" }, "sqlite", { path: "/x" }],
  [[ENDPOINTS], { FLANNELD_STORE: "sqlite:/x" }, "etcd", AT_1],
  // Kubernetes' switch chooses it if it is on, before etcd's flags; no other flag of its own does.
  [["--kube-subnet-mgr"], {}, "kubernetes", KUBERNETES],
  [["--kube-subnet-mgr=false"], {}, "sqlite", { path: "/var/lib/denim/denim.db" }],
  [["--kube-subnet-mgr=false"], FROM_ENVIRONMENT, "etcd", AT_1],
  [[], { ...FROM_ENVIRONMENT, FLANNELD_KUBE_SUBNET_MGR: "true" }, "kubernetes", KUBERNETES],
  [["--kube-subnet-mgr", ENDPOINTS], FROM_ENVIRONMENT, "kubernetes", KUBERNETES],
  [["--kube-api-url=https://10.0.0.1:6443"], {}, "sqlite", { path: "/var/lib/denim/denim.db" }],
  [
    [
      "--store=kubernetes",
      "--kubeconfig-file=/k",
      "--kube-api-url=https://10.0.0.1:6443",
      "--kube-annotation-prefix=example.org",
      "--set-node-network-unavailable=false",
    ],
    {},
    "kubernetes",
    {
      apiUrl: "https://10.0.0.1:6443",
      kubeconfigFile: "/k",
      annotationPrefix: "example.org",
      setNetworkUnavailable: false,
    },
  ],
  // How etcd is reached.
  [["--etcd-endpoints", "https://etcd-1:2379, 10.0.0.1,http://[fd00::1]:80,"], {}, "etcd", {
    ...ETCD,
    endpoints: ["https://etcd-1:2379", "http://10.0.0.1:2379", "http://[fd00::1]:80"],
  }],
  [["--etcd-cafile=/ca", "--etcd-certfile=/cert", "--etcd-keyfile=/key"], {}, "etcd", {
    ...ETCD,
    caFile: "/ca",
    certFile: "/cert",
    keyFile: "/key",
  }],
  [["--etcd-username", "flannel"], { FLANNELD_ETCD_PASSWORD: "hunter2" }, "etcd", {
    ...ETCD,
    username: "flannel",
    password: "hunter2",
  }],
];

for (const [args, environment, name, spec] of CASES) {
  const variables = Object.entries(environment).map((pair) => pair.join("="));
  Deno.test(`store: ${[...variables, ...args].join(" ") || "nothing said"}`, () => {
    const chosen = choose(args, environment);
    assert.equal(chosen.kind.name, name);
    assert.deepEqual(chosen.spec, spec);
  });
}

const WRONG: readonly (readonly [readonly string[], Environment, message: string | RegExp])[] = [
  [
    ["--store", "postgres:x"],
    {},
    '--store: "postgres:x" is not a store; use kubernetes, etcd, or sqlite:PATH',
  ],
  [[], { FLANNELD_STORE: "x" }, /^FLANNELD_STORE: "x" is not a store/],
  [["--store", "sqlite:"], {}, "--store sqlite: the path is missing"],
  [
    ["--store", "kubernetes:x"],
    {},
    /^--store kubernetes:x: --kubeconfig-file or --kube-api-url says/,
  ],
  [
    ["--store", "sqlite:/x", "--kube-subnet-mgr"],
    {},
    /^--store sqlite:\/x and --kube-subnet-mgr: /,
  ],
  [["--store", "etcd:10.0.0.1"], {}, /^--store etcd:10\.0\.0\.1: --etcd-endpoints says/],
  [
    ["--store", "sqlite:/x", "--etcd-prefix", "/y"],
    {},
    "--store sqlite:/x and --etcd-prefix: leases live in one store; leave one out",
  ],
  [["--etcd-password=hunter2"], {}, "--etcd-password needs --etcd-username"],
  [[], { FLANNELD_ETCD_PASSWORD: "hunter2" }, "FLANNELD_ETCD_PASSWORD needs --etcd-username"],
  [["--etcd-endpoints", "http://me:hunter2@10.0.0.1:2379"], {}, /give --etcd-username/],
  [["--etcd-endpoints", "ftp://10.0.0.1"], {}, /^--etcd-endpoints: "ftp:.*" is not a URL such as/],
  [["--etcd-endpoints", "http://10.0.0.1:2379/v3"], {}, /is not a URL such as/],
  [["--etcd-endpoints", ","], {}, "--etcd-endpoints: it names no server"],
  [["--etcd-certfile", "/a"], {}, /^--etcd-certfile and --etcd-keyfile go together/],
];

for (const [args, environment, message] of WRONG) {
  const variables = Object.entries(environment).map((pair) => pair.join("="));
  Deno.test(`wrong store: ${[...variables, ...args].join(" ")}`, () => {
    assert.throws(() => choose(args, environment), (error) => {
      assert.ok(error instanceof ConfigError);
      if (typeof message === "string") assert.equal(error.message, message);
      else assert.match(error.message, message);
      assert.doesNotMatch(error.message, /hunter2/);
      return true;
    });
  });
}
