/**
 * The tables of netfilter of a network namespace: nftables', and those of the two iptables; and what decides in which
 * of them denim's rules stand.
 *
 * @module
 */

import { RuntimeError } from "../../errors.ts";
import type { Cidr } from "../../ip.ts";
import type { Logger } from "../../log.ts";
import type { Masquerade, PodForward } from "../../kernel_state.ts";
import type {
  Derivation,
  DesiredView,
  KernelItem,
  KernelTable,
} from "../reconciler/kernel_table.ts";
import {
  type FoundIptablesChain,
  IPTABLES_KINDS,
  type IptablesChain,
  type IptablesVariant,
} from "./iptables_chain.ts";
import { IptablesLegacy } from "./iptables_legacy.ts";
import { IptablesNft } from "./iptables_nft.ts";
import { iptablesVariant, runLegacy } from "./iptables_programs.ts";
import { type IptablesPort, IptablesTable } from "./iptables_table.ts";
import { LegacyTables } from "./legacy_tables.ts";
import { Masquerading } from "./masquerading.ts";
import { WatchedNft } from "./watched_nft.ts";
import type { FoundNftTable, NftTable } from "./nft_table.ts";
import { Nftables, type NftablesOptions, type NftTableKeeper } from "./nftables.ts";
import { nftablesIfThere, NO_IPTABLES_NFT } from "./no_nftables.ts";
import { PodForwarding } from "./pod_forwarding.ts";

/** What {@link NetfilterTables} works with. */
export interface NetfilterOptions {
  /** What owners want. */
  readonly desired: DesiredView;
  /** Takes what operators should know. */
  readonly log: Logger;
  /** Whether a network lies in the cluster's. */
  readonly inCluster: (network: Cidr) => boolean;
  /** How often iptables' chains are compared in full, in milliseconds. */
  readonly iptablesResyncMs: number;
  /** Opens nftables, and throws a LinuxError if the kernel has none; {@link Nftables} unless given. */
  readonly openNftables?: (options: NftablesOptions) => NftTableKeeper;
  /** Which iptables the program `iptables` is, `undefined` if there is none; asked of the program unless given. */
  readonly iptablesVariant?: () => IptablesVariant | undefined;
}

function openNft(options: NftablesOptions): NftTableKeeper {
  return new Nftables(options);
}

/** The tables of netfilter in the network namespace of the thread that opens them. */
export class NetfilterTables implements Disposable {
  /** The table of each kind, in the order in which their objects are made. */
  readonly tables: {
    readonly iptablesNftChain: KernelTable<IptablesChain, FoundIptablesChain>;
    readonly iptablesLegacyChain: KernelTable<IptablesChain, FoundIptablesChain>;
    readonly nftTable: KernelTable<NftTable, FoundNftTable>;
  };
  /** Kinds that stand for those. */
  readonly derivations: Readonly<Record<(Masquerade | PodForward)["kind"], Derivation>>;
  readonly #desired: DesiredView;
  readonly #nftables: NftTableKeeper;
  readonly #iptables: Readonly<Record<IptablesVariant, IptablesTable>>;
  readonly #open: DisposableStack;

  /** Opens sockets; nothing is read yet. */
  constructor(options: NetfilterOptions) {
    const { desired, log, inCluster, iptablesResyncMs, openNftables = openNft } = options;
    this.#desired = desired;
    using open = new DisposableStack();
    const requireInPlace = (stays: string) => this.#requireMasquerade(stays);
    const isWanted = (kind: keyof NetfilterTables["derivations"]) => desired.of(kind).size > 0;
    const replacesFlannel = () => isWanted("masquerade");
    this.#nftables = open.use(
      nftablesIfThere(() => openNftables({ inCluster, replacesFlannel, requireInPlace })),
    );
    const ports: Readonly<Record<IptablesVariant, IptablesPort>> = {
      nft: this.#nftables.isThere ? new IptablesNft(open.use(new WatchedNft())) : NO_IPTABLES_NFT,
      legacy: new IptablesLegacy(open.use(new LegacyTables()), runLegacy),
    };
    const forwarding = new PodForwarding({ ports, log });
    const tableOf = (variant: IptablesVariant) =>
      new IptablesTable(ports[variant], {
        variant,
        inCluster,
        replacesFlannel: (table) => isWanted(table === "nat" ? "masquerade" : "podForward"),
        requireInPlace,
        onForward: () => forwarding.look(),
        log,
        resyncMs: iptablesResyncMs,
      });
    this.#iptables = { nft: tableOf("nft"), legacy: tableOf("legacy") };
    this.tables = {
      iptablesNftChain: this.#iptables.nft,
      iptablesLegacyChain: this.#iptables.legacy,
      nftTable: this.#nftables,
    };
    this.derivations = {
      masquerade: new Masquerading({
        hasNftables: this.#nftables.isThere,
        iptablesVariant: options.iptablesVariant ?? iptablesVariant,
      }),
      podForward: forwarding,
    };
    this.#open = open.move();
  }

  #requireMasquerade(stays: string): void {
    const wanted = <Object extends KernelItem>(kind: Object["kind"]) =>
      [...this.#desired.of(kind).values()].map(({ object }) => object as Object);
    const inPlace = wanted<NftTable>("nftTable").every((it) => this.#nftables.isInPlace(it)) &&
      (["nft", "legacy"] as const).every((variant) =>
        wanted<IptablesChain>(IPTABLES_KINDS[variant]).every((chain) =>
          chain.table !== "nat" || this.#iptables[variant].isInPlace(chain)
        )
      );
    if (!inPlace) throw new RuntimeError(`${stays} stays until denim's own rules are in place`);
  }

  /** Closes the sockets. What is in the kernel stays. */
  [Symbol.dispose](): void {
    this.#open[Symbol.dispose]();
  }
}
