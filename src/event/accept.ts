/**
 * The door: bytes from a caller become an Event, or a coded error that names what is wrong with them.
 *
 * A JSON object with `specversion` claims to be a CloudEvent and is held to CloudEvents 1.0 (JSON format). Any other
 * JSON value is the data of one that is made here. Either way the caller's own text is delivered, not a copy of what
 * was parsed from it, so that numbers beyond a double's precision reach the function as they were written.
 */
import { MayflyError } from '../core/errors.ts';
import type { RunId } from '../core/ids.ts';
import { digestOf, isObject, parseStrict, printableLine } from '../core/json.ts';
import type { JsonProblem } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { isoTime } from '../core/time.ts';
import type { CloudEvent, Event, JsonValue } from './event.ts';

export interface AcceptOptions {
  /** The event as it came. */
  readonly bytes: Buffer;
  readonly runId: RunId;
  readonly clock: { wallNanos(): bigint };
}

/** Throws E_EVENT_INVALID or E_EVENT_TOO_LARGE. */
export function acceptEvent({ bytes, runId, clock }: AcceptOptions): Event {
  const parsed = parseStrict(bytes, { bytesMax: limits.eventBytesMax, depthMax: limits.eventDepthMax });
  if (!parsed.ok) throw explain(parsed.problem);
  const acceptedNanos = clock.wallNanos();
  const value = parsed.value as JsonValue;
  if (isObject(value) && Object.hasOwn(value, 'specversion')) {
    const cloudEvent = checkCloudEvent(value);
    return { runId, cloudEvent, bytes, digest: digestOf(bytes), acceptedNanos };
  }
  const envelope = {
    specversion: '1.0',
    id: runId,
    source: '/mayfly/run',
    type: 'mayfly.run',
    time: isoTime(acceptedNanos),
    datacontenttype: 'application/json',
  } as const;
  const wrapped = Buffer.from(`${JSON.stringify(envelope).slice(0, -1)},"data":${parsed.text}}`);
  if (wrapped.length > limits.eventBytesMax) throw explain({ kind: 'size', bytes: wrapped.length });
  return { runId, cloudEvent: { ...envelope, data: value }, bytes: wrapped, digest: digestOf(wrapped), acceptedNanos };
}

function explain(problem: JsonProblem): MayflyError {
  switch (problem.kind) {
    case 'size':
      return new MayflyError(
        'E_EVENT_TOO_LARGE',
        `The event has ${problem.bytes} bytes; the limit is ${limits.eventBytesMax}.`,
      );
    case 'depth':
      return new MayflyError(
        'E_EVENT_TOO_LARGE',
        `The event nests deeper than ${limits.eventDepthMax} levels (at character ${problem.offset}).`,
        { remedy: 'Flatten the event.' },
      );
    case 'utf8':
      return invalid('it is not UTF-8 text');
    case 'duplicate':
      return invalid(`the key ${JSON.stringify(problem.key)} occurs twice in one object`);
    case 'syntax':
      return invalid(`it is not JSON: ${problem.message}`);
  }
}

function invalid(reason: string): MayflyError {
  return new MayflyError('E_EVENT_INVALID', `The event is not valid: ${reason}.`);
}

// ---- CloudEvents 1.0 ------------------------------------------------------------------------------------------------

/** CloudEvents 1.0: lower-case letters and digits; more than 20 characters are discouraged, not forbidden. */
const ATTRIBUTE_NAME = /^[a-z0-9]+$/;
/** RFC 3339. Date.parse checks the ranges afterwards. */
const TIMESTAMP = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$/;
const MEDIA_TYPE = /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+\s*(;.*)?$/;
const NOT_BASE64 = /[^A-Za-z0-9+/]/;

function checkCloudEvent(value: { readonly [key: string]: JsonValue }): CloudEvent {
  if (value['specversion'] !== '1.0') throw invalid('attribute `specversion` must be "1.0"');
  for (const name of ['id', 'source', 'type']) requireText(value, name);
  for (const name of ['time', 'subject', 'datacontenttype', 'dataschema']) {
    if (isSet(value, name)) requireText(value, name);
  }
  const { time, datacontenttype } = value;
  if (typeof time === 'string' && !isTimestamp(time)) throw invalid('attribute `time` is not an RFC 3339 timestamp');
  if (typeof datacontenttype === 'string' && !MEDIA_TYPE.test(datacontenttype)) {
    throw invalid('attribute `datacontenttype` is not a media type');
  }
  checkData(value);
  for (const [name, attribute] of Object.entries(value)) {
    if (name === 'data' || name === 'data_base64') continue;
    const shown = JSON.stringify(printableLine(name, 60));
    if (!ATTRIBUTE_NAME.test(name)) throw invalid(`attribute ${shown} must have lower-case letters and digits only`);
    if (attribute === null || typeof attribute === 'string' || typeof attribute === 'boolean') continue;
    if (!Number.isInteger(attribute)) throw invalid(`attribute ${shown} must be a text, an integer or a boolean`);
  }
  return value as unknown as CloudEvent;
}

function checkData(value: { readonly [key: string]: JsonValue }): void {
  if (!isSet(value, 'data_base64')) return;
  if (isSet(value, 'data')) throw invalid('attributes `data` and `data_base64` exclude each other');
  const encoded = value['data_base64'];
  if (typeof encoded !== 'string' || !isBase64(encoded)) throw invalid('attribute `data_base64` is not base64');
}

/** The JSON format lets null stand for an attribute that is not set. */
function isSet(value: { readonly [key: string]: JsonValue }, name: string): boolean {
  return Object.hasOwn(value, name) && value[name] !== null;
}

/** Not one pattern over the whole: on millions of characters a repeated group overflows the matcher's stack. */
function isBase64(text: string): boolean {
  return text.length % 4 === 0 && !NOT_BASE64.test(text.replace(/={1,2}$/, ''));
}

function requireText(value: { readonly [key: string]: JsonValue }, name: string): void {
  const attribute = value[name];
  if (typeof attribute !== 'string' || attribute === '') throw invalid(`attribute \`${name}\` must be a text`);
}

function isTimestamp(text: string): boolean {
  return TIMESTAMP.test(text) && !Number.isNaN(Date.parse(text.replace(/:60/, ':59').toUpperCase()));
}
