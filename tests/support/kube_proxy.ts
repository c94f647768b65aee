/**
 * kube-proxy's rules for a few services, as kube-proxy 1.30 and later makes them, by iptables and by nftables: the
 * parts through which a packet to a service goes.
 *
 * @module
 */

import type { Family } from "@denim/core";

/** A service with one endpoint. */
export interface Service {
  /** Its cluster IP. */
  readonly address: string;
  /** Its port, for UDP and TCP. */
  readonly port: number;
  /** The pod that answers. */
  readonly endpoint: string;
  /** The pod's port. */
  readonly targetPort: number;
}

/** How kube-proxy does its work: its `--proxy-mode`. */
export type ProxyMode = "iptables" | "nftables";

const PROTOCOLS = ["udp", "tcp"] as const;
const endpointOf = ({ endpoint, targetPort }: Service) =>
  endpoint.includes(":") ? `[${endpoint}]:${targetPort}` : `${endpoint}:${targetPort}`;

/** A shell script that makes the rules of a family, whole. `clusterCidr` is kube-proxy's `--cluster-cidr`. */
export function kubeProxyRules(
  mode: ProxyMode,
  family: Family,
  services: readonly Service[],
  clusterCidr: string,
): string {
  return mode === "iptables"
    ? iptablesRules(family, services, clusterCidr)
    : nftablesRules(family, services, clusterCidr);
}

/** A shell script that removes them. */
export function noKubeProxyRules(mode: ProxyMode, family: Family): string {
  if (mode === "nftables") return `nft delete table ${family === 4 ? "ip" : "ip6"} kube-proxy`;
  const command = family === 4 ? "iptables" : "ip6tables";
  return `${command}-save -t nat | grep -v KUBE- | ${command}-restore -w -T nat`;
}

function iptablesRules(
  family: Family,
  services: readonly Service[],
  clusterCidr: string,
): string {
  const of = services.flatMap((service, index) =>
    PROTOCOLS.map((protocol) => ({
      ...service,
      protocol,
      svc: `KUBE-SVC-${protocol.toUpperCase()}${index}`,
      sep: `KUBE-SEP-${protocol.toUpperCase()}${index}`,
    }))
  );
  const host = family === 4 ? 32 : 128;
  const lines = [
    "*nat",
    ":KUBE-SERVICES - [0:0]",
    ":KUBE-POSTROUTING - [0:0]",
    ":KUBE-MARK-MASQ - [0:0]",
    ...of.flatMap(({ svc, sep }) => [`:${svc} - [0:0]`, `:${sep} - [0:0]`]),
    '-I PREROUTING 1 -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-I OUTPUT 1 -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
    '-I POSTROUTING 1 -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
    "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
    "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
    "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
    '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" ' +
    "-j MASQUERADE --random-fully",
    ...of.flatMap((service) => {
      const { protocol, address, port, svc, sep, endpoint } = service;
      const to = `-d ${address}/${host} -p ${protocol} -m ${protocol} --dport ${port}`;
      return [
        `-A KUBE-SERVICES ${to} -j ${svc}`,
        `-A ${svc} ! -s ${clusterCidr} ${to} -j KUBE-MARK-MASQ`,
        `-A ${svc} -j ${sep}`,
        `-A ${sep} -s ${endpoint}/${host} -j KUBE-MARK-MASQ`,
        `-A ${sep} -p ${protocol} -m ${protocol} -j DNAT --to-destination ${endpointOf(service)}`,
      ];
    }),
    "COMMIT",
  ];
  const command = family === 4 ? "iptables-restore" : "ip6tables-restore";
  return `${command} -w --noflush <<'RULES'\n${lines.join("\n")}\nRULES`;
}

function nftablesRules(
  family: Family,
  services: readonly Service[],
  clusterCidr: string,
): string {
  const ip = family === 4 ? "ip" : "ip6";
  const of = services.flatMap((service, index) =>
    PROTOCOLS.map((protocol) => ({ ...service, protocol, name: `${protocol}${index}` }))
  );
  const chains = of.map((service) => {
    const { name, protocol, address, port, endpoint } = service;
    return `
      chain endpoint-${name} {
        ${ip} saddr ${endpoint} jump mark-for-masquerade
        meta l4proto ${protocol} dnat to ${endpointOf(service)}
      }
      chain service-${name} {
        ${ip} daddr ${address} ${protocol} dport ${port} ${ip} saddr != ${clusterCidr} jump mark-for-masquerade
        numgen random mod 1 vmap { 0 : goto endpoint-${name} }
      }`;
  });
  const elements = of.map(({ name, protocol, address, port }) =>
    `${address} . ${protocol} . ${port} : goto service-${name}`
  );
  return `nft -f - <<'RULES'
    table ${ip} kube-proxy {
      chain mark-for-masquerade { meta mark set meta mark | 0x4000; }
      ${chains.join("")}
      map service-ips {
        type ${family === 4 ? "ipv4_addr" : "ipv6_addr"} . inet_proto . inet_service : verdict
        elements = { ${elements.join(", ")} }
      }
      chain services { ${ip} daddr . meta l4proto . th dport vmap @service-ips; }
      chain masquerading {
        meta mark & 0x4000 == 0 return
        meta mark set meta mark ^ 0x4000
        masquerade fully-random
      }
      chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
      chain nat-output { type nat hook output priority -100; jump services; }
      chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
    }\nRULES`;
}
