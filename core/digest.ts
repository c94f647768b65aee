/**
 * Short numbers that stand for texts.
 *
 * @module
 */

/**
 * A number of 53 bits that tells texts apart: of two that differ, both have the same with odds of 1 to 9 · 10¹⁵. Two
 * hashes of FNV-1a's kind with multipliers of their own, each stirred at the end as MurmurHash3 does. Not for secrets.
 */
export function digestOf(text: string): number {
  let high = 0xdead_beef, low = 0x41c6_ce57;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    high = Math.imul(high ^ unit, 0x9e37_79b1);
    low = Math.imul(low ^ unit, 0x5f35_6495);
  }
  high = Math.imul(high ^ high >>> 16, 0x85eb_ca6b) ^ Math.imul(low ^ low >>> 13, 0xc2b2_ae35);
  low = Math.imul(low ^ low >>> 16, 0x85eb_ca6b) ^ Math.imul(high ^ high >>> 13, 0xc2b2_ae35);
  return (high & 0x1f_ffff) * 0x1_0000_0000 + (low >>> 0);
}
