import assert from "node:assert/strict";
import { CallError, GRPC } from "./etcd3.ts";

const AT = "(2026-01-02T03:04:05.678Z)";

Deno.test("CallError: says what failed, without what gRPC puts around it", () => {
  for (
    const [code, details, message, mayPass] of [
      [
        GRPC.UNAVAILABLE,
        `No connection established. Last error: Error: connect ECONNREFUSED 127.0.0.1:9. Resolution note: `,
        "connect ECONNREFUSED 127.0.0.1:9",
        true,
      ],
      [
        GRPC.UNAVAILABLE,
        `No connection established. Last error: Failed to connect ${AT}. Resolution note: `,
        "Failed to connect",
        true,
      ],
      [
        GRPC.UNAVAILABLE,
        "No connection established. Last error: Error [ERR_X]: [ERR_X]: no. Resolution note: ",
        "no",
        true,
      ],
      [
        GRPC.UNAVAILABLE,
        "Name resolution failed for target dns:no-such-host.invalid:1",
        "Name resolution failed for target dns:no-such-host.invalid:1",
        true,
      ],
      [
        GRPC.DEADLINE_EXCEEDED,
        "Deadline exceeded after 1.8s,metadata filters",
        "it does not answer",
        true,
      ],
      [GRPC.UNAVAILABLE, "etcdserver: no leader", "etcdserver: no leader", true],
      [
        GRPC.PERMISSION_DENIED,
        "etcdserver: permission denied",
        "etcdserver: permission denied",
        false,
      ],
      [
        GRPC.NOT_FOUND,
        "etcdserver: requested lease not found",
        "etcdserver: requested lease not found",
        false,
      ],
    ] as const
  ) {
    const error = new CallError({ code, details });
    assert.deepEqual([error.message, error.mayPass, error.code], [message, mayPass, code]);
  }
});
