/**
 * What a rule may look at. The schema says it to the compiler, `contextValues` builds it from an event; both list the
 * variables in the same order.
 *
 * `source` is what the intake knows about the sender, never what the event says about itself; what is not known is the
 * empty text. Times are UTC.
 */
import type { Event, JsonValue } from '../event/event.ts';
import type { ThreatLevel } from '../profile/levels.ts';
import type { NetworkRule } from '../profile/network.ts';
import type { Schema } from './cel/compile.ts';
import { DYN, INT, listOf, STRING } from './cel/type.ts';
import type { CelType } from './cel/type.ts';

/** Who sent the event, as far as the intake knows. */
export interface EventSource {
  /** IPv4 or IPv6 address, as text. */
  readonly ip?: string;
  /** Label of the network, as in `AS64500 Example`. */
  readonly asn?: string;
  readonly tenant?: string;
  readonly principal?: string;
}

/** The function that the event is for. */
export interface FunctionFacts {
  readonly name: string;
  readonly image: string;
  readonly kind: 'runtime' | 'executable';
}

/** One indicator of threat intelligence that something in the event has matched. */
export interface MatchedIndicator {
  /** As in `ip`, `domain`, `url`, `sha256`. */
  readonly kind: string;
  readonly value: string;
  /** The feed it comes from. */
  readonly source: string;
  /** 0 to 100. */
  readonly confidence: number;
  readonly severity: 'low' | 'medium' | 'high' | 'critical';
  readonly labels: readonly string[];
}

export interface Threat {
  /** 0 to 100. */
  readonly score: number;
  readonly level: ThreatLevel;
  readonly indicators: readonly MatchedIndicator[];
  /** Every point of the score, and what was not known, a line each. */
  readonly explanation?: readonly string[];
  /** What in the event is listed and could be connected to: nothing may, whatever a rule allows. */
  readonly denied?: readonly DeniedDestination[];
}

export interface DeniedDestination {
  readonly rule: NetworkRule;
  /** Which feed says so, and how sure it is. */
  readonly because: string;
}

export interface RuleContext {
  readonly event: Pick<Event, 'cloudEvent' | 'bytes'>;
  readonly source: EventSource;
  readonly function: FunctionFacts;
  /** When the event was accepted, nanoseconds since 1970. */
  readonly acceptedNanos: bigint;
  readonly threat: Threat;
}

function record(name: string, fields: Readonly<Record<string, CelType>>): CelType {
  return { kind: 'object', name, fields };
}

/** `data` is the type of event.data, when a rule file declares it. */
export function contextSchema(data: CelType = DYN): Schema {
  return {
    event: record('event', {
      id: STRING,
      source: STRING,
      type: STRING,
      subject: STRING,
      time: STRING,
      datacontenttype: STRING,
      dataschema: STRING,
      data,
      bytes: INT,
      extensions: { kind: 'map', of: DYN },
    }),
    source: record('source', { ip: STRING, asn: STRING, tenant: STRING, principal: STRING }),
    function: record('function', { name: STRING, image: STRING, kind: STRING }),
    time: record('time', { year: INT, month: INT, day: INT, weekday: INT, hour: INT, minute: INT, epochSeconds: INT }),
    score: INT,
    level: STRING,
    indicators: listOf(
      record('an indicator', {
        kind: STRING,
        value: STRING,
        source: STRING,
        confidence: INT,
        severity: STRING,
        labels: listOf(STRING),
      }),
    ),
  };
}

const ATTRIBUTES = [
  'id',
  'source',
  'type',
  'subject',
  'time',
  'datacontenttype',
  'dataschema',
  'data',
  'data_base64',
  'specversion',
];

/** Values of the variables in the order of the schema. */
export function contextValues({
  event,
  source,
  function: target,
  acceptedNanos,
  threat,
}: RuleContext): readonly unknown[] {
  const { cloudEvent, bytes } = event;
  const extensions = Object.entries(cloudEvent).filter(([name]) => !ATTRIBUTES.includes(name));
  const attributes: Record<string, JsonValue | undefined> = {
    id: cloudEvent.id,
    source: cloudEvent.source,
    type: cloudEvent.type,
    bytes: bytes.length,
    extensions: Object.fromEntries(extensions) as Record<string, JsonValue>,
  };
  for (const name of ['subject', 'time', 'datacontenttype', 'dataschema', 'data']) {
    const value = cloudEvent[name];
    // An attribute that is null counts as absent; data may be null.
    if (value !== undefined && (value !== null || name === 'data')) attributes[name] = value;
  }
  const { ip = '', asn = '', tenant = '', principal = '' } = source;
  return [
    attributes,
    { ip, asn, tenant, principal },
    target,
    timeOf(acceptedNanos),
    threat.score,
    threat.level,
    threat.indicators,
  ];
}

function timeOf(nanos: bigint): Readonly<Record<string, number>> {
  const millis = Number(nanos / 1_000_000n);
  const date = new Date(millis);
  return {
    year: date.getUTCFullYear(),
    month: date.getUTCMonth() + 1,
    day: date.getUTCDate(),
    weekday: date.getUTCDay(),
    hour: date.getUTCHours(),
    minute: date.getUTCMinutes(),
    epochSeconds: Math.floor(millis / 1000),
  };
}
