/**
 * Is a feed poisoned? Whoever gets lines into a feed can make Mayfly refuse what its owner needs, or hide one
 * indicator among a million. A new copy that names what no honest list names, or that has grown or shrunk out of all
 * proportion, is not used until somebody has looked; the last good copy is.
 */
import { getDomain, getPublicSuffix } from 'tldts';
import { limits } from '../core/limits.ts';
import { formatAddress, parseAddress } from './indicator.ts';
import type { AddressRange, Indicator } from './indicator.ts';

export type FindingKind = 'private' | 'top-domain' | 'too-wide' | 'protected' | 'growth' | 'shrink';

export interface Finding {
  readonly kind: FindingKind;
  readonly text: string;
}

/** Ranges that belong to nobody or to everybody; what is documentation (RFC 5737, RFC 3849) may be listed. */
const PRIVATE = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '224.0.0.0/4',
  '255.255.255.255',
  '::',
  '::1',
  'fc00::/7',
  'fe80::/10',
  'ff00::/8',
].map(rangeOf);
/** Wider ranges than these are no indicator: a tenth of a percent of all of IPv4, or a whole registry's IPv6. */
const WIDEST = { 4: 8, 16: 19 };

/** Domains that most of the world needs: none of them belongs into a list as a whole. */
const TOP_DOMAINS = new Set(
  [
    'google.com youtube.com facebook.com instagram.com whatsapp.com x.com twitter.com wikipedia.org yahoo.com',
    'amazon.com amazonaws.com cloudfront.net microsoft.com live.com office.com office365.com outlook.com',
    'windows.net azure.com windowsupdate.com bing.com apple.com icloud.com netflix.com linkedin.com',
    'reddit.com github.com githubusercontent.com gitlab.com cloudflare.com akamai.net akamaized.net',
    'fastly.net googleapis.com gstatic.com googleusercontent.com doubleclick.net mozilla.org firefox.com',
    'paypal.com stripe.com visa.com mastercard.com dropbox.com slack.com zoom.us adobe.com salesforce.com',
    'oracle.com ibm.com wordpress.com wordpress.org baidu.com qq.com taobao.com yandex.ru vk.com tiktok.com',
    'twitch.tv ebay.com bbc.co.uk digicert.com letsencrypt.org gnu.org kernel.org python.org nodejs.org',
    'mit.edu w3.org ietf.org',
  ].flatMap((line) => line.split(' ')),
);

export interface Vetting {
  /** Values that this installation must reach, whatever a feed says: addresses, ranges, domains. */
  readonly protect: readonly string[];
  /** Kinds whose rows are dropped instead of holding up the whole feed. */
  readonly tolerate: ReadonlySet<FindingKind>;
}

/** What is wrong with one indicator; undefined when nothing is. */
export function vet(indicator: Indicator, vetting: Vetting): Finding | undefined {
  const { kind, value } = indicator;
  if (kind === 'ip') {
    const range = parseAddress(value);
    return range === undefined ? undefined : vetRange(range, vetting);
  }
  if (kind === 'domain') return vetDomain(value, vetting);
  return undefined;
}

function vetRange(range: AddressRange, { protect }: Vetting): Finding | undefined {
  const text = formatAddress(range);
  if (range.prefix < (range.bytes.length === 4 ? WIDEST[4] : WIDEST[16])) {
    return { kind: 'too-wide', text: `${text} would block a large part of the Internet` };
  }
  if (PRIVATE.some((other) => overlap(range, other)))
    return { kind: 'private', text: `${text} is private or reserved` };
  const owned = protect.find((other) => {
    const own = parseAddress(other);
    return own !== undefined && overlap(range, own);
  });
  return owned === undefined ? undefined : { kind: 'protected', text: `${text} covers the protected ${owned}` };
}

function vetDomain(domain: string, { protect }: Vetting): Finding | undefined {
  if (!domain.includes('.') || getPublicSuffix(domain, { allowPrivateDomains: false }) === domain) {
    return { kind: 'too-wide', text: `${domain} is a public suffix: everybody below it would be blocked` };
  }
  const bare = domain.replace(/^www\./, '');
  if (TOP_DOMAINS.has(bare) && getDomain(domain) === bare)
    return { kind: 'top-domain', text: `${domain} is a top domain` };
  const owned = protect.find((other) => other === domain || other.endsWith(`.${domain}`));
  return owned === undefined ? undefined : { kind: 'protected', text: `${domain} covers the protected ${owned}` };
}

function overlap(a: AddressRange, b: AddressRange): boolean {
  if (a.bytes.length !== b.bytes.length) return false;
  const prefix = Math.min(a.prefix, b.prefix);
  for (let bit = 0, at = 0; bit < prefix; bit += 8, at++) {
    const mask = (0xff00 >> Math.min(8, prefix - bit)) & 0xff;
    if ((((a.bytes[at] ?? 0) ^ (b.bytes[at] ?? 0)) & mask) !== 0) return false;
  }
  return true;
}

function rangeOf(text: string): AddressRange {
  const range = parseAddress(text);
  if (range === undefined) throw new Error(`intel/vet.ts: ${text}`);
  return range;
}

/** Lists grow by some percent a day; below this many indicators proportions mean nothing. */
const PROPORTION_FLOOR = 1000;
const GROWTH_FACTOR = 5;
const SHRINK_FACTOR = 5;

/** What is wrong with the size of a new copy, given that of the last good one; `before` 0: there is none. */
export function vetSize(before: number, now: number): Finding[] {
  if (before > 0 && now > PROPORTION_FLOOR && now > before * GROWTH_FACTOR) {
    return [{ kind: 'growth', text: `sudden growth from ${before} to ${now} indicators` }];
  }
  if (before >= PROPORTION_FLOOR && now * SHRINK_FACTOR < before) {
    return [{ kind: 'shrink', text: `sudden loss from ${before} to ${now} indicators` }];
  }
  return before > 0 && now === 0 ? [{ kind: 'shrink', text: `${before} indicators before, none now` }] : [];
}

/** Findings as they are kept: each kind first, then as many as there is room for. */
export function summarise(findings: readonly Finding[]): Finding[] {
  const firsts = new Map<FindingKind, Finding>();
  for (const finding of findings) if (!firsts.has(finding.kind)) firsts.set(finding.kind, finding);
  const others = findings.filter((finding) => firsts.get(finding.kind) !== finding);
  return [...firsts.values(), ...others].slice(0, limits.intelFindingsKept);
}
