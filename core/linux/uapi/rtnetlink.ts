/**
 * linux/rtnetlink.h, if_link.h, if_tunnel.h, if_addr.h, neighbour.h, netconf.h and nexthop.h (Linux 6.1), as far as denim
 * uses them.
 *
 * @module
 */

// deno-fmt-ignore-file
export const RTM_NEWLINK = 16, RTM_DELLINK = 17, RTM_GETLINK = 18, RTM_SETLINK = 19;
export const RTM_NEWADDR = 20, RTM_DELADDR = 21, RTM_GETADDR = 22;
export const RTM_NEWROUTE = 24, RTM_DELROUTE = 25, RTM_GETROUTE = 26;
export const RTM_NEWNEIGH = 28, RTM_DELNEIGH = 29, RTM_GETNEIGH = 30;
export const RTM_NEWNETCONF = 80, RTM_DELNETCONF = 81, RTM_GETNETCONF = 82;
export const RTM_NEWNEXTHOP = 104, RTM_DELNEXTHOP = 105, RTM_GETNEXTHOP = 106;

export const RTNLGRP_LINK = 1, RTNLGRP_NEIGH = 3;
export const RTNLGRP_IPV4_IFADDR = 5, RTNLGRP_IPV4_ROUTE = 7;
export const RTNLGRP_IPV6_IFADDR = 9, RTNLGRP_IPV6_ROUTE = 11;
export const RTNLGRP_IPV4_NETCONF = 24, RTNLGRP_IPV6_NETCONF = 25, RTNLGRP_NEXTHOP = 32;

// struct ifinfomsg, IFLA_*
export const IFINFOMSG_LEN = 16;
export const IFF_UP = 0x1, IFF_LOOPBACK = 0x8, IFF_RUNNING = 0x40, IFF_PROMISC = 0x100;
export const IFF_LOWER_UP = 0x10000;
export const IFLA_ADDRESS = 1, IFLA_IFNAME = 3, IFLA_MTU = 4, IFLA_MASTER = 10;
export const IFLA_PROTINFO = 12, IFLA_TXQLEN = 13, IFLA_OPERSTATE = 16, IFLA_LINKINFO = 18;
export const IFLA_IFALIAS = 20, IFLA_GROUP = 27;
export const IFLA_NET_NS_FD = 28, IFLA_EXT_MASK = 29;
export const IFLA_INFO_KIND = 1, IFLA_INFO_DATA = 2;
export const IFLA_BRPORT_MODE = 4;
export const VETH_INFO_PEER = 1;
export const IF_OPER_UP = 6;

export const RTEXT_FILTER_SKIP_STATS = 8;

export const IFLA_VXLAN_ID = 1, IFLA_VXLAN_LINK = 3, IFLA_VXLAN_LOCAL = 4, IFLA_VXLAN_LEARNING = 7;
export const IFLA_VXLAN_PORT = 15, IFLA_VXLAN_LOCAL6 = 17, IFLA_VXLAN_UDP_CSUM = 18;
export const IFLA_VXLAN_GBP = 23;

export const IFLA_IPTUN_LOCAL = 2, IFLA_IPTUN_REMOTE = 3, IFLA_IPTUN_PMTUDISC = 10;

// struct ifaddrmsg, IFA_*
export const IFADDRMSG_LEN = 8;
export const IFA_ADDRESS = 1, IFA_LOCAL = 2, IFA_BROADCAST = 4;
export const IFA_F_NODAD = 0x02, IFA_F_DADFAILED = 0x08, IFA_F_TENTATIVE = 0x40;
export const IFA_F_TEMPORARY = 0x01, IFA_F_DEPRECATED = 0x20, IFA_F_PERMANENT = 0x80;

// struct ndmsg, NDA_*
export const NDMSG_LEN = 12;
export const NDA_DST = 1, NDA_LLADDR = 2, NDA_IFINDEX = 8;
export const NUD_PERMANENT = 0x80;
export const NTF_SELF = 0x02;

// struct netconfmsg, NETCONFA_*; an index of -1, unsigned
export const NETCONFMSG_LEN = 1;
export const NETCONFA_IFINDEX = 1, NETCONFA_FORWARDING = 2;
export const NETCONFA_IFINDEX_ALL = 0xffff_ffff;

// struct nhmsg, NHA_*
export const NHMSG_LEN = 8;
export const NHA_ID = 1, NHA_GROUP = 2, NHA_OIF = 5, NHA_GATEWAY = 6;

// struct rtmsg, RTA_*
export const RTMSG_LEN = 12;
export const RTA_DST = 1, RTA_OIF = 4, RTA_GATEWAY = 5, RTA_PRIORITY = 6, RTA_PREFSRC = 7;
export const RTA_MULTIPATH = 9, RTA_METRICS = 8, RTAX_MTU = 2, RTAX_ADVMSS = 8;
export const RTA_TABLE = 15, RTA_VIA = 18, RTA_NH_ID = 30;
export const RT_TABLE_UNSPEC = 0, RT_TABLE_MAIN = 254, RT_TABLE_LOCAL = 255;
export const RTM_F_FIB_MATCH = 0x2000;
export const RT_SCOPE_UNIVERSE = 0, RT_SCOPE_LINK = 253, RT_SCOPE_NOWHERE = 255;
export const RTN_UNICAST = 1, RTN_LOCAL = 2, RTN_BROADCAST = 3, RTN_BLACKHOLE = 6;
export const RTPROT_KERNEL = 2, RTPROT_BOOT = 3;
export const RTNH_F_ONLINK = 4;
