/**
 * MISP: the attributes of one event that are meant for detection (`to_ids`), also those inside its objects. What
 * analysts noted for context only is left out, as MISP's own exports do.
 */
import { isObject } from '../core/json.ts';
import type { FeedDefaults, ParsedFeed } from './feed.ts';
import { normalise, refang } from './indicator.ts';
import type { Indicator, IndicatorKind, Severity } from './indicator.ts';
import { secondsOf } from './record.ts';

/** Parts of a composite type are parts of its value, separated by `|`. */
const KIND_OF_TYPE: Readonly<Record<string, IndicatorKind>> = {
  'ip-src': 'ip',
  'ip-dst': 'ip',
  ip: 'ip',
  domain: 'domain',
  hostname: 'domain',
  url: 'url',
  uri: 'url',
  link: 'url',
  email: 'email',
  'email-src': 'email',
  'email-dst': 'email',
  'email-reply-to': 'email',
  md5: 'hash',
  sha1: 'hash',
  sha256: 'hash',
  sha512: 'hash',
};
const SEVERITY_OF_LEVEL: Readonly<Record<string, Severity>> = { 1: 'critical', 2: 'high', 3: 'medium', 4: 'low' };

/** `document`: `{"Event": …}`, or the event itself. Undefined when it is none. */
export function parseMisp(document: unknown, defaults: FeedDefaults): ParsedFeed | undefined {
  if (!isObject(document)) return undefined;
  const event = document['Event'] ?? document['event'] ?? document;
  if (!isObject(event) || !(Array.isArray(event['Attribute']) || Array.isArray(event['Object']))) return undefined;
  const objects = (Array.isArray(event['Object']) ? event['Object'] : []) as readonly unknown[];
  const attributes = [event, ...objects.filter(isObject)].flatMap((holder) =>
    Array.isArray(holder['Attribute']) ? (holder['Attribute'] as readonly unknown[]) : [],
  );
  const indicators: Indicator[] = [];
  const skipped = new Map<string, number>();
  const skip = (why: string): void => void skipped.set(why, (skipped.get(why) ?? 0) + 1);
  const level = SEVERITY_OF_LEVEL[String(event['threat_level_id'])] ?? defaults.severity;
  const labels = [...defaults.labels, ...tagsOf(event)];
  for (const attribute of attributes) {
    if (!isObject(attribute) || attribute['deleted'] === true) skip('deleted or not an attribute');
    else if (attribute['to_ids'] !== true && attribute['to_ids'] !== '1') skip('not for detection (to_ids)');
    else readAttribute(attribute, { ...defaults, severity: level, labels }, indicators, skip);
  }
  return { indicators, revoked: [], skipped };
}

function readAttribute(
  attribute: Readonly<Record<string, unknown>>,
  defaults: FeedDefaults,
  into: Indicator[],
  skip: (why: string) => void,
): void {
  const [types, values] = [String(attribute['type']).split('|'), String(attribute['value']).split('|')];
  let found = 0;
  types.forEach((type, at) => {
    const kind = Object.hasOwn(KIND_OF_TYPE, type) ? KIND_OF_TYPE[type] : undefined;
    const value = kind === undefined ? undefined : normalise(kind, refang((values[at] ?? '').trim()));
    if (kind === undefined || value === undefined) return;
    found += 1;
    into.push({
      kind,
      value,
      confidence: defaults.confidence,
      severity: defaults.severity,
      validFrom: secondsOf(attribute['first_seen']) || seconds(attribute['timestamp']),
      validUntil: 0,
      labels: [...defaults.labels, ...tagsOf(attribute), String(attribute['category'] ?? '')],
      id: String(attribute['uuid'] ?? ''),
    });
  });
  if (found === 0) skip(`type ${types.join('|').slice(0, 40)}`);
}

function tagsOf(holder: Readonly<Record<string, unknown>>): string[] {
  const tags = (Array.isArray(holder['Tag']) ? holder['Tag'] : []) as readonly unknown[];
  return tags.filter(isObject).map(({ name }) => String(name));
}

function seconds(value: unknown): number {
  const number = Number(value);
  return Number.isInteger(number) && number > 0 && number <= 0xffff_ffff ? number : 0;
}
