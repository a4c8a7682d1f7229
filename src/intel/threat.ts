/**
 * An assessment in the words of rules and profiles: the score with its explanation, the indicators that a condition may
 * look at, and the destinations that are denied. Pure.
 */
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { threatLevels } from '../profile/levels.ts';
import type { ThreatLevel } from '../profile/levels.ts';
import type { NetworkRule } from '../profile/network.ts';
import type { DeniedDestination, MatchedIndicator, Threat } from '../rules/context.ts';
import type { Assessment, Match } from './assess.ts';

export interface ThreatOptions {
  readonly assessment: Assessment;
  /** What could not be done, each with its code. */
  readonly notes: readonly string[];
  /** The least level when a feed is not what it should be, or something could not be looked at. */
  readonly whenDegraded: ThreatLevel;
  /** Whether a feed may deny destinations. */
  readonly denies: (feed: string) => boolean;
}

export function threatOf({ assessment, notes, whenDegraded, denies }: ThreatOptions): Threat {
  const { score, level, reasons, matches, degraded } = assessment;
  const lines = reasons.map(({ points, text }) => `+${points} ${printableLine(text, 300)}`);
  const unknown = [
    ...degraded.map(({ feed, health }) => `feed ${feed} is ${health}`),
    ...notes.map((note) => printableLine(note, 300)),
  ];
  const floor = unknown.length === 0 ? 'low' : whenDegraded;
  const raised = threatLevels.indexOf(floor) > threatLevels.indexOf(level);
  const because = raised ? [`at least level ${floor}: not everything is known`] : [];
  return {
    score,
    level: raised ? floor : level,
    indicators: matches.map(indicatorOf),
    explanation: [...because, ...unknown, ...lines].slice(0, limits.threatLinesMax),
    denied: deniedBy(matches.filter(({ source }) => denies(source))),
  };
}

/** When nothing at all can be said: the reasons have why, and the profile is no more permissive for it. */
export function unknownThreat(why: string, level: ThreatLevel): Threat {
  return { score: 0, level, indicators: [], explanation: [printableLine(why, 300)], denied: [] };
}

function indicatorOf({ kind, value, source, confidence, severity, labels }: Match): MatchedIndicator {
  return { kind, value, source, confidence, severity, labels };
}

/** A listed range or domain denies all of it; a listed link denies no whole host. */
function deniedBy(matches: readonly Match[]): DeniedDestination[] {
  const denied = new Map<string, DeniedDestination>();
  for (const match of matches) {
    if (match.kind !== 'ip' && match.kind !== 'domain') continue;
    for (const rule of rulesOf(match.kind, match.value)) {
      const key = rule.host ?? rule.cidr ?? '';
      if (denied.has(key) || denied.size >= limits.threatDeniedMax) continue;
      denied.set(key, { rule, because: provenance(match.value, match) });
    }
  }
  return [...denied.values()];
}

function rulesOf(kind: 'ip' | 'domain', value: string): NetworkRule[] {
  if (kind === 'domain') return [{ action: 'deny', host: value }, { action: 'deny', host: `*.${value}` }];
  const bits = value.includes(':') ? 128 : 32;
  return [{ action: 'deny', cidr: value.includes('/') ? value : `${value}/${bits}` }];
}

/** As in `203.0.113.7 is listed by botnet-ips (high, confidence 90, c2)`. */
export function provenance(
  value: string,
  { source, severity, confidence, labels }: Pick<Match, 'source' | 'severity' | 'confidence' | 'labels'>,
): string {
  const known = [severity, `confidence ${confidence}`, ...labels.slice(0, 3).map((label) => printableLine(label, 60))];
  return `${printableLine(value, 200)} is listed by ${source} (${known.join(', ')})`;
}
