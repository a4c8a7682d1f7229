/**
 * What a feed says about the world, in one form whatever the feed's own: a value of a kind, how sure its source is, how
 * bad it is, and when that holds. Values are normalised once, here, for feeds and events alike: a match is equality of
 * normalised texts, so a difference in writing (case, a dot, a default port) cannot hide one.
 */
import { domainToASCII } from 'node:url';
import ipaddr from 'ipaddr.js';

export const indicatorKinds = ['ip', 'domain', 'url', 'email', 'hash'] as const;
export type IndicatorKind = (typeof indicatorKinds)[number];

export const severities = ['low', 'medium', 'high', 'critical'] as const;
export type Severity = (typeof severities)[number];

export interface Indicator {
  readonly kind: IndicatorKind;
  /** Normalised: `192.0.2.0/24`, `bad.example`, `http://bad.example/x`, `a@bad.example`, or hex of MD5 to SHA-512. */
  readonly value: string;
  /** 0 to 100. */
  readonly confidence: number;
  readonly severity: Severity;
  /** Seconds since the epoch; 0: since ever. */
  readonly validFrom: number;
  /** Seconds since the epoch, exclusive; 0: for ever. */
  readonly validUntil: number;
  /** Labels, types and kill-chain phases. */
  readonly labels: readonly string[];
  /** The feed's own name of it, empty where it has none; updates and revocations refer to it. */
  readonly id: string;
}

/** An address range: 4 or 16 bytes with everything behind the prefix cleared. */
export interface AddressRange {
  readonly bytes: readonly number[];
  readonly prefix: number;
}

const DOTTED = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/;
const VALUE_UNITS_MAX = 2048;

/** An address or CIDR range; IPv4 inside IPv6 (`::ffff:192.0.2.1`) is IPv4. Undefined when it is none. */
export function parseAddress(text: string): AddressRange | undefined {
  if (text.length > 64) return undefined;
  const slash = text.indexOf('/');
  const address = slash < 0 ? text : text.slice(0, slash);
  const suffix = slash < 0 ? undefined : text.slice(slash + 1);
  if (suffix !== undefined && !/^\d{1,3}$/.test(suffix)) return undefined;
  const parsed = addressBytes(address);
  if (parsed === undefined) return undefined;
  let bytes = parsed;
  let prefix = suffix === undefined ? bytes.length * 8 : Number(suffix);
  if (prefix > bytes.length * 8) return undefined;
  if (bytes.length === 16 && prefix >= 96 && isMapped(bytes)) {
    bytes = bytes.slice(12);
    prefix -= 96;
  }
  return { bytes: masked(bytes, prefix), prefix };
}

function addressBytes(text: string): number[] | undefined {
  const dotted = DOTTED.exec(text);
  if (dotted !== null) {
    const bytes = [Number(dotted[1]), Number(dotted[2]), Number(dotted[3]), Number(dotted[4])];
    return bytes.every((byte) => byte <= 255) ? bytes : undefined;
  }
  // The library throws where an address ends early, and texts are full of what only looks like one.
  if (!text.includes('::') && text.split(':', 8).length < 7) return undefined;
  if (text.includes('%')) return undefined;
  return ipaddr.IPv6.isValid(text) ? ipaddr.IPv6.parse(text).toByteArray() : undefined;
}

function isMapped(bytes: readonly number[]): boolean {
  return bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 255 && bytes[11] === 255;
}

export function masked(bytes: readonly number[], prefix: number): number[] {
  return bytes.map((byte, at) => {
    const bits = Math.max(0, Math.min(8, prefix - at * 8));
    return byte & (0xff00 >> bits) & 0xff;
  });
}

export function formatAddress({ bytes, prefix }: AddressRange): string {
  const whole = prefix === bytes.length * 8;
  const text = bytes.length === 4 ? bytes.join('.') : ipaddr.fromByteArray([...bytes]).toString();
  return whole ? text : `${text}/${prefix}`;
}

const PLAIN_DOMAIN = /^(?:[a-z0-9_](?:[a-z0-9_-]{0,62})\.)+[a-z0-9][a-z0-9-]{0,62}$/;

/** A domain stands for itself and everything below it; `*.` and a last dot say nothing more. */
function normaliseDomain(text: string): string | undefined {
  let domain = text.toLowerCase().replace(/^\*?\./, '').replace(/\.$/, '');
  if (domain.length > 253) return undefined;
  if (!PLAIN_DOMAIN.test(domain)) domain = domainToASCII(domain);
  if (!PLAIN_DOMAIN.test(domain) || DOTTED.test(domain) || domain.length > 253) return undefined;
  return domain;
}

/** Scheme, host, port and path as the URL standard writes them; no user, no fragment. */
function normaliseUrl(text: string): string | undefined {
  if (!URL.canParse(text)) return undefined;
  const url = new URL(text);
  if (url.protocol !== 'http:' && url.protocol !== 'https:' && url.protocol !== 'ftp:') return undefined;
  if (url.hash !== '') url.hash = '';
  if (url.username !== '' || url.password !== '') [url.username, url.password] = ['', ''];
  if (url.hostname.endsWith('.')) url.hostname = url.hostname.slice(0, -1);
  return url.href.length > VALUE_UNITS_MAX ? undefined : url.href;
}

const EMAIL = /^[a-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@([a-z0-9.-]{1,253})$/;
const HASH = /^(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})$/;

/** The normalised value, or undefined when the text is nothing of that kind. */
export function normalise(kind: IndicatorKind, text: string): string | undefined {
  if (text.length === 0 || text.length > VALUE_UNITS_MAX) return undefined;
  switch (kind) {
    case 'ip': {
      const range = parseAddress(text);
      return range === undefined ? undefined : formatAddress(range);
    }
    case 'domain':
      return normaliseDomain(text);
    case 'url':
      return normaliseUrl(text);
    case 'email': {
      const email = text.toLowerCase();
      return EMAIL.test(email) ? email : undefined;
    }
    case 'hash': {
      const hash = text.toLowerCase();
      return HASH.test(hash) ? hash : undefined;
    }
  }
}

/** Undoes what analysts do to keep a link from being clicked: `hxxp://bad[.]example`. */
export function refang(text: string): string {
  if (!/hxxp|\[|\(dot\)/i.test(text)) return text;
  return text.replace(/^hxxp/i, 'http').replace(/\[\.\]|\(\.\)|\[dot\]|\(dot\)/gi, '.')
    .replace(/\[:\/\/\]/g, '://').replace(/\[:\]/g, ':').replace(/\[@\]|\[at\]/gi, '@');
}

/** What a text is by itself; a bare host is a domain, never a URL. */
export function classify(text: string): { readonly kind: IndicatorKind; readonly value: string } | undefined {
  const plain = refang(text.trim());
  const kinds: readonly IndicatorKind[] = plain.includes('://') ? ['url'] : ['hash', 'ip', 'email', 'domain'];
  for (const kind of kinds) {
    const value = normalise(kind, plain);
    if (value !== undefined) return { kind, value };
  }
  return undefined;
}
