/**
 * Observables in a text. Every pattern is bounded, so that no text makes one of them slow; fuzzed and timed in tests.
 */
import { normalise, refang } from './indicator.ts';
import type { IndicatorKind } from './indicator.ts';

export interface Found {
  readonly kind: IndicatorKind;
  readonly value: string;
}

const URLS = /\b(?:https?|ftp|hxxps?):\/\/[^\s"'<>\\^`{|}]{1,2048}/gi;
const EMAILS = /(?<![\w.+-])[\w.+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){1,8}/gi;
const DOMAINS = /(?<![\w.@/-])(?:[a-z0-9_-]{1,63}(?:\.|\[\.\])){1,10}[a-z][a-z0-9-]{1,62}(?![\w-])/gi;
const IPV4 = /(?<![\w.])\d{1,3}(?:(?:\.|\[\.\])\d{1,3}){3}(?!\.?\w)/g;
const IPV6 = /(?<![\w:.])(?=[0-9a-f]{0,4}:)[0-9a-f:]{2,39}(?:\.\d{1,3}){0,3}(?![\w:])/gi;
const HASHES = /(?<![0-9a-z])(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}|[0-9a-f]{128})(?![0-9a-z])/gi;

/** May have the same one more than once. A URL also gives its host, an e-mail address its domain. */
export function* textObservables(text: string): Generator<Found> {
  const dotted = text.includes('.');
  const colon = text.includes(':');
  if (colon) {
    for (const [match] of text.matchAll(URLS)) yield* ofUrl(refang(match.replace(/[),.;\]!?]+$/, '')));
    for (const [match] of text.matchAll(IPV6)) yield* one('ip', match);
  }
  if (dotted) {
    if (text.includes('@')) for (const [match] of text.matchAll(EMAILS)) yield* ofEmail(match);
    for (const [match] of text.matchAll(IPV4)) yield* one('ip', refang(match));
    for (const [match] of text.matchAll(DOMAINS)) yield* one('domain', refang(match));
  }
  if (text.length >= 32) for (const [match] of text.matchAll(HASHES)) yield* one('hash', match);
}

function* one(kind: IndicatorKind, text: string): Generator<Found> {
  const value = normalise(kind, text);
  if (value !== undefined) yield { kind, value };
}

function* ofUrl(text: string): Generator<Found> {
  const value = normalise('url', text);
  if (value === undefined) return;
  yield { kind: 'url', value };
  const { hostname } = new URL(value);
  yield* one('ip', hostname.replace(/^\[|\]$/g, ''));
  yield* one('domain', hostname);
}

function* ofEmail(text: string): Generator<Found> {
  yield* one('email', text);
  yield* one('domain', text.slice(text.lastIndexOf('@') + 1));
}
