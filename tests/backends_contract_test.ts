/** Every backend of denim's own keeps the contract. */

import { backendContract } from "./contracts/backend.ts";
import { ip } from "./support/ip.ts";

backendContract("vxlan", {
  backend: { Type: "vxlan" },
  changeData: (node) => {
    ip(node, "link set flannel.1 address 02:0a:0b:0c:0d:0e");
  },
});

backendContract("host-gw", { backend: { Type: "host-gw" } });

backendContract("alloc", { backend: { Type: "alloc" }, carries: false });
