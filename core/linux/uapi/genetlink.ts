/**
 * linux/genetlink.h (Linux 6.1): generic netlink, by which parts of the kernel have a family of messages each.
 *
 * @module
 */

// deno-fmt-ignore-file
// struct genlmsghdr: cmd, version, and two reserved bytes
export const GENL_HDRLEN = 4;
export const GENL_ID_CTRL = 16;

export const CTRL_CMD_GETFAMILY = 3;
export const CTRL_ATTR_FAMILY_ID = 1, CTRL_ATTR_FAMILY_NAME = 2;
