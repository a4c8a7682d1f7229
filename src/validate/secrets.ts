/**
 * Looks for what must not leave: the tenant's secrets in the encodings that programs use, canaries, and texts that have
 * the form of a credential. It finds carelessness and simple theft. Whoever wants to hide a secret from it can: encrypt
 * it, split it, spell it; so it is one barrier, and not handing secrets to functions is the other.
 */
import { limits } from '../core/limits.ts';

export interface Leak {
  /** Name of the secret, or kind of credential. Never its value. */
  readonly name: string;
  /** As in `base64`. */
  readonly how: string;
}

/** Secrets that are in the bytes, each once, with the first encoding that was found. */
export function findSecrets(haystacks: readonly Buffer[], secrets: ReadonlyMap<string, string>): Leak[] {
  const leaks: Leak[] = [];
  for (const [name, value] of secrets) {
    const found = encodingsOf(value).find(({ needle }) => haystacks.some((bytes) => bytes.includes(needle)));
    if (found !== undefined) leaks.push({ name, how: found.how });
  }
  return leaks;
}

interface Encoding {
  readonly how: string;
  readonly needle: Buffer;
}

function encodingsOf(secret: string): Encoding[] {
  const bytes = Buffer.from(secret);
  const hex = bytes.toString('hex');
  const texts: [string, string][] = [
    ['plain', secret],
    ['reversed', [...secret].reverse().join('')],
    ['hex', hex],
    ['hex', hex.toUpperCase()],
    ['url-encoded', encodeURIComponent(secret)],
    ['url-encoded', escaped(hex)],
    ['url-encoded', escaped(hex.toUpperCase())],
    ['json-escaped', JSON.stringify(secret).slice(1, -1)],
    ...base64Of(bytes).map((text): [string, string] => ['base64', text]),
    ...base64Of(Buffer.from([...secret].reverse().join(''))).map((text): [string, string] => ['reversed base64', text]),
    // UTF-16, as Windows tools and some databases write it.
    ['base64 of UTF-16', Buffer.from(secret, 'utf16le').toString('base64').replace(/=+$/, '')],
  ];
  const utf16 = { how: 'utf-16', needle: Buffer.from(secret, 'utf16le') };
  return [...texts.map(([how, text]) => ({ how, needle: Buffer.from(text) })), utf16];
}

function escaped(hex: string): string {
  return hex.replace(/../g, '%$&');
}

/** A secret inside of something longer begins at any of three offsets; the characters that depend on neighbours go. */
function base64Of(bytes: Buffer): string[] {
  const forms = [0, 1, 2].flatMap((before) => {
    const text = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64').replace(/=+$/, '');
    const from = before === 0 ? 0 : before + 1;
    const to = (before + bytes.length) % 3 === 0 ? text.length : text.length - 1;
    return [text.slice(from, to)];
  });
  return [...forms, ...forms.map((text) => text.replaceAll('+', '-').replaceAll('/', '_'))];
}

/** Forms of credentials that their makers made recognisable. */
const CREDENTIALS: readonly (readonly [kind: string, pattern: RegExp])[] = [
  ['private key', /-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY-----/],
  ['AWS access key', /\b(?:AKIA|ASIA)[A-Z2-7]{16}\b/],
  ['GitHub token', /\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60})/],
  ['GitLab token', /\bglpat-[A-Za-z0-9_-]{20}/],
  ['Slack token', /\bxox[abeoprs]-[A-Za-z0-9-]{10}/],
  ['Stripe key', /\b[rs]k_live_[A-Za-z0-9]{20}/],
  ['Google API key', /\bAIza[A-Za-z0-9_-]{35}/],
  ['npm token', /\bnpm_[A-Za-z0-9]{36}/],
  ['JSON web token', /\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{10}/],
  ['URL with a password', /\b[a-z][a-z0-9+.-]{1,20}:\/\/[^\s/:@"']{1,100}:[^\s/:@"']{3,100}@/],
];

/** Kinds of credentials in a text. */
export function findCredentials(text: string): string[] {
  return CREDENTIALS.filter(([, pattern]) => pattern.test(text)).map(([kind]) => kind);
}

/** Every text in a JSON value, keys too, one after another: escapes do not hide anything. */
export function textsOf(value: unknown): string {
  const texts: string[] = [];
  const open: unknown[] = [value];
  let units = 0;
  for (let item = open.pop(); item !== undefined && units < limits.outputTextUnitsMax; item = open.pop()) {
    if (typeof item === 'string') {
      texts.push(item);
      units += item.length;
    } else if (typeof item === 'object' && item !== null) {
      // Not reversed by the stack: what stands together is looked at together.
      const parts = Array.isArray(item) ? item : Object.entries(item).flat();
      for (let at = parts.length - 1; at >= 0; at--) if (parts[at] !== null) open.push(parts[at]);
    }
  }
  return texts.join('\n');
}
