/**
 * STIX 2.1: the indicators of a bundle or of one TAXII page. Other objects (malware, actors, relationships,
 * sightings) tell the story of an indicator and are counted, not kept. Observed data is not an accusation, so it is
 * no indicator either.
 */
import { isObject } from '../core/json.ts';
import type { FeedDefaults, ParsedFeed } from './feed.ts';
import type { Indicator, Severity } from './indicator.ts';
import { confidenceOf, secondsOf, textsOf } from './record.ts';
import { parsePattern } from './stix-pattern.ts';

/** Of the open vocabulary `indicator-type-ov`; `benign` is none of ours. */
const SEVERITY_OF_TYPE: Readonly<Record<string, Severity>> = {
  'malicious-activity': 'high',
  compromised: 'high',
  attribution: 'medium',
  'anomalous-activity': 'medium',
  anonymization: 'low',
  unknown: 'low',
};

/** `document`: a bundle, or a TAXII envelope; both have `objects`. Undefined when it is neither. */
export function parseStix(document: unknown, defaults: FeedDefaults): ParsedFeed | undefined {
  if (!isObject(document)) return undefined;
  const { objects = [], type } = document;
  if (!Array.isArray(objects) || (type !== undefined && type !== 'bundle')) return undefined;
  const indicators: Indicator[] = [];
  const revoked: string[] = [];
  const skipped = new Map<string, number>();
  const skip = (why: string): void => void skipped.set(why, (skipped.get(why) ?? 0) + 1);
  for (const object of objects as readonly unknown[]) {
    if (!isObject(object)) skip('not an object');
    else if (object['type'] !== 'indicator') skip(`${String(object['type']).slice(0, 40)}: not an indicator`);
    else if (object['revoked'] === true) revoked.push(String(object['id']));
    else readIndicator(object, defaults, indicators, skip);
  }
  return { indicators, revoked, skipped };
}

function readIndicator(
  object: Readonly<Record<string, unknown>>,
  defaults: FeedDefaults,
  into: Indicator[],
  skip: (why: string) => void,
): void {
  const { pattern, pattern_type: language = 'stix', id } = object;
  const types = textsOf(object['indicator_types']);
  if (types.includes('benign')) return skip('benign');
  if (typeof pattern !== 'string' || language !== 'stix')
    return skip(`pattern of type ${String(language).slice(0, 40)}`);
  const parsed = parsePattern(pattern);
  if (!parsed.ok) return skip('malformed pattern');
  if (parsed.values.length === 0)
    return skip(`pattern that one event cannot decide (${parsed.unsupported[0] ?? 'empty'})`);
  const known = types.map((type) => SEVERITY_OF_TYPE[type]).filter((severity) => severity !== undefined);
  const phases = (Array.isArray(object['kill_chain_phases']) ? object['kill_chain_phases'] : []) as readonly unknown[];
  const common = {
    confidence: confidenceOf(object['confidence'], defaults.confidence),
    severity: known[0] ?? defaults.severity,
    validFrom: secondsOf(object['valid_from']),
    validUntil: secondsOf(object['valid_until']),
    labels: [
      ...defaults.labels,
      ...textsOf(object['labels']),
      ...types,
      ...phases.filter(isObject).map(({ phase_name: phase }) => `kill-chain:${String(phase)}`),
    ],
    id: typeof id === 'string' ? id : '',
  };
  for (const { kind, value } of parsed.values) into.push({ ...common, kind, value });
}
