#!/usr/bin/env bash
# Which kernels send VXLAN packets with wrong checksums after NAT (flannel#1279, #1929), and what helps. A row for each
# case: what arrived, and how many datagrams the receiver threw away. See docs/develop.md.
#
#   checksums.sh             between namespaces, whose devices are told to finish checksums
#   checksums.sh DEV1 DEV2   by two network cards that are wired to each other
#
# Needs root, and iperf3, iptables, ethtool, nstat.
set -uo pipefail
x() { ip netns exec "$@"; }
places=(ckA ckB ckP ckR)
clean() {
  local n; for n in ckA ckB; do [ $# -gt 0 ] || ip -n $n link set eth0 netns 1 2>/dev/null; done
  for n in "${places[@]}"; do ip netns pids $n 2>/dev/null | xargs -r kill; ip netns del $n 2>/dev/null; done
  ip link del ck0 2>/dev/null
}
trap clean EXIT

# Node A at .1 and node B at .2 with the pod P, and a tunnel of each family. $1: options of the VXLAN devices
nodes() {
  local i n m o p
  for n in ckA ckB ckP; do ip netns add $n; ip -n $n link set lo up; done
  if [ -n "${cards:-}" ]; then set -- "$1" $cards; else ip link add ck0 type veth peer name ck1; set -- "$1" ck0 ck1; fi
  for i in 1 2; do
    n=$([ $i = 1 ] && echo ckA || echo ckB); o=$i p=$((3 - i))
    ip link set "${@:1+i:1}" netns $n; ip -n $n link set "${@:1+i:1}" name eth0; ip -n $n link set eth0 up
    ip -n $n addr add 192.168.50.$i/24 dev eth0; ip -n $n addr add fd50::$i/64 dev eth0 nodad
    ip -n $n route add default via 192.168.50.254; ip -n $n -6 route add default via fd50::254
    x $n sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0
    [ -n "${cards:-}" ] || x $n ethtool -K eth0 tx off >/dev/null
    for m in 4 6; do tunnel $n $o $p $m "$1"; done
  done
  ip -n ckB link add veth0 type veth peer name eth0 netns ckP
  ip -n ckB addr add 10.5.2.1/24 dev veth0; ip -n ckB addr add fc05:2::1/64 dev veth0 nodad; ip -n ckB link set veth0 mtu 1430 up
  ip -n ckP addr add 10.5.2.5/24 dev eth0; ip -n ckP addr add fc05:2::5/64 dev eth0 nodad; ip -n ckP link set eth0 mtu 1430 up
  ip -n ckP route add default via 10.5.2.1; ip -n ckP -6 route add default via fc05:2::1
  x ckP iperf3 -s -D; sleep 1
}
tunnel() { # node, its number, the other's, family, options
  local mac=02:00:00:00:0$4:0 dev=flannel.1 local=192.168.50.$2 remote=${remote:-192.168.50.$3} own=10.5.$2.0 gw=10.5.$3.0 to=10.5.$3.0/24
  [ "$4" = 4 ] || { dev=flannel-v6.1 local=fd50::$2 remote=fd50::$3 own=fc05:$2:: gw=fc05:$3:: to=fc05:$3::/64; }
  [ "$4" = 4 ] && [ "$2" = 2 ] && local=${localB:-$local}
  ip -n "$1" link add $dev address $mac"$2" type vxlan id 1 dstport 8472 local $local dev eth0 nolearning $5
  ip -n "$1" addr add $own dev $dev; ip -n "$1" link set $dev up
  ip -n "$1" neigh replace $gw lladdr $mac"$3" dev $dev nud permanent
  bridge -n "$1" fdb replace $mac"$3" dev $dev dst $remote self permanent
  ip -n "$1" route replace $to via $gw dev $dev onlink
}

# A service of the pod's, as kube-proxy makes it. old: as before 1.16.13, whose mark the outer packet has too.
service() {
  local c pod
  for c in iptables ip6tables; do
    pod=$([ $c = iptables ] && echo 10.5.2.5 || echo '[fc05:2::5]')
    for p in tcp udp; do
      x ckA $c -w -t nat -A OUTPUT -d "$([ $c = iptables ] && echo 10.96.0.10 || echo fd96::10)" -p $p -j MARK --or-mark 0x4000
      x ckA $c -w -t nat -A OUTPUT -d "$([ $c = iptables ] && echo 10.96.0.10 || echo fd96::10)" -p $p -j DNAT --to-destination "$pod:5201"
    done
    x ckA $c -w -t nat -A POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
    [ "$1" = old ] || x ckA $c -w -t nat -A POSTROUTING -j MARK --xor-mark 0x4000
    x ckA $c -w -t nat -A POSTROUTING -j MASQUERADE --random-fully
  done
}
# A host R between the two that gives A another address, as a hypervisor does with its guests
between() {
  ip netns add ckR; x ckR sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0
  x ckA ethtool -K eth0 tx on >/dev/null
  ip -n ckB link set eth0 netns ckR name toA; ip -n ckR addr add 192.168.50.254/24 dev toA; ip -n ckR link set toA up
  ip -n ckR link add toB type veth peer name eth0 netns ckB
  ip -n ckB addr add 192.168.60.2/24 dev eth0; ip -n ckB link set eth0 up; ip -n ckB route add default via 192.168.60.3
  ip -n ckR addr add 192.168.60.3/24 dev toB; ip -n ckR link set toB up
  x ckR iptables -w -t nat -A POSTROUTING -o toB -j MASQUERADE
  x ckR iptables -w -t nat -A PREROUTING -i toB -p udp --dport 8472 -j DNAT --to 192.168.50.1
  x ckR ethtool -K toB tx off >/dev/null; x ckB ethtool -K eth0 tx off >/dev/null
  ip -n ckB link del flannel.1 2>/dev/null
  remote=192.168.60.3 localB=192.168.60.2 tunnel ckB 2 1 4 "$1"
  bridge -n ckA fdb replace 02:00:00:00:04:02 dev flannel.1 dst 192.168.60.2 self permanent
}

bad() { x ckB nstat -asz UdpInCsumErrors Udp6InCsumErrors | awk '/Csum/{n += $2} END{print n + 0}'; }
send() { # what, family
  local to before after tcp udp
  to=$([ "$2" = 4 ] && echo 10.96.0.10 || echo fd96::10); before=$(bad)
  tcp=$(x ckA timeout 20 iperf3 -c $to -n 100K --connect-timeout 10000 >/dev/null 2>&1 && echo arrives || echo is lost)
  udp=$(x ckA timeout 20 iperf3 -u -l 1000 -b 2M -c $to -n 20K --connect-timeout 10000 2>&1 | grep -q '(0%)' && echo arrive || echo are lost)
  after=$(bad)
  echo "| $(uname -r) | ${cards:-veth} | $1 | IPv$2 | TCP $tcp, datagrams $udp | $((after - before)) |"
}
cards=$*
for remedy in "flanneld's device" "tx-checksum-ip-generic off" "no outer checksum (denim)"; do
  for nat in "no NAT" "NAT in the node" "NAT behind the node"; do
    [ -z "$cards" ] || [ "$nat" != "NAT behind the node" ] || continue
    options=; [[ $remedy != no* ]] || options=noudpcsum
    nodes "$options"
    service "$([ "$nat" = "NAT in the node" ] && echo old || echo new)"
    [ "$nat" != "NAT behind the node" ] || between "$options"
    [[ $remedy != tx* ]] || for d in flannel.1 flannel-v6.1; do x ckA ethtool -K $d tx-checksum-ip-generic off >/dev/null; done
    send "$nat, $remedy" 4
    [ "$nat" = "NAT behind the node" ] || send "$nat, $remedy" 6
    clean
  done
done
