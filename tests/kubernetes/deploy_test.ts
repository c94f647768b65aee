/** `deploy/`: the manifest, the chart, and that both say the same. */

import assert from "node:assert/strict";
import { parseNetworkConfig } from "@denim/core";
import { parse } from "yaml";
import agent from "../../agent/deno.json" with { type: "json" };
import type { ParsedFlags } from "../../agent/flag_table.ts";
import { type AgentFlag, parseAgentFlags } from "../../agent/flags.ts";
import { runsDenim } from "../../agent/install/cni_conf.ts";
import { CHART, helmProgram, renderChart } from "./helm.ts";
import { DENIM_IMAGE } from "./image.ts";
import { type KubeObject, objectsOf, readManifest } from "./manifest.ts";

/** The values of flannel's chart (v0.28.9), less those of what denim does not have: another image for the plugin, netpol. */
const FLANNELS_VALUES = [
  ...["global.imagePullSecrets", "podCidr", "podCidrv6"],
  ...["image.repository", "image.tag", "cniBinDir", "cniConfDir", "skipCNIConfigInstallation"]
    .concat([
      "enableNFTables",
      "args",
      "backend",
      "backendPort",
      "mtu",
      "vni",
      "GBP",
      "directRouting",
    ])
    .concat(["backendPortv6", "psk", "tunnelMode", "keepaliveInterval", "cniConf", "resources"])
    .concat([
      "healthz.port",
      "healthz.livenessProbe",
      "healthz.readinessProbe",
      "tolerations",
      "nodeSelector",
    ])
    .map((name) => `denim.${name}`),
];

interface Container {
  readonly image: string;
  readonly args?: readonly string[];
  readonly securityContext: {
    readonly allowPrivilegeEscalation: boolean;
    readonly readOnlyRootFilesystem: boolean;
    readonly capabilities: { readonly drop: readonly string[]; readonly add?: readonly string[] };
  };
}

interface PodSpec {
  readonly initContainers: readonly Container[];
  readonly containers: readonly Container[];
}

function read(name: string): KubeObject[] {
  return objectsOf(readManifest(name));
}

function find(objects: readonly KubeObject[], kind: string): KubeObject {
  return objects.find((one) => one.kind === kind)!;
}

function podOf(objects: readonly KubeObject[]): PodSpec {
  return (find(objects, "DaemonSet") as unknown as { spec: { template: { spec: PodSpec } } })
    .spec.template.spec;
}

function configOf(objects: readonly KubeObject[]): Readonly<Record<string, string>> {
  return (find(objects, "ConfigMap") as unknown as { data: Record<string, string> }).data;
}

/** Files in a ConfigMap as values: their spaces do not matter. */
function comparable(objects: readonly KubeObject[]): KubeObject[] {
  return objects.filter(({ kind }) => kind !== "Namespace").map((object) => {
    if (object.kind !== "ConfigMap") return object;
    const data = Object.entries(configOf([object])).map(([name, text]) => [name, JSON.parse(text)]);
    return { ...object, data: Object.fromEntries(data) };
  }).toSorted((one, other) => one.kind < other.kind ? -1 : 1);
}

Deno.test("the manifest: denim takes its arguments and its files, and it asks for no more than it needs", () => {
  const objects = read("denim.yml");
  const { initContainers, containers } = podOf(objects);
  const [denim] = containers;
  assert.equal(denim!.args![0], "agent");
  assert.equal(typeof parseAgentFlags(denim!.args!.slice(1), {}), "object");
  const config = configOf(objects);
  assert.equal(parseNetworkConfig(config["net-conf.json"]!).backend.type, "vxlan");
  assert.ok(runsDenim(config["cni-conf.json"]!));

  for (const { image, securityContext } of [...initContainers, ...containers]) {
    assert.equal(image, DENIM_IMAGE);
    assert.equal(securityContext.allowPrivilegeEscalation, false);
    assert.equal(securityContext.readOnlyRootFilesystem, true);
    assert.deepEqual(securityContext.capabilities.drop, ["ALL"]);
  }
  assert.deepEqual(initContainers.flatMap((one) => one.securityContext.capabilities.add ?? []), []);
  assert.deepEqual(denim!.securityContext.capabilities.add, ["NET_ADMIN", "NET_RAW"]);
  assert.equal(DENIM_IMAGE.split(":")[1], agent.version);
});

Deno.test("the chart has flannel's values, and its templates use none that it does not have", () => {
  const values = parse(Deno.readTextFileSync(`${CHART}/values.yaml`));
  const has = (path: string) => {
    let value = values;
    return path.split(".").every((name) =>
      typeof value === "object" && value !== null && name in value && (value = value[name], true)
    );
  };
  assert.deepEqual(FLANNELS_VALUES.filter((path) => !has(path)), []);
  const templates = [...Deno.readDirSync(`${CHART}/templates`)]
    .map(({ name }) => Deno.readTextFileSync(`${CHART}/templates/${name}`)).join("\n");
  const used = [...templates.matchAll(/\.Values\.([\w.]+)/g)].map(([, path]) => path!)
    .concat([...templates.matchAll(/\$denim\.([\w.]+)/g)].map(([, path]) => `denim.${path}`));
  assert.ok(used.length > 30);
  assert.deepEqual([...new Set(used)].filter((path) => !has(path)), []);
  const chart = parse(Deno.readTextFileSync(`${CHART}/Chart.yaml`));
  assert.deepEqual([chart.version, chart.appVersion], [agent.version, agent.version]);
});

function helmTest(name: string, run: () => Promise<void>): void {
  const missing = helmProgram() === undefined;
  Deno.test({ name: missing ? `${name} (needs helm)` : name, ignore: missing, fn: run });
}

helmTest("the chart says what the manifest says", async () => {
  const chart = objectsOf(await renderChart());
  assert.deepEqual(comparable(chart), comparable(read("denim.yml")));
});

helmTest("the chart's hook does what uninstall.yml does, and waits for it", async () => {
  const chart = objectsOf(await renderChart({ uninstall: { enabled: true, args: ["--yes"] } }));
  const hooks = chart.filter(({ metadata }) => metadata.name === "denim-uninstall");
  const spec = (objects: readonly KubeObject[]) => find(objects, "DaemonSet")["spec"];
  assert.deepEqual(spec(hooks), spec(read("uninstall/uninstall.yml")));
  assert.deepEqual(hooks.map(({ kind }) => kind).toSorted(), [
    ...["DaemonSet", "Job", "Role", "RoleBinding", "ServiceAccount"],
  ]);
  for (const { metadata } of hooks) {
    const annotations = metadata["annotations" as never] as Readonly<Record<string, string>>;
    assert.equal(annotations["helm.sh/hook"], "post-delete");
  }
});

helmTest("the chart's values become net-conf", async () => {
  const netConf = async (values: object) =>
    JSON.parse(configOf(objectsOf(await renderChart(values)))["net-conf.json"]!);
  assert.deepEqual(
    await netConf({
      podCidrv6: "fd00:10::/56",
      denim: {
        enableNFTables: false,
        vni: 4_096,
        backendPort: 4_789,
        directRouting: true,
        mtu: 1_400,
      },
    }),
    {
      Network: "10.244.0.0/16",
      IPv6Network: "fd00:10::/56",
      EnableIPv6: true,
      EnableNFTables: false,
      Backend: { Type: "vxlan", VNI: 4_096, Port: 4_789, DirectRouting: true, MTU: 1_400 },
    },
  );
  assert.deepEqual(
    await netConf({
      podCidr: "",
      podCidrv6: "fd00:10::/56",
      denim: {
        backend: "wireguard",
        backendPort: 51_822,
        psk: "a",
        backendOptions: { Mode: "ipv6" },
      },
    }),
    {
      EnableIPv4: false,
      IPv6Network: "fd00:10::/56",
      EnableIPv6: true,
      Backend: { Type: "wireguard", ListenPort: 51_822, PSK: "a", Mode: "ipv6" },
    },
  );
});

helmTest(
  "the chart's agents serve metrics beyond loopback if asked, and are probed on loopback",
  async () => {
    const { containers } = podOf(
      objectsOf(await renderChart({ denim: { healthz: { ip: "::" } } })),
    );
    const [agent] = containers as readonly (Container & { livenessProbe: { httpGet: object } })[];
    const { values } = parseAgentFlags(agent!.args!.slice(1), {}) as ParsedFlags<AgentFlag>;
    assert.equal(`${values["healthz-ip"]}`, "::");
    assert.deepEqual(agent!.livenessProbe.httpGet, {
      host: "127.0.0.1",
      port: 8081,
      path: "/healthz",
    });
  },
);

helmTest(
  "the chart without probes, with udp's device, with the configuration left to others",
  async () => {
    const text = await renderChart({
      denim: { healthz: { port: 0 }, backend: "udp", skipCNIConfigInstallation: true },
    });
    const { initContainers, containers } = podOf(objectsOf(text));
    assert.ok(!("livenessProbe" in containers[0]!) && !text.includes("healthz-port"));
    assert.match(text, /mountPath: \/dev\/net\/tun/);
    assert.deepEqual(containers[0]!.securityContext.capabilities.add, ["NET_ADMIN", "NET_RAW"]);
    const mounts =
      (initContainers[0] as unknown as { volumeMounts: { mountPath: string; name: string }[] })
        .volumeMounts;
    assert.equal(mounts.find(({ mountPath }) => mountPath === "/etc/cni/net.d")!.name, "tmp");
  },
);
