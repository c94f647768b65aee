/**
 * What a file is, as `linux/stat.h` and `linux/fcntl.h` have it.
 *
 * @module
 */

/** The file is the one that the descriptor leads to. */
export const AT_EMPTY_PATH = 0x1000;
/** Ask for the inode's number. */
export const STATX_INO = 0x100;

/** `struct statx`. */
export const STATX = {
  /** Its length. */
  size: 256,
  /** `stx_ino` (64 bits). */
  ino: 32,
} as const;
