/**
 * linux/virtio_net.h: the header that stands before each packet of a TUN device with `IFF_VNET_HDR`. Its
 * numbers are in host order.
 *
 * @module
 */

/** The header's length, in bytes. */
export const VIRTIO_NET_HDR_LEN = 10;

/** Where its fields are. */
export const VIRTIO_NET_HDR = {
  /** Flags; one byte. */
  flags: 0,
  /** What the packet is to be cut into; one byte. */
  gsoType: 1,
  /** How long the headers are that each segment gets; two bytes. A hint. */
  headerLength: 2,
  /** How much payload each segment gets; two bytes. */
  gsoSize: 4,
  /** Where the bytes begin that a checksum left to do covers; two bytes, from the packet's start. */
  checksumStart: 6,
  /** Where it goes; two bytes, from `checksumStart`. */
  checksumOffset: 8,
} as const;

/** The checksum is left to do: its place holds the sum of the pseudo header. */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;

/** The packet is as it will travel. */
export const VIRTIO_NET_HDR_GSO_NONE = 0;
/** TCP over IPv4, to be cut into segments. */
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1;
/** TCP over IPv6, to be cut into segments. */
export const VIRTIO_NET_HDR_GSO_TCPV6 = 4;
/** UDP, to be cut into datagrams. */
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
/** Added to one of TCP's: only the first segment says that the window was reduced (RFC 3168). */
export const VIRTIO_NET_HDR_GSO_ECN = 0x80;
