import assert from "node:assert/strict";
import { TempFolder } from "../../../tests/support/temp_folder.ts";
import { startProgram } from "./program.ts";

/** What wireguard-go writes where its socket is another one's, and the kernel might have WireGuard. */
const REFUSAL = `#!/bin/sh
echo "ERROR: ($1) 2026/11/27 04:45:34 UAPI listen error: unix socket in use"
echo '┌────────────────────────────┐
│ kernel has first class support │
└────────────────────────────┘' >&2
exit 1
`;

Deno.test("a WireGuard program that makes no device is cited with its error", () => {
  using temp = new TempFolder();
  const program = `${temp.path}/wireguard-go`;
  Deno.writeTextFileSync(program, REFUSAL, { mode: 0o755 });
  assert.throws(() => startProgram(program, "flannel-wg"), {
    name: "RuntimeError",
    message:
      /did not make it: ERROR: \(flannel-wg\) .* UAPI listen error: unix socket in use; load/,
  });
  Deno.writeTextFileSync(program, "#!/bin/sh\necho no >&2; exit 1\n");
  assert.throws(() => startProgram(program, "flannel-wg"), /did not make it: no; load/);
});
