/**
 * Constants of the system calls that denim makes, for x86-64 and arm64 Linux (asm-generic), each under
 * its kernel header's name.
 *
 * @module
 */

// deno-fmt-ignore-file
// linux/socket.h, asm-generic/socket.h
export const AF_UNSPEC = 0, AF_UNIX = 1, AF_INET = 2, AF_BRIDGE = 7, AF_INET6 = 10, AF_NETLINK = 16, AF_PACKET = 17;
export const SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_RAW = 3, SOCK_CLOEXEC = 0x80000;
export const SOL_SOCKET = 1;
export const SO_REUSEPORT = 15, SO_RCVTIMEO = 20, SO_SNDTIMEO = 21, SO_ATTACH_FILTER = 26;
export const SO_SNDBUFFORCE = 32, SO_RCVBUFFORCE = 33, SO_TIMESTAMPNS = 35;
export const MSG_TRUNC = 0x20, MSG_DONTWAIT = 0x40;
// linux/in.h, linux/in6.h
export const IPPROTO_IP = 0, IPPROTO_ICMP = 1, IPPROTO_UDP = 17;
export const IPPROTO_IPV6 = 41, IPPROTO_ICMPV6 = 58, IPPROTO_RAW = 255;
export const IP_MTU_DISCOVER = 10, IP_PMTUDISC_WANT = 1, IP_PMTUDISC_DO = 2, IP_PMTUDISC_PROBE = 3, IP_MTU = 14;
export const IP_TTL = 2, IPV6_CHECKSUM = 7, IPV6_UNICAST_HOPS = 16;
export const IPV6_MTU_DISCOVER = 23, IPV6_MTU = 24, IPV6_V6ONLY = 26;
// linux/udp.h
export const SOL_UDP = 17, UDP_SEGMENT = 103, UDP_GRO = 104;
// linux/if_ether.h
export const ETH_P_ALL = 0x0003;
// asm-generic/fcntl.h
export const O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2;
export const O_NONBLOCK = 0x800, O_CLOEXEC = 0x80000;
export const LOCK_SH = 1, LOCK_UN = 8;
// linux/time.h
export const CLOCK_REALTIME = 0;
// linux/sched.h
export const CLONE_FS = 0x200, CLONE_NEWNS = 0x20000, CLONE_NEWNET = 0x40000000;
// linux/mount.h
export const MS_BIND = 4096, MNT_DETACH = 2;
// asm-generic/poll.h
export const POLLIN = 1, POLLOUT = 4;
// linux/eventfd.h
export const EFD_CLOEXEC = 0x80000;
