/**
 * Masquerade of single pods, for a node whose agent does not do it: a table of its own for each family,
 * `ip denim-cni` and `ip6 denim-cni`, with a rule for each address of a pod. Many processes of the CNI plugin change it
 * side by side, each in one transaction. The agent neither reads nor writes it.
 *
 * @module
 */

import { addressBits, Cidr, FAMILIES, type Family, type IpAddress } from "../../ip.ts";
import type { MessageWriter } from "../netlink/netlink_codec.ts";
import { EBUSY, ENOENT, LinuxError } from "../sys/linux_error.ts";
import { NF_ACCEPT, NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC } from "../uapi/netfilter.ts";
import { NLM_F_CREATE, NLM_F_NONREC } from "../uapi/netlink.ts";
import {
  NFT_MSG_DELCHAIN,
  NFT_MSG_DELRULE,
  NFT_MSG_DELTABLE,
  NFT_MSG_NEWTABLE,
  NFTA_CHAIN_NAME,
  NFTA_CHAIN_TABLE,
  NFTA_RULE_CHAIN,
  NFTA_RULE_HANDLE,
  NFTA_RULE_TABLE,
  NFTA_TABLE_NAME,
} from "../uapi/nf_tables.ts";
import { KUBE_PROXY_MARK, MULTICAST } from "./masquerade.ts";
import { NftConnection, openIfThere } from "./nft_connection.ts";
import {
  beginNft,
  type NftChain,
  type NftRuleName,
  writeBaseChain,
  writeRules,
} from "./nft_table.ts";
import { type Rule, ruleExpressions } from "./rule.ts";

/** The name of the tables. */
const TABLE = "denim-cni";

/** The one chain of a table. */
const CHAIN: Omit<NftChain, "rules"> = {
  name: "postrouting",
  type: "nat",
  hook: NF_INET_POST_ROUTING,
  priority: NF_IP_PRI_NAT_SRC,
  policy: NF_ACCEPT,
};

/** How often a change is tried whose rules other processes remove meanwhile. */
const ATTEMPTS = 20;

/** A pod whose packets to the outside leave under the node's address. */
export interface MasqueradedPod {
  /** The node's end of its veth pair, by whose name it is known. */
  readonly device: string;
  /** Its addresses. */
  readonly addresses: readonly IpAddress[];
  /** The cluster's networks: what goes there keeps its source. */
  readonly networks: readonly Cidr[];
}

/**
 * The rule for an address of a pod. Its packets to other pods and to groups of hosts keep their source, as do those
 * that kube-proxy masquerades; of all other packets it says nothing, so that the rules' order does not matter.
 */
function podRule(
  device: string,
  address: IpAddress,
  networks: readonly Cidr[],
): Rule {
  const { family } = address;
  const others = networks.filter((network) => network.family === family);
  return {
    matches: [
      { kind: "saddr", network: new Cidr(address, addressBits(family)) },
      { kind: "mark", value: KUBE_PROXY_MARK, mask: KUBE_PROXY_MARK, not: true },
      ...[...others, MULTICAST[family]].map((network) =>
        ({ kind: "daddr", network, not: true }) as const
      ),
    ],
    verdict: { kind: "masquerade", fullyRandom: true },
    comment: `${device} ${address}`,
  };
}

/** A rule of a table, and whose it is. */
interface PodRule extends NftRuleName {
  readonly family: Family;
  readonly device: string;
  readonly address: string;
}

/** The masquerade of single pods in the network namespace of the thread that opens it. */
export class PodMasquerade implements Disposable {
  readonly #nftables = new NftConnection();

  private constructor() {}

  /** Opens it; `undefined` if the kernel has no nftables. Throws a LinuxError without CAP_NET_ADMIN. */
  static open(): PodMasquerade | undefined {
    return openIfThere(() => new PodMasquerade());
  }

  /** Closes the socket. The rules stay. */
  [Symbol.dispose](): void {
    this.#nftables[Symbol.dispose]();
  }

  /**
   * Masquerades a pod, in all its families or in none. Rules that were left under its device's name or for its
   * addresses go. Throws a LinuxError.
   */
  add({ device, addresses, networks }: MasqueradedPod): void {
    const texts = addresses.map(String);
    this.#change(`masquerade ${texts.join(" and ")}`, (writer, found) => {
      for (const { family } of addresses) {
        // The chain is there if it has a rule. To change one that is there, also to what it is, keeps the socket from
        // being closed until no processor can see the old one any more: some 10 ms.
        if (found.some((rule) => rule.family === family)) continue;
        beginNft(writer, NFT_MSG_NEWTABLE, NLM_F_CREATE, family)
          .stringAttribute(NFTA_TABLE_NAME, TABLE).end();
        writeBaseChain(writer, { family, name: TABLE }, CHAIN);
      }
      for (const rule of found) {
        if (rule.device === device || texts.includes(rule.address)) writeRemoved(writer, rule);
      }
      for (const address of addresses) {
        const rule = podRule(device, address, networks);
        const rules = [{ expressions: ruleExpressions(rule), comment: rule.comment }];
        writeRules(writer, { family: address.family, name: TABLE }, { name: CHAIN.name, rules });
      }
    });
  }

  /** Removes the rules of those devices that `isGone` says, and then the tables without rules. Throws a LinuxError. */
  remove(isGone: (device: string) => boolean): void {
    let left: readonly PodRule[] = [];
    this.#change("stop to masquerade a pod", (writer, found) => {
      left = found.filter(({ device }) => !isGone(device));
      for (const rule of found) if (!left.includes(rule)) writeRemoved(writer, rule);
    });
    for (const family of FAMILIES) {
      // What the kernel refuses costs as much time as what it does, and there mostly are other pods.
      const table = { family, name: TABLE };
      if (left.some((rule) => rule.family === family) || !this.#nftables.table(table)) continue;
      // If there is another pod's rule by now the kernel refuses both; an ADD makes them anew.
      const error = this.#nftables.transact((writer) => {
        beginNft(writer, NFT_MSG_DELCHAIN, NLM_F_NONREC, family)
          .stringAttribute(NFTA_CHAIN_TABLE, TABLE).stringAttribute(NFTA_CHAIN_NAME, CHAIN.name)
          .end();
        beginNft(writer, NFT_MSG_DELTABLE, NLM_F_NONREC, family)
          .stringAttribute(NFTA_TABLE_NAME, TABLE).end();
      });
      if (error !== undefined && error.errno !== EBUSY && error.errno !== ENOENT) throw error;
    }
  }

  /** The devices of the pods that are masqueraded. Throws a LinuxError. */
  devices(): ReadonlySet<string> {
    return new Set(this.#rules().map(({ device }) => device));
  }

  /** The addresses that are masqueraded for a device. Throws a LinuxError. */
  addressesOf(device: string): string[] {
    return this.#rules().filter((rule) => rule.device === device).map(({ address }) => address);
  }

  #rules(): PodRule[] {
    return FAMILIES.flatMap((family) =>
      this.#nftables.ruleNames({ family, name: TABLE }, CHAIN.name).flatMap((rule) => {
        const [device, address] = rule.comment.split(" ");
        return device && address ? [{ ...rule, family, device, address }] : [];
      })
    );
  }

  /** Makes a change to the rules that there are. If one of them is gone by then it is made to those that are left. */
  #change(what: string, write: (writer: MessageWriter, found: readonly PodRule[]) => void): void {
    for (let attempt = 1;; attempt++) {
      const found = this.#rules();
      const error = this.#nftables.transact((writer) => write(writer, found));
      if (error === undefined) return;
      if (error.errno !== ENOENT) throw new LinuxError(error.errno, what, error.detail);
      if (attempt < ATTEMPTS) continue;
      const missing = "the kernel lacks a part of nftables; load its modules nft_chain_nat and " +
        "nft_masq";
      throw new LinuxError(error.errno, what, missing);
    }
  }
}

function writeRemoved(writer: MessageWriter, { family, chain, handle }: PodRule): void {
  beginNft(writer, NFT_MSG_DELRULE, 0, family)
    .stringAttribute(NFTA_RULE_TABLE, TABLE)
    .stringAttribute(NFTA_RULE_CHAIN, chain)
    .bytesAttribute(NFTA_RULE_HANDLE, handle).end();
}
