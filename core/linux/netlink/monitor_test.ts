import assert from "node:assert/strict";
import { rootTest } from "../../../tests/support/root_test.ts";
import { ScratchNamespace } from "../../../tests/support/scratch_namespace.ts";
import { parseLink } from "../objects/link.ts";
import { NETLINK_ROUTE } from "../uapi/netlink.ts";
import { RTNLGRP_LINK } from "../uapi/rtnetlink.ts";
import { Monitor } from "./monitor.ts";

/** No socket's: the kernel itself has 0. */
const NOBODYS_PORT_ID = 1;

rootTest(
  "Monitor: each listener hears what was held, told that it is old, and then the rest",
  async () => {
    using ns = new ScratchNamespace();
    using monitor = ns.run(() => new Monitor(NOBODYS_PORT_ID, NETLINK_ROUTE, [RTNLGRP_LINK]));
    const make = (name: string) => ns.ip(`link add ${name} type bridge`);
    make("before");
    monitor.hold();
    make("later");
    const stop = new AbortController();
    const hear = async () => {
      const heard: (readonly [name: string, isOld: boolean])[] = [];
      const { promise, resolve } = Promise.withResolvers<void>();
      const listening = monitor.listen({
        onMessage: (reader, isOld) => {
          const link = parseLink(reader);
          if (link === undefined) return;
          heard.push([link.name, isOld]);
          if (link.name === "later") resolve();
        },
        onLost: () => assert.fail("lost"),
      }, stop.signal);
      await promise;
      return { heard, listening };
    };
    const all = await Promise.all([hear(), hear()]);
    stop.abort();
    for (const { heard, listening } of all) {
      await listening;
      assert.ok(heard.length >= 2, JSON.stringify(heard));
      assert.ok(
        heard.every(([name, isOld]) => isOld === (name === "before")),
        JSON.stringify(heard),
      );
    }
  },
);
