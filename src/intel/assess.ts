/**
 * The threat score of an event, 0 to 100, and every point of it explained.
 *
 * Each source that names something in the event, and each sign in its content, is a cause with a probability of its
 * own: confidence × severity × age × reliability for a source, a fixed weight for a sign. They combine as noisy-or,
 * 1 − Π(1 − p): two independent voices say more than one, many weak ones never more than certainty. A source counts
 * once, with the strongest of what it says, because its lines are one opinion. So another indicator can only raise the
 * score.
 */
import { limits } from '../core/limits.ts';
import { levelOf } from '../profile/levels.ts';
import type { ThreatLevel } from '../profile/levels.ts';
import { signWeights } from './content.ts';
import type { Sign } from './content.ts';
import type { Hit } from './index.ts';
import type { IndicatorKind, Severity } from './indicator.ts';
import { whereOf } from './observe.ts';
import type { Observed } from './observe.ts';
import type { FeedHealth } from './feed.ts';
import type { IntelSnapshot } from './snapshot.ts';

/** A match of an observable with what one source says. */
export interface Match extends Omit<Hit, 'source'> {
  readonly kind: IndicatorKind;
  readonly observable: string;
  readonly where: string;
  /** Name of the feed. */
  readonly source: string;
  /** How much it says today, 0 to 1. */
  readonly probability: number;
}

export interface ThreatReason {
  /** Points of the score; the points of all reasons add up to it. */
  readonly points: number;
  readonly text: string;
}

export interface Assessment {
  readonly score: number;
  readonly level: ThreatLevel;
  /** Most points first; at most `matchesListedMax`, the rest of the points in the last one. */
  readonly reasons: readonly ThreatReason[];
  /** Strongest first; at most `matchesListedMax`. */
  readonly matches: readonly Match[];
  readonly signs: readonly Sign[];
  /** Feeds that are not what they should be: whoever relies on the score knows less than configured. */
  readonly degraded: readonly { readonly feed: string; readonly health: FeedHealth }[];
}

const SEVERITY_FACTOR: Readonly<Record<Severity, number>> = { low: 0.4, medium: 0.6, high: 0.8, critical: 1 };
/** Days after which an indicator says half as much: addresses change hands, contents do not. */
const HALF_LIFE_DAYS: Readonly<Record<IndicatorKind, number>> = { ip: 30, url: 60, domain: 90, email: 180, hash: 3650 };
const DAY = 86_400;
/** A certainty would make every other reason worthless. */
const PROBABILITY_MAX = 0.99;

export interface AssessOptions {
  readonly observed: Observed;
  readonly snapshot: IntelSnapshot;
  /** Seconds since the epoch. */
  readonly nowSeconds: number;
  /** Names of YARA rules that matched, and where. */
  readonly yara?: readonly { readonly rule: string; readonly where: string }[];
}

/** Pure: the same arguments always give the same assessment. */
export function assess({ observed, snapshot, nowSeconds, yara = [] }: AssessOptions): Assessment {
  const matches: Match[] = [];
  for (const { kind, value, place } of observed.observables) {
    for (const { source: number, ...hit } of snapshot.index.lookup(kind, value)) {
      const { name: source = String(number), reliability = 100 } = snapshot.feeds[number] ?? {};
      const probability = (probabilityOf(kind, hit, nowSeconds) * reliability) / 100;
      if (probability === 0) continue;
      matches.push({ ...hit, kind, observable: value, where: whereOf(place), source, probability });
    }
  }
  matches.sort((a, b) => b.probability - a.probability || compare(keyOf(a), keyOf(b)));
  const causes = [...causesOfMatches(matches), ...causesOfSigns(observed.signs), ...causesOfYara(yara)];
  const { score, reasons } = combine(causes);
  return {
    score,
    level: levelOf(score),
    reasons,
    matches: matches.slice(0, limits.matchesListedMax),
    signs: observed.signs,
    degraded: snapshot.feeds
      .filter(({ health }) => health !== 'fresh')
      .map(({ name, health }) => ({ feed: name, health })),
  };
}

/** Whether what a feed says is meant for that time. */
export function holds({ validFrom, validUntil }: Pick<Hit, 'validFrom' | 'validUntil'>, nowSeconds: number): boolean {
  return validFrom <= nowSeconds && (validUntil === 0 || validUntil > nowSeconds);
}

/** 0 when it does not hold at that time. */
function probabilityOf(kind: IndicatorKind, hit: Omit<Hit, 'source'>, nowSeconds: number): number {
  const { validFrom } = hit;
  if (!holds(hit, nowSeconds)) return 0;
  const days = validFrom === 0 ? 0 : (nowSeconds - validFrom) / DAY;
  const decay = 0.5 ** (days / HALF_LIFE_DAYS[kind]);
  return Math.min(PROBABILITY_MAX, (hit.confidence / 100) * SEVERITY_FACTOR[hit.severity] * decay);
}

interface Cause {
  readonly probability: number;
  readonly text: string;
}

/** One for each source: the strongest match, which comes first. */
function causesOfMatches(matches: readonly Match[]): Cause[] {
  const strongest = new Map<string, Match>();
  const more = new Map<string, number>();
  for (const match of matches) {
    if (strongest.has(match.source)) more.set(match.source, (more.get(match.source) ?? 0) + 1);
    else strongest.set(match.source, match);
  }
  return [...strongest.values()].map((match) => {
    const { source, observable, value, where, confidence, severity, labels, probability, kind } = match;
    const of = observable === value ? '' : ` (listed as ${value})`;
    const label = labels.length === 0 ? '' : `, ${labels.slice(0, 3).join(', ')}`;
    const others = more.has(source) ? `, and ${more.get(source)} more matches` : '';
    const said = `${source}, ${severity}, confidence ${confidence}${label}${others}`;
    const text = `${kind} ${observable}${of} at ${where || 'event'}: ${said}`;
    return { probability, text };
  });
}

/** Each kind of sign once: a hundred scripts in a repository are not a hundred reasons. */
function causesOfSigns(signs: readonly Sign[]): Cause[] {
  const counts = new Map<string, { sign: Sign; count: number }>();
  for (const sign of signs) {
    const known = counts.get(sign.name);
    if (known === undefined) counts.set(sign.name, { sign, count: 1 });
    else known.count += 1;
  }
  return [...counts.values()].map(({ sign: { name, what, where }, count }) => {
    const others = count > 1 ? `, and ${count - 1} more` : '';
    return { probability: signWeights[name], text: `${name} at ${where || 'event'}: ${what}${others}` };
  });
}

const YARA_PROBABILITY = 0.7;

function causesOfYara(hits: readonly { readonly rule: string; readonly where: string }[]): Cause[] {
  const rules = new Map(hits.map(({ rule, where }) => [rule, where]));
  return [...rules].map(([rule, where]) => ({ probability: YARA_PROBABILITY, text: `YARA rule ${rule} at ${where}` }));
}

/** Points are what each cause adds to those before it, strongest first; their sum is the score. */
function combine(causes: readonly Cause[]): { score: number; reasons: ThreatReason[] } {
  const sorted = [...causes].sort((a, b) => b.probability - a.probability || compare(a.text, b.text));
  const reasons: ThreatReason[] = [];
  let [innocent, before, rest] = [1, 0, 0];
  for (const [at, { probability, text }] of sorted.entries()) {
    innocent *= 1 - probability;
    const points = Math.round(100 * (1 - innocent)) - before;
    before += points;
    if (at < limits.matchesListedMax - 1) reasons.push({ points, text });
    else rest += points;
  }
  const left = sorted.length - reasons.length;
  if (left > 0) reasons.push({ points: rest, text: `${left} further causes` });
  return { score: before, reasons };
}

function keyOf({ kind, observable, value, source, validFrom, labels }: Match): string {
  return [kind, observable, value, source, validFrom, labels.join()].join(' ');
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
