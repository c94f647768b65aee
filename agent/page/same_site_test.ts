import assert from "node:assert/strict";
import { isLocalName, isSameOrigin } from "./same_site.ts";

Deno.test("same site: names of this machine alone are local, a web site's is not", () => {
  for (const name of ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", "agent"]) {
    assert.equal(isLocalName(name), true, name);
  }
  for (const name of ["10.0.0.1", "evil.example", "127.0.0.1.evil.example", "[fd00::1]", "a."]) {
    assert.equal(isLocalName(name), false, name);
  }
});

Deno.test("same site: what another origin sends does nothing", () => {
  const request = (origin?: string) =>
    new Request("http://127.0.0.1:8081/doctor", {
      method: "POST",
      ...origin !== undefined && { headers: { Origin: origin } },
    });
  assert.equal(isSameOrigin(request()), true, "no browser");
  assert.equal(isSameOrigin(request("http://127.0.0.1:8081")), true);
  for (const origin of ["http://127.0.0.1:8082", "https://evil.example", "null"]) {
    assert.equal(isSameOrigin(request(origin)), false, origin);
  }
});
