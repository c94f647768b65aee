/**
 * What a node needs for its pods, whichever backend carries their packets.
 *
 * @module
 */

import { ALL_DEVICES, type Cidr, type FamilyConfig, type KernelState } from "@denim/core";

/** The reconciler's name for what {@link hostState} asks for. */
export const HOST_OWNER = "host";

/**
 * Has the node forward packets, and gives the pods' bridge its addresses. Without devices and subnets it is the part
 * that no node can do without.
 *
 * @param families those that net-conf enables
 * @param devices those by which packets to and from other nodes come in
 * @param subnets the node's own
 */
export function hostState(
  families: readonly Pick<FamilyConfig, "family">[],
  devices: readonly string[] = [],
  subnets: readonly Cidr[] = [],
): KernelState {
  const forwarding = families.flatMap(({ family }) =>
    // IPv6 obeys the node's switch alone; a device's says whether the device accepts router advertisements.
    [ALL_DEVICES, ...family === 4 ? devices : []]
      .map((device) => ({ kind: "forwarding", family, device }) as const)
  );
  const gateways = subnets.map((subnet) => (
    { kind: "podGateway", address: subnet.at(1n), prefixLength: subnet.prefixLength } as const
  ));
  return [...forwarding, ...gateways];
}
