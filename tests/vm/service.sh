#!/usr/bin/env bash
# A machine becomes a node and is one no more: denim install --systemd, pods that talk by each backend, restarts, a
# SIGKILL, a boot, a hang, denim uninstall. Files, devices, routes, rules, settings and units must be the same before
# and after. For a machine of its own with systemd, root, and dist/ from `deno task bundle`: see docs/develop.md. Flags are
# the service's, too: service.sh --cni-calls none
#
# The node is the machine. The other node is a network namespace, whose agent runs as a plain process.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
export DENO_DIR=/tmp/deno-other DENO_NO_UPDATE_CHECK=1
work=$(mktemp -d) failed=0
store=/var/lib/denim/denim.db
denim=(deno run -A dist/agent.js)

say() { printf '%s %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$*"; }
fail() { say "FAILED: $*"; failed=1; }
# Waits until a command succeeds.
await() {
  local seconds=$1 i; shift
  for ((i = 0; i < seconds * 2; i++)); do "$@" >/dev/null 2>&1 && return; sleep 0.5; done
  fail "after $seconds s: $*"
}

# Everything that a machine has, a line each, but what changes by itself.
list() {
  find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path "$PWD" -o -path /root -o -path /var/log -o -path /var/lib/systemd \
    -o -path /var/tmp -o -path /usr/share -o -path /usr/lib -o -path /boot \) -prune -o -printf 'file %p %y %m\n'
  find /run \( -path /run/systemd -o -path /run/udev -o -path /run/log -o -path /run/netns -o -path '/run/user' \) -prune -o -printf 'file %p %y %m\n'
  find /etc -type f -exec md5sum {} + | sed 's/^/content /'
  ip -o link | sed 's/^[0-9]*: /link /; s/@if[0-9]*//; s/ link-netns.*//'
  ip -o addr | awk '{print "address", $2, $4}'
  for family in -4 -6; do ip $family route show table all | sed "s/^/route $family /"; ip $family rule | sed "s/^/rule $family /"; done
  ip nexthop 2>/dev/null | sed 's/^/nexthop /'
  nft list ruleset | sed 's/^/nft /'
  sysctl -a 2>/dev/null | grep -E '^net\.(ipv4|ipv6|core)\.' | grep -Ev 'tcp_fastopen_key|gc_|stable_secret|_mem ' | sed 's/^/setting /'
  systemctl list-unit-files --no-legend --no-pager --type=service | sed 's/^/unit file /'
  systemctl list-units --all --no-legend --no-pager --plain --type=service,socket,timer,path | awk '$1 !~ /^(job|systemd-|e2scrub|fstrim|apt|dpkg|logrotate|getty|user)/ {print "unit", $1, $2, $3}'
}

# Runs the CNI plugin: call ADD|DEL NODE POD. NODE is empty for the machine. cni is the same, and must not fail.
cni() { call "$@" || fail "$1 $3: $(cat "$work/cni")"; }
call() {
  local command=$1 node=$2 pod=$3 enter=() conf='{"cniVersion":"1.0.0","name":"cbr0","type":"denim"}'
  if [ -n "$node" ]; then
    enter=(ip netns exec "$node")
    conf='{"cniVersion":"1.0.0","name":"other","type":"denim","subnetFile":"/tmp/other/subnet.env","dataDir":"/tmp/other/pods","ipam":{"dataDir":"/tmp/other/networks"}}'
  fi
  CNI_COMMAND=$command CNI_CONTAINERID=$pod CNI_NETNS=/run/netns/$pod CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \
    "${enter[@]}" /opt/cni/bin/denim <<<"$conf" >"$work/cni"
}
address() { ip netns exec "$1" ip -4 -o addr show eth0 | awk '{sub("/.*", "", $4); print $4}'; }
talk() { ip netns exec pod1 ping -q -c 2 -i 0.3 -W 2 "$(address pod2)"; }
state() { systemctl show denim --property="$1" --value; }
# Whether the service is ready, and is another process than the given one.
is_ready() {
  local now; now=$(systemctl show denim --property=ActiveState,MainPID)
  grep -qx ActiveState=active <<<"$now" && ! grep -qxE "MainPID=(0|${1:-0})" <<<"$now"
}

say "kernel $(uname -r), systemd $(systemctl --version | head -1)"
nft list ruleset >/dev/null
ip netns add other; ip link add wire type veth peer name eth0 netns other
ip addr add 192.168.50.1/24 dev wire; ip link set wire up
ip -n other addr add 192.168.50.2/24 dev eth0; ip -n other link set eth0 up; ip -n other link set lo up
ip netns add pod1; ip netns add pod2
sleep 3 # IPv6 looks for duplicates of its addresses for a while.
list >"$work/before"
mkdir -p /tmp/other

net_conf() { echo "{\"Network\":\"10.5.0.0/16\",\"Backend\":{\"Type\":\"$1\"}}"; }
net_conf vxlan >/root/net-conf.json
say "install"
"${denim[@]}" install --systemd --iface wire --ip-masq --net-config-path /root/net-conf.json "$@" || fail "install"
await 60 is_ready
say "the service says: $(state StatusText)"
systemctl --no-pager status denim | head -15
systemd-analyze security denim 2>/dev/null | tail -1
stat -c '%n %a' /etc/denim/denim.env
"${denim[@]}" install --systemd >"$work/again"; grep -E '^(wrote|made)' "$work/again" && fail "a second install changed something"

ip netns exec other "${denim[@]}" agent --store "sqlite:$store" --iface eth0 --subnet-file /tmp/other/subnet.env >/tmp/other/log 2>&1 &
other=$!
await 60 test -e /tmp/other/subnet.env
# The service attaches pods itself: here the plugin could not.
mv /opt/cni/bin/.denim/plugin.js "$work"; await 30 call ADD '' pod1; mv "$work/plugin.js" /opt/cni/bin/.denim
cni ADD other pod2
goes_by() { ip route get "$(address pod2)" | grep -q " dev $1 "; }
for way in vxlan=flannel.1 host-gw=wire udp=flannel0 vxlan=flannel.1; do
  backend=${way%=*}
  net_conf "$backend" | "${denim[@]}" config set - >/dev/null || fail "net-conf $backend"
  await 60 goes_by "${way#*=}"; await 60 talk; say "$backend: pods talk: $(talk | tail -1)"
  [ $backend = udp ] || continue
  # Kernels before 5.14 take the address of a device that comes after the pod bridge for a broadcast address.
  systemctl stop denim; ip link del flannel0; systemctl start denim || fail "start without flannel0"
  await 60 talk; say "udp, started without its device: pods talk: $(talk | tail -1)"
done
await 60 test ! -e /sys/class/net/flannel0 # Until both nodes are done with udp.

pid=$(state MainPID)
ip netns exec pod1 ping -q -i 0.2 "$(address pod2)" >"$work/ping" & ping=$!
say "kill -STOP"; kill -STOP "$pid"; began=$SECONDS; await 60 is_ready "$pid"; say "restarted and ready after $((SECONDS - began)) s"
pid=$(state MainPID); say "kill -KILL"; kill -KILL "$pid"; await 60 is_ready "$pid"
say "restart"; systemctl restart denim || fail restart
kill -INT $ping; wait $ping; say "a pod's ping meanwhile: $(grep -h transmitted "$work/ping")"
grep -q ' 0% packet loss' "$work/ping" || fail "pods lost packets"
journalctl -u denim -o cat --no-pager | grep -iE 'watchdog|killed' | head -3

say "boot: nothing in the kernel, nothing in /run"
systemctl stop denim; rm -rf /run/flannel; ip link del flannel.1; ip link del cni0; sysctl -qw net.ipv4.ip_forward=0
systemctl start denim || fail "start after a boot"
cni DEL '' pod1; ip netns del pod1; ip netns add pod1; cni ADD '' pod1; await 40 talk

served=$(curl -s --unix-socket /run/denim/agent.sock http://agent/metrics | grep '^denim_cni_calls_total.*"done"')
say "calls of the plugin that this agent has carried out: ${served:-none}"
[[ $* == *"--cni-calls none"* ]] || grep -q 'ADD.* [1-9]' <<<"$served" || fail "the agent attached no pod"

say "uninstall"
"${denim[@]}" uninstall </dev/null && fail "uninstall cut off pods without being asked to"
kill $other; wait $other
"${denim[@]}" leases release "$(. /tmp/other/subnet.env; echo "${FLANNEL_SUBNET%.1/24}.0/24")" --store "sqlite:$store"
"${denim[@]}" uninstall --purge --yes </dev/null || fail uninstall
list >"$work/after"
say "before and after, $(wc -l <"$work/before") lines:"
diff "$work/before" "$work/after" && say "the same" || fail "uninstall left something, or took too much"
[ $failed = 0 ] || { journalctl -u denim -o cat --no-pager | tail -30; tail -5 /tmp/other/log; }
exit $failed
