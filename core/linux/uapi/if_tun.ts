/**
 * linux/if_tun.h, and the `IFLA_TUN_*` of linux/if_link.h (Linux 6.2): devices that a program is the
 * other end of.
 *
 * @module
 */

// deno-fmt-ignore-file
export const TUNSETIFF = 0x400454ca, TUNSETPERSIST = 0x400454cb;
export const TUNGETFEATURES = 0x800454cf, TUNSETOFFLOAD = 0x400454d0;

export const IFF_TUN = 0x1, IFF_MULTI_QUEUE = 0x100, IFF_NO_PI = 0x1000, IFF_VNET_HDR = 0x4000;

export const TUN_F_CSUM = 0x01, TUN_F_TSO4 = 0x02, TUN_F_TSO6 = 0x04, TUN_F_TSO_ECN = 0x08;
export const TUN_F_USO4 = 0x20, TUN_F_USO6 = 0x40;

export const IFLA_TUN_TYPE = 3, IFLA_TUN_PI = 4, IFLA_TUN_PERSIST = 6, IFLA_TUN_MULTI_QUEUE = 7;

// struct ifreq: ifr_name, and at 16 ifr_flags
export const IFREQ_LEN = 40, IFNAMSIZ = 16;
