/**
 * WireGuard's keys (wg(8)): 32 octets, as text in base64.
 *
 * @module
 */

/** Octets in a key (`WG_KEY_LEN` in linux/wireguard.h). */
const KEY_BYTES = 32;

/**
 * Reads a key. `undefined` if the text is not one: it may be a secret, so no error quotes it.
 *
 * ```ts
 * import { parseWireguardKey } from "@denim/core";
 * console.log(parseWireguardKey("AAAA")); // undefined
 * ```
 */
export function parseWireguardKey(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    const bytes = Uint8Array.fromBase64(text);
    return bytes.length === KEY_BYTES ? bytes : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** A private or preshared key. It shows itself to whom asks for its octets alone: no log and no JSON has it by accident. */
export class WireguardSecret {
  readonly #bytes: Uint8Array<ArrayBuffer>;

  /** Keeps a copy of 32 octets. Throws a RangeError for another length, without a word about the octets. */
  constructor(bytes: Uint8Array) {
    if (bytes.length !== KEY_BYTES) {
      throw new RangeError(`a WireGuard key has ${KEY_BYTES} octets, not ${bytes.length}`);
    }
    this.#bytes = new Uint8Array(bytes);
  }

  /** The octets, a new array at each call. */
  reveal(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice();
  }

  /** Whether both are the same, or neither is there. */
  static equal(a: WireguardSecret | undefined, b: WireguardSecret | undefined): boolean {
    if (a === undefined || b === undefined) return a === b;
    return a.#bytes.every((octet, index) => octet === b.#bytes[index]);
  }
}
