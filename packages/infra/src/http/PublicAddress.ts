import { BlockList, isIP, isIPv4 } from "node:net"

/** What of IPv4 is not the internet's (IANA's registry of special-purpose addresses, RFC 6890), and multicast. */
const special4 = new BlockList()
for (const [net, bits] of [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 4],
  ["240.0.0.0", 4]
] as const) {
  special4.addSubnet(net, bits, "ipv4")
}

/** Of IPv6 only what is assigned to the internet is public, and of that not the ways into IPv4 or what is for books. */
const global6 = new BlockList()
global6.addSubnet("2000::", 3, "ipv6")
const special6 = new BlockList()
for (const [net, bits] of [
  ["2001::", 23],
  ["2001:db8::", 32],
  ["2002::", 16],
  ["3fff::", 20]
] as const) {
  special6.addSubnet(net, bits, "ipv6")
}

/** Whether an IP address is out on the internet, and not of this machine, its network or its cloud. */
export const isPublic = (address: string): boolean => {
  if (isIP(address) === 0) return false
  return isIPv4(address)
    ? !special4.check(address, "ipv4")
    : global6.check(address, "ipv6") && !special6.check(address, "ipv6")
}
