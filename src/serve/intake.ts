/**
 * From an HTTP request to CloudEvents: binary, structured and batch mode of CloudEvents 1.0, plain JSON, or any body.
 * Pure. JSON is passed on as it was written, never parsed and printed again, so numbers keep their digits.
 */
import { MayflyError } from '../core/errors.ts';
import { parseStrict, printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { isoTime } from '../core/time.ts';
import { acceptEvent } from '../event/accept.ts';
import type { RunId } from '../core/ids.ts';

export interface IntakeRequest {
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body: Buffer;
  /** `source` of an event that names none. */
  readonly source: string;
  /** `id` of an event that names none. */
  readonly newId: () => RunId;
  readonly wallNanos: () => bigint;
}

export interface Taken {
  /** Each a CloudEvent, UTF-8 JSON. */
  readonly events: readonly Buffer[];
  readonly batch: boolean;
}

const STRUCTURED = 'application/cloudevents+json';
const BATCH = 'application/cloudevents-batch+json';

/** Throws E_EVENT_INVALID, E_EVENT_TOO_LARGE. */
export function takeEvents(request: IntakeRequest): Taken {
  const contentType = header(request, 'content-type');
  const media = mediaType(contentType);
  if (media === BATCH) return { events: splitBatch(request.body).map((each) => checked(request, each)), batch: true };
  if (media === STRUCTURED) return { events: [checked(request, request.body)], batch: false };
  if (media?.startsWith('application/cloudevents') === true) throw invalid(`there is no reader for ${media}`);
  const attributes =
    header(request, 'ce-specversion') === undefined ? ownAttributes(request) : binaryAttributes(request);
  if (contentType !== undefined) attributes.set('datacontenttype', contentType);
  return {
    events: [checked(request, assemble(attributes, dataMember(request.body, media, contentType)))],
    batch: false,
  };
}

function header({ headers }: IntakeRequest, name: string): string | undefined {
  const value = headers[name];
  return typeof value === 'string' ? value : value?.[0];
}

function mediaType(contentType: string | undefined): string | undefined {
  return contentType?.split(';', 1)[0]?.trim().toLowerCase();
}

/** What a caller sends is held to CloudEvents by the same code as on the command line. */
function checked({ newId, wallNanos }: IntakeRequest, bytes: Buffer): Buffer {
  const event = acceptEvent({ bytes, runId: newId(), clock: { wallNanos } });
  if (event.bytes !== bytes) throw invalid('it has no attribute `specversion`');
  return bytes;
}

function ownAttributes({ newId, source, wallNanos }: IntakeRequest): Map<string, string> {
  return new Map([
    ['specversion', '1.0'],
    ['id', newId()],
    ['source', source],
    ['type', 'mayfly.http'],
    ['time', isoTime(wallNanos())],
  ]);
}

/** HTTP binding 3.1.3: `ce-NAME`, with UTF-8 bytes beyond printable ASCII percent-encoded. */
function binaryAttributes({ headers }: IntakeRequest): Map<string, string> {
  const attributes = new Map<string, string>();
  for (const [name, value] of Object.entries(headers)) {
    if (!name.startsWith('ce-') || value === undefined) continue;
    if (typeof value !== 'string') throw invalid(`the header ${printableLine(name, 60)} occurs twice`);
    if (attributes.size >= limits.eventAttributesMax) throw invalid('it has too many attributes');
    const attribute = name.slice('ce-'.length);
    if (attribute === 'datacontenttype' || attribute === 'data') throw invalid(`there is no header ${name}`);
    attributes.set(attribute, decodePercent(value));
  }
  return attributes;
}

function decodePercent(text: string): string {
  return text.replace(/(?:%[0-9A-Fa-f]{2})+/g, (run) => {
    try {
      return decodeURIComponent(run);
    } catch {
      throw invalid('a header is not percent-encoded UTF-8');
    }
  });
}

function assemble(attributes: ReadonlyMap<string, string>, data: string | undefined): Buffer {
  const members = [...attributes].map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  if (data !== undefined) members.push(data);
  return Buffer.from(`{${members.join(',')}}`);
}

/** JSON stays JSON, text becomes a text, and everything else is bytes. */
function dataMember(body: Buffer, media: string | undefined, contentType: string | undefined): string | undefined {
  if (body.length === 0) return undefined;
  const charset = /;\s*charset="?([^";\s]+)/i.exec(contentType ?? '')?.[1]?.toLowerCase();
  const unicode = charset === undefined || charset === 'utf-8' || charset === 'us-ascii';
  if (media !== undefined && unicode && /^(application|text)\/(.+\+)?json$/.test(media)) return jsonMember(body);
  if (media !== undefined && unicode && /^text\/|^application\/(.+\+)?xml$/.test(media)) {
    try {
      return `"data":${JSON.stringify(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body))}`;
    } catch {
      throw invalid('its body is not UTF-8 text');
    }
  }
  return `"data_base64":${JSON.stringify(body.toString('base64'))}`;
}

function jsonMember(body: Buffer): string {
  return `"data":${strictText(body)}`;
}

/** Nothing that is not one whole JSON value may get between the other members. */
function strictText(bytes: Buffer): string {
  const parsed = parseStrict(bytes, { bytesMax: limits.eventBytesMax, depthMax: limits.eventDepthMax });
  if (parsed.ok) return parsed.text;
  const { problem } = parsed;
  if (problem.kind === 'size') throw tooLarge(`it has ${problem.bytes} bytes`);
  if (problem.kind === 'depth') throw tooLarge(`it nests deeper than ${limits.eventDepthMax} levels`);
  if (problem.kind === 'utf8') throw invalid('it is not UTF-8 text');
  if (problem.kind === 'duplicate') throw invalid(`the key ${JSON.stringify(problem.key)} occurs twice in one object`);
  throw invalid(`it is not JSON: ${problem.message}`);
}

/** The elements of a JSON array, each as it was written. */
export function splitBatch(body: Buffer): Buffer[] {
  const text = strictText(body).trim();
  if (!text.startsWith('[')) throw invalid('a batch must be a JSON array of CloudEvents');
  const elements: Buffer[] = [];
  let [depth, start, quoted] = [0, 1, false];
  const end = (at: number): void => {
    const element = text.slice(start, at).trim();
    if (element !== '') elements.push(Buffer.from(element));
    start = at + 1;
    if (elements.length > limits.batchEventsMax) throw tooLarge(`a batch has at most ${limits.batchEventsMax} events`);
  };
  for (let at = 0; at < text.length; at++) {
    const unit = text.charAt(at);
    if (quoted) {
      if (unit === '\\') at++;
      else if (unit === '"') quoted = false;
    } else if (unit === '"') quoted = true;
    else if (unit === '[' || unit === '{') depth++;
    else if (unit === ']' || unit === '}') {
      depth--;
      if (depth === 0) end(at);
    } else if (unit === ',' && depth === 1) end(at);
  }
  if (elements.length === 0) throw invalid('a batch must have at least one event');
  return elements;
}

function invalid(reason: string): MayflyError {
  return new MayflyError('E_EVENT_INVALID', `The event is not valid: ${reason}.`);
}

function tooLarge(reason: string): MayflyError {
  return new MayflyError('E_EVENT_TOO_LARGE', `The event is too large: ${reason}.`);
}
