/**
 * linux/wireguard.h (Linux 6.1): WireGuard devices by generic netlink.
 *
 * @module
 */

// deno-fmt-ignore-file
export const WG_GENL_NAME = "wireguard";
export const WG_GENL_VERSION = 1;
export const WG_KEY_LEN = 32;

export const WG_CMD_GET_DEVICE = 0, WG_CMD_SET_DEVICE = 1;

export const WGDEVICE_A_IFNAME = 2, WGDEVICE_A_PRIVATE_KEY = 3;
export const WGDEVICE_A_LISTEN_PORT = 6, WGDEVICE_A_PEERS = 8;

export const WGPEER_F_REMOVE_ME = 1, WGPEER_F_REPLACE_ALLOWEDIPS = 2, WGPEER_F_UPDATE_ONLY = 4;
export const WGPEER_A_PUBLIC_KEY = 1, WGPEER_A_PRESHARED_KEY = 2, WGPEER_A_FLAGS = 3;
export const WGPEER_A_ENDPOINT = 4, WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL = 5;
// struct __kernel_timespec: seconds since 1970, then nanoseconds, of 8 bytes each
export const WGPEER_A_LAST_HANDSHAKE_TIME = 6;
export const WGPEER_A_RX_BYTES = 7, WGPEER_A_TX_BYTES = 8; // of 64 bits
export const WGPEER_A_ALLOWEDIPS = 9;

export const WGALLOWEDIP_A_FAMILY = 1, WGALLOWEDIP_A_IPADDR = 2, WGALLOWEDIP_A_CIDR_MASK = 3;
