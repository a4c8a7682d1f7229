/**
 * One pull of one feed, as a series of small batches: whatever its format, no more than one document or one block of
 * lines is in memory.
 */
import { StringDecoder } from 'node:string_decoder';
import { MayflyError } from '../core/errors.ts';
import { isObject, parseStrict } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { parseLine } from './blocklist.ts';
import type { Feed, ParsedFeed } from './feed.ts';
import { collect, fetchOnce, signatureLocation, verified } from './fetch.ts';
import type { Fetched, FetchRequest } from './fetch.ts';
import type { Indicator } from './indicator.ts';
import { parseMisp } from './misp.ts';
import { parseStix } from './stix.ts';

export interface PullRequest {
  readonly feed: Feed;
  readonly token: string | undefined;
  readonly etag: string;
  readonly lastModified: string;
  /** TAXII: only what was added after this time; empty: everything. */
  readonly addedAfter: string;
  readonly signal: AbortSignal;
}

/** Filled in while the batches are read; complete after the last one. */
export interface PullFacts {
  changed: boolean;
  /** The batches are additions to what there was. */
  incremental: boolean;
  etag: string;
  lastModified: string;
  addedAfter: string;
  /** When its publisher has signed it, seconds; 0: not signed. */
  signedAt: number;
  readonly skipped: Map<string, number>;
}

export interface Batch {
  readonly indicators: readonly Indicator[];
  readonly revoked: readonly string[];
}

export function newFacts({ addedAfter }: PullRequest): PullFacts {
  return { changed: true, incremental: false, etag: '', lastModified: '', addedAfter, signedAt: 0, skipped: new Map() };
}

/** Rejects with E_INTEL_FETCH, E_INTEL_AUTH, E_INTEL_FORMAT or E_INTEL_TOO_LARGE. */
export async function* pull(request: PullRequest, facts: PullFacts): AsyncGenerator<Batch> {
  switch (request.feed.format) {
    case 'taxii':
      return yield* pullTaxii(request, facts);
    case 'misp-feed':
      return yield* pullMispFolder(request, facts);
    case 'stix':
    case 'misp':
      return yield* pullDocument(request, facts);
    default:
      return yield* pullLines(request, facts);
  }
}

function requestOf(request: PullRequest, more: Partial<FetchRequest> = {}): FetchRequest {
  const { feed, token, etag, lastModified, signal } = request;
  return {
    location: feed.location,
    feed,
    token,
    etag,
    lastModified,
    signal,
    accept: '*/*',
    bytesMax: limits.intelDocumentBytesMax,
    ...more,
  };
}

function remember(fetched: Fetched, facts: PullFacts): fetched is Extract<Fetched, { changed: true }> {
  facts.changed = fetched.changed;
  if (!fetched.changed) return false;
  facts.etag = fetched.etag;
  facts.lastModified = fetched.lastModified;
  return true;
}

/** The content, which ends with an error when it is not what was signed. */
async function checked(
  request: PullRequest,
  body: AsyncIterable<Buffer>,
  facts: PullFacts,
): Promise<AsyncIterable<Buffer>> {
  const { feed } = request;
  const note = (seconds: number): void => void (facts.signedAt = seconds);
  if (feed.minisign === undefined) return verified({ body, signature: '' }, feed, note);
  const location = signatureLocation(feed.location);
  const bounds = { location, etag: '', lastModified: '', bytesMax: limits.intelSignatureBytesMax };
  const fetched = await fetchOnce(requestOf(request, bounds));
  const signature = fetched.changed ? (await collect(fetched.body)).toString('utf8') : '';
  return verified({ body, signature }, feed, note);
}

async function* pullDocument(request: PullRequest, facts: PullFacts): AsyncGenerator<Batch> {
  const { feed } = request;
  const fetched = await fetchOnce(requestOf(request, { accept: 'application/json, application/stix+json' }));
  if (!remember(fetched, facts)) return;
  const document = parseDocument(await collect(await checked(request, fetched.body, facts)), feed);
  const parsed = feed.format === 'stix' ? parseStix(document, feed.defaults) : parseMisp(document, feed.defaults);
  yield batchOf(parsed, feed, facts);
}

const TAXII = 'application/taxii+json;version=2.1';

/** `location` is the collection; its `objects/` come in pages. What is added meanwhile is seen by the next pull. */
async function* pullTaxii(request: PullRequest, facts: PullFacts): AsyncGenerator<Batch> {
  const { feed } = request;
  facts.incremental = request.addedAfter !== '';
  const seen = new Set<string>();
  let next = '';
  for (let page = 0; page < limits.intelPagesMax; page++) {
    const url = new URL(`${feed.location.replace(/\/+$/, '')}/objects/`);
    if (request.addedAfter !== '') url.searchParams.set('added_after', request.addedAfter);
    if (next !== '') url.searchParams.set('next', next);
    const fetched = await fetchOnce(
      requestOf(request, { location: url.href, accept: TAXII, etag: '', lastModified: '' }),
    );
    if (!fetched.changed) return;
    const document = parseDocument(await collect(fetched.body), feed);
    if (!isObject(document) || document['type'] !== undefined)
      throw malformed(feed, 'a TAXII 2.1 envelope was expected');
    if (fetched.dateAddedLast > facts.addedAfter) facts.addedAfter = fetched.dateAddedLast;
    yield batchOf(parseStix(document, feed.defaults), feed, facts);
    if (document['more'] !== true) return;
    next = typeof document['next'] === 'string' ? document['next'] : '';
    if (next === '' || seen.has(next)) throw malformed(feed, '`more` is true, but `next` leads nowhere new');
    seen.add(next);
  }
  facts.skipped.set(`pages after the first ${limits.intelPagesMax}, left for the next pull`, 1);
}

const MISP_NAME = /^[0-9a-f-]{36}$/;

/** `location` is a folder with manifest.json and one file for each event. */
async function* pullMispFolder(request: PullRequest, facts: PullFacts): AsyncGenerator<Batch> {
  const { feed } = request;
  const base = feed.location.replace(/\/(manifest\.json)?$/, '');
  const fetched = await fetchOnce(
    requestOf(request, { location: `${base}/manifest.json`, accept: 'application/json' }),
  );
  if (!remember(fetched, facts)) return;
  const manifest = parseDocument(await collect(fetched.body), feed);
  if (!isObject(manifest)) throw malformed(feed, 'manifest.json must be an object');
  const names = Object.keys(manifest).filter((name) => MISP_NAME.test(name));
  const left = names.length - limits.intelPagesMax;
  if (left > 0) facts.skipped.set(`events after the first ${limits.intelPagesMax}`, left);
  for (const name of names.slice(0, limits.intelPagesMax)) {
    const event = await fetchOnce(requestOf(request, { location: `${base}/${name}.json`, etag: '', lastModified: '' }));
    if (!event.changed) continue;
    yield batchOf(parseMisp(parseDocument(await collect(event.body), feed), feed.defaults), feed, facts);
  }
}

const BATCH = 2000;

async function* pullLines(request: PullRequest, facts: PullFacts): AsyncGenerator<Batch> {
  const { feed } = request;
  const fetched = await fetchOnce(requestOf(request, { bytesMax: limits.intelFeedBytesMax }));
  if (!remember(fetched, facts)) return;
  let indicators: Indicator[] = [];
  let [lines, bad] = [0, 0];
  for await (const block of linesOf(await checked(request, fetched.body, facts), (why) => count(facts, why, 1))) {
    for (const line of block) {
      const found = parseLine(line, feed.blocklist, feed.defaults);
      lines += 1;
      if (found === undefined) bad += 1;
      else indicators.push(...found);
    }
    if (indicators.length < BATCH) continue;
    yield { indicators, revoked: [] };
    indicators = [];
  }
  if (bad > 0) count(facts, 'lines without an indicator', bad);
  // A page that says "please log in" is no list of which a few lines are bad.
  if (bad * 2 > lines && bad > 1)
    throw malformed(feed, `${bad} of ${lines} lines have no indicator in the format ${feed.format}`);
  yield { indicators, revoked: [] };
}

/**
 * Lines of a stream, however it is cut, as many at a time as a chunk completes; one that is longer than the bound is
 * left out. Not one at a time: a million turns of an async generator take longer than everything else.
 */
export async function* linesOf(
  chunks: AsyncIterable<Buffer>,
  leftOut: (why: string) => void,
): AsyncGenerator<string[]> {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  let tooLong = false;
  const fits = (line: string): boolean => {
    const fitting = !tooLong && line.length <= limits.intelLineUnitsMax;
    tooLong = false;
    if (!fitting) leftOut('lines that are too long');
    return fitting;
  };
  for await (const chunk of chunks) {
    const lines = (rest + decoder.write(chunk)).split('\n');
    rest = lines.pop() ?? '';
    yield lines.filter(fits);
    if (rest.length > limits.intelLineUnitsMax) [rest, tooLong] = ['', true];
  }
  rest += decoder.end();
  if (rest !== '' || tooLong) yield [rest].filter(fits);
}

function parseDocument(bytes: Buffer, feed: Feed): unknown {
  const bounds = { bytesMax: limits.intelDocumentBytesMax, depthMax: limits.intelDocumentDepthMax };
  const start = bytes.subarray(0, 3).equals(Buffer.from([0xef, 0xbb, 0xbf])) ? 3 : 0;
  const parsed = parseStrict(bytes.subarray(start), bounds);
  if (parsed.ok) return parsed.value;
  const { problem } = parsed;
  if (problem.kind === 'size')
    throw new MayflyError('E_INTEL_TOO_LARGE', `feed ${feed.name}: ${problem.bytes} bytes of JSON`);
  throw malformed(
    feed,
    problem.kind === 'syntax' ? `it is not JSON: ${problem.message}` : `its JSON is unusable (${problem.kind})`,
  );
}

function batchOf(parsed: ParsedFeed | undefined, feed: Feed, facts: PullFacts): Batch {
  if (parsed === undefined) throw malformed(feed, `it is not ${feed.format === 'taxii' ? 'STIX' : feed.format}`);
  for (const [why, times] of parsed.skipped) count(facts, why, times);
  return parsed;
}

/** Reasons come from the feed as well: there are only so many that are told apart. */
const REASONS_MAX = 50;

function count({ skipped }: PullFacts, why: string, times: number): void {
  const name = skipped.has(why) || skipped.size < REASONS_MAX ? why : 'other';
  skipped.set(name, (skipped.get(name) ?? 0) + times);
}

function malformed({ name }: Feed, why: string): MayflyError {
  return new MayflyError('E_INTEL_FORMAT', `feed ${name}: ${why}`);
}
