/**
 * An agent whose backend has a defect: its first argument says where, the others are the agent's.
 *
 * @module
 */

import { runAgent } from "@denim/agent";
import { vxlan } from "@denim/backends";

const [where, ...args] = Deno.args;

Deno.exit(
  await runAgent({
    args,
    backends: [{
      ...vxlan,
      open(node, options) {
        const fail = () => {
          throw new TypeError(where);
        };
        if (where === "in open") fail();
        setTimeout(fail);
        return vxlan.open(node, options);
      },
    }],
  }),
);
