/**
 * The file that holds a node's private key, in flannel's form: base64.
 *
 * @module
 */

import {
  type Logger,
  messageOf,
  parseWireguardKey,
  RuntimeError,
  throwDefect,
  WireguardSecret,
} from "@denim/core";
import { replaceFile } from "@denim/core/linux";
import { dirname } from "node:path";

/** A node's keys. */
export interface KeyPair {
  /** The private key. */
  readonly privateKey: WireguardSecret;
  /** The public key, as base64. */
  readonly publicKey: string;
}

/** An X25519 private key in PKCS #8 is these octets and then the key's (RFC 8410). */
const PKCS8_PREFIX = Uint8Array.fromHex("302e020100300506032b656e04220420");
const OWNER_ALONE = 0o600;

/**
 * Reads the node's keys from a file. If there is none, makes keys and writes the file. Rejects with a RuntimeError if
 * the file can't be read or written, or holds no key.
 */
export async function readKeyFile(path: string, log: Logger): Promise<KeyPair> {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
    const mode = Deno.statSync(path).mode! & 0o777;
    if ((mode & ~OWNER_ALONE) !== 0) {
      Deno.chmodSync(path, OWNER_ALONE);
      log.warn(
        "key-file-open",
        `the key file ${path} was not for its owner alone (mode ${
          mode.toString(8)
        }), and is now; ` +
          "whoever may have read it can read this node's traffic: remove it for new keys",
      );
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return await makeKeyFile(path, log);
    throwDefect(error);
    throw new RuntimeError(`the key file ${path} can't be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const bytes = parseWireguardKey(text.trim());
  if (bytes === undefined) {
    throw new RuntimeError(
      `the key file ${path} holds no private key of WireGuard's; remove it, and the agent makes one`,
    );
  }
  return await pairOf(bytes);
}

async function makeKeyFile(path: string, log: Logger): Promise<KeyPair> {
  const made = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]);
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", (made as CryptoKeyPair).privateKey);
  const bytes = clamp(new Uint8Array(pkcs8, PKCS8_PREFIX.length));
  try {
    Deno.mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    replaceFile(path, bytes.toBase64(), { mode: OWNER_ALONE });
  } catch (error) {
    throwDefect(error);
    throw new RuntimeError(`the key file ${path} can't be written: ${messageOf(error)}`, {
      cause: error,
    });
  }
  log.info("key-file-made", `this node has new WireGuard keys, in ${path}`);
  return await pairOf(bytes);
}

async function pairOf(bytes: Uint8Array<ArrayBuffer>): Promise<KeyPair> {
  const clamped = clamp(bytes);
  const pkcs8 = new Uint8Array([...PKCS8_PREFIX, ...clamped]);
  const key = await crypto.subtle.importKey("pkcs8", pkcs8, { name: "X25519" }, true, [
    "deriveBits",
  ]);
  const { x } = await crypto.subtle.exportKey("jwk", key);
  return {
    privateKey: new WireguardSecret(clamped),
    publicKey: Uint8Array.fromBase64(x!, { alphabet: "base64url" }).toBase64(),
  };
}

/** The same key with the bits set by which every device has it (RFC 7748 section 5). */
function clamp(key: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const clamped = key.slice();
  clamped[0]! &= 248;
  clamped[31] = clamped[31]! & 127 | 64;
  return clamped;
}
