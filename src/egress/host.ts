/**
 * The one reading of host names and addresses. What a policy names, what a guest asks for and what a resolver answers
 * all go through here, so that no second spelling of a host can be judged differently: case, a trailing dot, IDN,
 * decimal, octal and hexadecimal forms, brackets and IPv4 inside IPv6 all end in one canonical text. Pure.
 */
import { domainToASCII } from 'node:url';
import ipaddr from 'ipaddr.js';

export type Host =
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'address'; readonly address: string };

const NAME_UNITS_MAX = 253;
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;

/** Undefined for what is neither a name nor an address. */
export function parseHost(text: string): Host | undefined {
  if (text.length === 0 || text.length > NAME_UNITS_MAX + 3) return undefined;
  // Before anything interprets it: no NUL, no space, no character that means something in a URL, no zone.
  if (/[\p{Cc}\p{Z}/\\?#@%<>^|`{}"']/u.test(text)) return undefined;
  const bare = /^\[[^[\]]*\]$/.test(text) ? text.slice(1, -1) : text;
  if (bare.includes(':')) return addressHost(bare);
  const ascii = domainToASCII(bare.replace(/\.$/, '')).toLowerCase();
  if (ascii === '' || ascii.length > NAME_UNITS_MAX) return undefined;
  if (ipaddr.IPv4.isValidFourPartDecimal(ascii)) return addressHost(ascii);
  const labels = ascii.split('.');
  // A last label of digits would be an address to someone.
  if (!labels.every((label) => LABEL.test(label)) || /^\d+$/.test(labels.at(-1) ?? '')) return undefined;
  return { kind: 'name', name: ascii };
}

function addressHost(text: string): Host | undefined {
  const address = canonicalAddress(text);
  return address === undefined ? undefined : { kind: 'address', address };
}

type Address = ipaddr.IPv4 | ipaddr.IPv6;

/** IPv4 inside IPv6 (`::ffff:1.2.3.4`) is that IPv4 address. */
function readAddress(text: string): Address | undefined {
  if (text.includes(':') ? !ipaddr.IPv6.isValid(text) : !ipaddr.IPv4.isValidFourPartDecimal(text)) return undefined;
  const address = ipaddr.parse(text);
  if (address instanceof ipaddr.IPv6 && address.zoneId !== undefined) return undefined;
  return address instanceof ipaddr.IPv6 && address.isIPv4MappedAddress() ? address.toIPv4Address() : address;
}

function canonicalAddress(text: string): string | undefined {
  const address = readAddress(text);
  return address instanceof ipaddr.IPv6 ? address.toRFC5952String() : address?.toString();
}

/** An address or a range, as `1.2.3.0/24`; undefined for anything else, also for bits beyond the prefix. */
export function parseCidr(text: string): string | undefined {
  const [base = '', prefix, more] = text.split('/');
  const host = parseHost(base);
  if (host?.kind !== 'address' || more !== undefined) return undefined;
  const bits = host.address.includes(':') ? 128 : 32;
  if (prefix !== undefined && !/^\d{1,3}$/.test(prefix)) return undefined;
  // The prefix of a mapped range counts from the left of IPv6.
  const mapped = base.includes(':') && bits === 32;
  const length = prefix === undefined ? bits : Number(prefix) - (mapped ? 96 : 0);
  if (length < 0 || length > bits) return undefined;
  const range = `${host.address}/${length}`;
  const network = bits === 32
    ? ipaddr.IPv4.networkAddressFromCIDR(range).toString()
    : ipaddr.IPv6.networkAddressFromCIDR(range).toRFC5952String();
  return network === host.address ? range : undefined;
}

/** Both canonical. */
export function contains(cidr: string, address: string): boolean {
  const [base, bits] = ipaddr.parseCIDR(cidr);
  const parsed = ipaddr.parse(address);
  if (parsed.kind() !== base.kind()) return false;
  return parsed instanceof ipaddr.IPv4
    ? parsed.match(base as ipaddr.IPv4, bits)
    : (parsed as ipaddr.IPv6).match(base as ipaddr.IPv6, bits);
}

/**
 * What kind of address it is when it does not belong to the public Internet: loopback, private, link-local (also the
 * metadata services of clouds), carrier-grade NAT, multicast, and whatever wraps an address of IPv4 in one of IPv6.
 */
export function specialRange(address: string): string | undefined {
  const parsed = ipaddr.parse(address);
  const range = parsed.range();
  if (range !== 'unicast') return range;
  // 2000::/3 is all that is assigned. Beyond it lie ::1.2.3.4 and local forms of NAT64, which range() does not know.
  if (parsed instanceof ipaddr.IPv6 && ((parsed.parts[0] ?? 0) & 0xe000) !== 0x2000) return 'reserved';
  return undefined;
}
