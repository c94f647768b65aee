/**
 * A machine that becomes a node by `denim install --systemd`, and is one no more after `denim uninstall`. Mounts and the
 * network are the test's own; a script stands in for systemd. With a real one: tests/vm/service.sh.
 */

import assert from "node:assert/strict";
import { bundle } from "../.ci/bundle.ts";
import { denoFlags } from "../agent/program.ts";
import { rootTest } from "./support/root_test.ts";
import { TempFolder } from "./support/temp_folder.ts";

/** Starts and stops the service as its unit says, and takes note of what it is asked. */
const SYSTEMCTL = `#!/bin/sh
echo "$*" >>/run/asked
case "$*" in
  "restart denim.service" | "start denim.service")
    [ ! -e /run/agent ] || kill "$(cat /run/agent)"
    set -a; eval "$(sed -n 's/^Environment=//p' /etc/systemd/system/denim.service)"; . /etc/denim/denim.env; set +a
    eval "$(sed -n 's/^ExecStart=//p' /etc/systemd/system/denim.service) >/run/agent.log 2>&1 &"
    echo $! >/run/agent
    for i in $(seq 300); do [ ! -e /run/flannel/subnet.env ] || exit 0; sleep 0.1; done
    cat /run/agent.log >&2; exit 1 ;;
  "cat flanneld.service") cat "$FLANNELD_UNIT" ;;
  "disable --now --quiet denim.service")
    agent=$(cat /run/agent); kill "$agent"; rm /run/agent /run/agent.log
    while [ -e "/proc/$agent/exe" ]; do sleep 0.1; done ;;
esac
`;

/** What Fedora's package has. */
const FLANNELD_UNIT = `# /usr/lib/systemd/system/flanneld.service
[Unit]
Description=Flanneld overlay address etcd agent
Before=docker.service

[Service]
Type=notify
EnvironmentFile=/etc/sysconfig/flanneld
EnvironmentFile=-/etc/sysconfig/docker-network
ExecStart=/usr/bin/flanneld-start \\
    -iface=eth0 $FLANNEL_OPTIONS
ExecStartPost=/usr/libexec/flannel/mk-docker-opts.sh -k DOCKER_NETWORK_OPTIONS -d /run/flannel/docker
Restart=on-failure
`;

const SCRIPT = `
set -eu
for folder in /opt /etc/cni /etc/systemd/system /etc/denim /var/lib /var/cache /run; do
  mkdir -p "$folder"; mount -t tmpfs denim-test "$folder"
done
mkdir /run/systemd /run/systemd/system /run/netns
mount -t sysfs denim-test /sys
ip netns add pod; ip netns add switch
ip link set lo up; ip link add wire type veth peer name port netns switch; ip -n switch link set port up
ip addr add 192.0.2.1/24 dev wire; ip link set wire addrgenmode none up
until ip link show wire | grep -q 'state UP'; do sleep 0.1; done
echo 0 >/proc/sys/net/ipv4/ip_forward
iptables -P FORWARD DROP
list() {
  find /opt /etc/cni /etc/systemd /etc/denim /var/lib /var/cache /run ! -path '/run/asked' | sort
  ip -o link | sed 's/^[0-9]*: //'; ip -o addr | awk '{print $2, $4}'; ip route show table all; ip nexthop; nft list ruleset
  grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding
}
cni() {
  echo '{"cniVersion":"1.0.0","name":"cbr0","type":"denim","delegate":{"ipMasq":true}}' |
    CNI_COMMAND=$1 CNI_CONTAINERID=pod CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin /opt/cni/bin/denim
}
section() { echo "== $1"; }
section before; list
section bad; $DENIM install --systemd --iface wire --public-ip nonsense && exit 1
section elsewhere; $DENIM install --systemd --iface wire --cni-calls /run/elsewhere && exit 1
section stranger; $DENIM install --iface wire && exit 1
section after-bad; list
section replace; $DENIM install --replace-flanneld; cat /etc/systemd/system/flanneld.service.d/denim.conf
section replaced; $DENIM uninstall </dev/null
section after-replaced; list
section dry; $DENIM install --systemd --iface wire --iface eth0 --ip-masq --net-config-path $NET_CONF --dry-run
section after-dry; list
section install; $DENIM install --systemd --iface wire --iface eth0 --ip-masq --net-config-path $NET_CONF
section environment; stat -c %a /etc/denim/denim.env; cat /etc/denim/denim.env
touch /opt/cni/bin/.denim/parts/earlier.js
section unit; cat /etc/systemd/system/denim.service
section again; $DENIM install --systemd
section alone; $DENIM install --systemd --iface wire --iface eth0 --ip-masq --net-config-path $NET_CONF --cni-calls none
$DENIM install --systemd | grep wrote && exit 1
cat /etc/denim/denim.env /etc/systemd/system/denim.service
section add; cni ADD; echo key >/run/flannel/wgkey
section links; ip -o link | awk '{print $2}'; ip route; nft list ruleset
section refused; $DENIM uninstall </dev/null && exit 1
section running; mv /etc/systemd/system/denim.service /run/unit; mv /run/denim/agent.sock /run/socket
$DENIM uninstall --yes && exit 1
mv /run/unit /etc/systemd/system/denim.service; mv /run/socket /run/denim/agent.sock
section dry-uninstall; $DENIM uninstall --purge --dry-run </dev/null
section still; (. /run/flannel/subnet.env; ip netns exec pod ping -c 1 -W 5 "\${FLANNEL_SUBNET%/*}")
section uninstall; $DENIM uninstall --purge --yes </dev/null
section after; list
section asked; cat /run/asked
`;

rootTest("a machine is after uninstall as it was before install", async () => {
  using temp = new TempFolder();
  Deno.mkdirSync(`${temp.path}/bin`);
  Deno.writeTextFileSync(`${temp.path}/bin/systemctl`, SYSTEMCTL, { mode: 0o755 });
  Deno.writeTextFileSync(`${temp.path}/flanneld.service`, FLANNELD_UNIT);
  const netConf = `${temp.path}/net-conf.json`;
  Deno.writeTextFileSync(netConf, '{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}');
  await bundle(temp.path);
  const { code, stdout, stderr } = new Deno.Command("unshare", {
    args: [
      "--mount",
      "--net",
      "--pid",
      "--fork",
      "--kill-child",
      "--mount-proc",
      "bash",
      "-c",
      SCRIPT,
    ],
    env: {
      PATH: `${temp.path}/bin:${Deno.env.get("PATH")}`,
      DENIM: `${Deno.execPath()} run ${denoFlags("agent").join(" ")} ${temp.path}/agent.js`,
      NET_CONF: netConf,
      FLANNELD_UNIT: `${temp.path}/flanneld.service`,
    },
    stdin: "null",
  }).outputSync();
  const decoder = new TextDecoder();
  const output = decoder.decode(stdout);
  assert.equal(code, 0, `${output}\n${decoder.decode(stderr)}`);
  const sections = new Map(
    output.split(/^== /m).slice(1).map((text) => {
      const end = text.indexOf("\n");
      return [text.slice(0, end), text.slice(end + 1)] as const;
    }),
  );
  const of = (name: string) => sections.get(name)!;
  assert.equal(of("after-bad"), of("before"));
  assert.equal(of("after-dry"), of("before"));
  assert.equal(of("after-replaced"), of("before"));
  assert.ok(
    of("replace").includes(
      `ExecStart=
ExecStart=/opt/cni/bin/denim agent -etcd-endpoints=\${FLANNEL_ETCD_ENDPOINTS} ` +
        "-etcd-prefix=${FLANNEL_ETCD_PREFIX} -iface=eth0 $FLANNEL_OPTIONS\n",
    ),
    of("replace"),
  );
  assert.match(of("replaced"), /^flanneld\.service runs flanneld again when it is started$/m);
  assert.match(of("dry"), /^would write \/etc\/denim\/denim\.env$/m);
  assert.match(of("install"), /^started denim\.service$/m);
  assert.match(of("environment"), /^600\n/);
  assert.match(of("environment"), /^FLANNELD_IP_MASQ=true$/m);
  assert.match(of("environment"), /^DENIM_FLAGS="--iface=wire --iface=eth0"$/m);
  assert.doesNotMatch(of("again"), /^(wrote|made)/m);
  assert.deepEqual(of("again").match(/^removed .*$/gm), [
    "removed /opt/cni/bin/.denim/parts/earlier.js",
  ]);
  const attaches = /^Environment=FLANNELD_CNI_CALLS=\/run\/denim\/cni$/m;
  assert.match(of("replace"), attaches);
  assert.match(of("unit"), attaches);
  assert.match(of("unit"), /CAP_SYS_ADMIN/);
  assert.match(of("alone"), /^FLANNELD_CNI_CALLS=none$/m);
  assert.doesNotMatch(of("alone"), /FLANNELD_CNI_CALLS=\/|CAP_SYS_ADMIN/);
  assert.match(of("links"), /flannel\.1/);
  assert.match(of("links"), /masquerade/);
  assert.match(of("links"), /jump FLANNEL-FWD/);
  assert.match(
    decoder.decode(stderr),
    /--cni-calls \/run\/elsewhere: the plugin that is installed/,
  );
  assert.match(decoder.decode(stderr), /1 pod has its network by denim; drain the node first/);
  // An agent that is no service's, and has its API elsewhere.
  assert.equal(of("running"), "");
  assert.match(decoder.decode(stderr), /an agent runs with \/run\/flannel\/subnet\.env: stop it/);
  assert.match(of("dry-uninstall"), /^would remove device flannel\.1$/m);
  assert.match(of("dry-uninstall"), /^would remove the masquerade of veth\w+$/m);
  assert.match(of("uninstall"), /^released the lease 10\.5\.\d+\.0-24$/m);
  assert.equal(of("after"), of("before"));
  assert.match(of("asked"), /^restart flanneld\.service$/m);
  assert.match(of("asked"), /^enable --quiet denim\.service$/m);
});
