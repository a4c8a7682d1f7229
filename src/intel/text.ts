/**
 * Observables in a text. Every pattern is bounded, so that no text makes one of them slow; fuzzed and timed in tests.
 *
 * Called back and not iterated, and links parsed once: extraction is most of the time of an assessment, and what it
 * allocates is collected in pauses that an event would have to wait for.
 */
import { normalise, refang } from './indicator.ts';
import type { IndicatorKind } from './indicator.ts';

/** False: enough. */
export type Visit = (kind: IndicatorKind, value: string) => boolean;

const URLS = /\b(?:https?|ftp|hxxps?):\/\/[^\s"'<>\\^`{|}]{1,2048}/gi;
const EMAILS = /(?<![\w.+-])[\w.+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}/gi;
const DOMAINS = /(?<![\w.@/-])(?:[a-z0-9_-]{1,63}(?:\.|\[\.\])){1,10}[a-z][a-z0-9-]{1,62}(?![\w-])/gi;
const IPV4 = /(?<![\w.])\d{1,3}(?:(?:\.|\[\.\])\d{1,3}){3}(?!\.?\w)/g;
const IPV6 = /(?<![\w:.])(?=[0-9a-f]{0,4}:)[0-9a-f:]{2,39}(?:\.\d{1,3}){0,3}(?![\w:])/gi;
const HASHES = /(?<![0-9a-z])(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})(?![0-9a-z])/gi;
const LAST_MARKS = /[),.;\]!?]+$/;

/** May visit the same one more than once. A URL also gives its host, an e-mail address its domain. */
export function visitObservables(text: string, visit: Visit): void {
  const dotted = text.includes('.');
  if (text.includes(':')) {
    if (text.includes('://') && !each(URLS, text, (match) => ofUrl(refang(match.replace(LAST_MARKS, '')), visit)))
      return;
    if (!each(IPV6, text, (match) => one('ip', match, visit))) return;
  }
  if (dotted) {
    if (text.includes('@') && !each(EMAILS, text, (match) => ofEmail(match, visit))) return;
    if (!each(IPV4, text, (match) => one('ip', refang(match), visit))) return;
    if (!each(DOMAINS, text, (match) => one('domain', refang(match), visit))) return;
  }
  if (text.length >= 32) each(HASHES, text, (match) => one('hash', match, visit));
}

function each(pattern: RegExp, text: string, take: (match: string) => boolean): boolean {
  pattern.lastIndex = 0;
  for (let found = pattern.exec(text); found !== null; found = pattern.exec(text)) {
    const next = pattern.lastIndex;
    if (!take(found[0])) return false;
    pattern.lastIndex = next;
  }
  return true;
}

function one(kind: IndicatorKind, text: string, visit: Visit): boolean {
  const value = normalise(kind, text);
  return value === undefined || visit(kind, value);
}

/** Of a normalised link: scheme, host, and a port where it is not the scheme's own. */
const HOST = /^[a-z]+:\/\/(\[[^\]]*\]|[^/:?]*)/;

function ofUrl(text: string, visit: Visit): boolean {
  const value = normalise('url', text);
  if (value === undefined) return true;
  if (!visit('url', value)) return false;
  const host = HOST.exec(value)?.[1] ?? '';
  if (host.startsWith('[')) return one('ip', host.slice(1, -1), visit);
  return one('ip', host, visit) && one('domain', host, visit);
}

function ofEmail(text: string, visit: Visit): boolean {
  return one('email', text, visit) && one('domain', text.slice(text.lastIndexOf('@') + 1), visit);
}
