/** What drops pods' packets beside denim's rules, in the real kernel; `nft` and iptables make it. */

import assert from "node:assert/strict";
import { RecordingLog } from "../../../tests/support/recording_log.ts";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { sh } from "../../../tests/support/sh.ts";
import { eventually } from "../../../tests/support/wait.ts";
import { Cidr } from "../../ip.ts";
import type { PodForward } from "../../kernel_state.ts";
import { forwardDrops } from "./forward_report.ts";
import { Reconciler } from "../reconciler/reconciler.ts";

const FORWARD: PodForward = {
  kind: "podForward",
  family: 4,
  networks: [Cidr.parse("10.5.0.0/16")],
};

const firewalld = (more = "") =>
  `nft -f - <<'END'
  table inet firewalld {
    chain filter_FORWARD {
      type filter hook forward priority filter + 10; policy accept;
      ct state { established, related } accept
      iifname "lo" accept
      jump filter_FORWARD_ZONES
      reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_ZONES {
      ${more}
      counter goto filter_FWD_public
    }
    chain filter_FWD_public {
      jump filter_FWD_public_log
      iifname "eth9" accept
    }
    chain filter_FWD_public_log { log prefix "x"; return; accept; }
  }
END
`;
const base = (rules: string, policy = "accept", family = "ip") =>
  `nft -f - <<'END'
  table ${family} walls {
    chain way {
      type filter hook forward priority 5; policy ${policy};
      ${rules}
    }
  }
END
`;

const CASES: readonly (readonly [what: string, script: string, named: RegExp | undefined])[] = [
  ["nothing", "true", undefined],
  ["FORWARD's policy, which denim lifts", "iptables-nft -P FORWARD DROP", undefined],
  [
    "firewalld",
    firewalld(),
    /filter_FORWARD of .*inet firewalld .*firewall-cmd --permanent --zone=trusted --add-source=10\.5\.0\.0\/16; firewall-cmd --reload$/,
  ],
  ["firewalld that trusts pods", firewalld("ip saddr 10.5.0.0/16 accept"), undefined],
  [
    "a policy",
    base("", "drop"),
    /chain way of .*ip walls .* packets from and to 10\.5\.0\.0\/16 pass/,
  ],
  ["a rule for all", base("counter log drop"), /ip walls/],
  ["for both families", base("drop", "accept", "inet"), /inet walls/],
  ["for the other family", base("drop", "accept", "ip6"), undefined],
  ["rules with conditions", base("iifname eth9 drop; tcp dport 1 reject"), undefined],
  ["a rule behind one that lets all pass", base("accept; drop"), undefined],
  [
    "a rule of iptables before denim's, as ufw may have",
    "iptables-nft -N ufw; iptables-nft -A ufw -j REJECT; iptables-nft -A FORWARD -j ufw",
    /FORWARD of .*ip filter .*ufw route allow from 10\.5\.0\.0\/16/,
  ],
];

for (const [what, script, named] of CASES) {
  rootTest(`what drops pods' packets is named: ${what}`, () => {
    using namespace = new ScratchNamespace();
    namespace.run(() => sh(script));
    const log = new RecordingLog();
    using reconciler = namespace.run(() => new Reconciler({ log }));
    reconciler.set("host", [FORWARD]);
    assert.deepEqual(reconciler.check().failures, []);
    assert.deepEqual(reconciler.check().failures, []);
    const lines = log.records.filter(({ event }) => event === "forwarding-dropped");
    assert.equal(lines.length, named === undefined ? 0 : 1);
    if (named !== undefined) assert.match(lines[0]!.message, named);
    const drops = namespace.run(() => forwardDrops(FORWARD.networks));
    assert.deepEqual(
      drops.map(({ evidence, remedy }) =>
        `${evidence}; no rule of denim's can lift that: ${remedy}`
      ),
      lines.map(({ message }) => message),
    );
  });
}

rootTest("what drops pods' packets is named while the agent runs", async () => {
  using namespace = new ScratchNamespace();
  const log = new RecordingLog();
  using reconciler = namespace.run(() => new Reconciler({ log }));
  reconciler.set("host", [FORWARD]);
  reconciler.check();
  const stop = new AbortController();
  const running = reconciler.run(stop.signal);
  namespace.run(() => sh(firewalld()));
  await eventually(
    "it is named",
    () => log.records.some(({ event }) => event === "forwarding-dropped"),
  );
  stop.abort();
  await running;
});
