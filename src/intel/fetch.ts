/**
 * One GET of a feed, with bounds: time, bytes after decompression, redirects, and credentials that never leave the
 * origin they were given for. A path on this machine is fetched the same way, its time and size standing for an ETag.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { MayflyError } from '../core/errors.ts';
import { printableLine } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Feed } from './feed.ts';
import { checkMinisign, minisignHash, parseMinisignKey } from './minisign.ts';

export interface FetchRequest {
  /** Address or absolute path. */
  readonly location: string;
  readonly feed: Feed;
  /** Value of the variable that `feed.auth` names; undefined: it is not set. */
  readonly token: string | undefined;
  readonly accept: string;
  readonly etag: string;
  readonly lastModified: string;
  readonly bytesMax: number;
  readonly signal: AbortSignal;
}

export type Fetched =
  | { readonly changed: false }
  | {
      readonly changed: true;
      /** Throws E_INTEL_TOO_LARGE when there are more bytes than `bytesMax`. */
      readonly body: AsyncIterable<Buffer>;
      readonly etag: string;
      readonly lastModified: string;
      /** `X-TAXII-Date-Added-Last`, or empty. */
      readonly dateAddedLast: string;
    };

/** Rejects with E_INTEL_FETCH, E_INTEL_AUTH or E_INTEL_TOO_LARGE. */
export async function fetchOnce(request: FetchRequest): Promise<Fetched> {
  return request.location.startsWith('/') ? await openFile(request) : await get(request);
}

/** All of it, for a document that is parsed whole. */
export async function collect(body: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** Its content, and the signature beside it. */
export interface SignedBody {
  readonly body: AsyncIterable<Buffer>;
  /** Content of the `.minisig` file; empty: the feed is not signed. */
  readonly signature: string;
}

/**
 * Passes bytes on; throws at the end when they are not those whose SHA-256 is known or that the publisher has signed.
 * `signedAt` hears when that was.
 */
export async function* verified(
  { body, signature }: SignedBody,
  feed: Feed,
  signedAt: (seconds: number) => void,
): AsyncGenerator<Buffer> {
  const key = feed.minisign === undefined ? undefined : parseMinisignKey(feed.minisign);
  const [hash, signed] = [createHash('sha256'), key === undefined ? undefined : minisignHash()];
  for await (const chunk of body) {
    hash.update(chunk);
    signed?.update(chunk);
    yield chunk;
  }
  const found = hash.digest('hex');
  if (feed.sha256 !== undefined && found !== feed.sha256)
    throw new MayflyError('E_INTEL_SIGNATURE', `feed ${feed.name}: its SHA-256 is ${found}, not ${feed.sha256}`);
  if (key === undefined || signed === undefined) return;
  const checked = checkMinisign(signature, signed.digest(), key);
  if (!checked.ok) throw new MayflyError('E_INTEL_SIGNATURE', `feed ${feed.name}: its signature: ${checked.why}`);
  signedAt(checked.signedAt);
}

/** Where the signature of a file is: beside it, as minisign writes it. */
export function signatureLocation(location: string): string {
  if (location.startsWith('/')) return `${location}.minisig`;
  const url = new URL(location);
  url.pathname += '.minisig';
  return url.href;
}

async function openFile({ location, feed, etag, bytesMax }: FetchRequest): Promise<Fetched> {
  const facts = await stat(location).catch((cause: unknown) => {
    throw new MayflyError('E_INTEL_FETCH', `feed ${feed.name}: ${location} cannot be read`, { cause });
  });
  const identity = `${facts.ino}-${facts.size}-${facts.mtimeMs}`;
  if (identity === etag) return { changed: false };
  if (facts.size > bytesMax) throw tooLarge(feed, `${facts.size} bytes`, bytesMax);
  const body = bounded(createReadStream(location), bytesMax, feed);
  return { changed: true, body, etag: identity, lastModified: '', dateAddedLast: '' };
}

async function get(request: FetchRequest): Promise<Fetched> {
  const { feed, bytesMax, etag, lastModified, accept } = request;
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(limits.intelFetchMillisMax)]);
  const headers = new Headers({ accept, 'user-agent': 'mayfly' });
  if (etag !== '') headers.set('if-none-match', etag);
  if (lastModified !== '') headers.set('if-modified-since', lastModified);
  let url = new URL(request.location);
  for (let hop = 0; hop <= limits.intelRedirectsMax; hop++) {
    const mine = new Headers(headers);
    if (url.origin === new URL(feed.location).origin) authorise(mine, request);
    const response = await fetch(url.href, { headers: mine, signal, redirect: 'manual' }).catch((cause: unknown) => {
      throw failed(request, reasonOf(cause), cause);
    });
    const target = response.headers.get('location');
    if (response.status >= 300 && response.status < 400 && response.status !== 304 && target !== null) {
      await response.body?.cancel();
      url = redirected(url, target, request);
      continue;
    }
    if (response.status === 304) return { changed: false };
    if (!response.ok || response.body === null) {
      await response.body?.cancel();
      throw refused(request, response);
    }
    const announced = Number(response.headers.get('content-length') ?? 0);
    if (announced > bytesMax) {
      await response.body.cancel();
      throw tooLarge(feed, `${announced} bytes announced`, bytesMax);
    }
    const body = bounded(response.body as unknown as AsyncIterable<Uint8Array>, bytesMax, feed);
    const header = (name: string): string => printableLine(response.headers.get(name) ?? '', 200);
    return {
      changed: true,
      body,
      etag: header('etag'),
      lastModified: header('last-modified'),
      dateAddedLast: header('x-taxii-date-added-last'),
    };
  }
  throw failed(request, `more than ${limits.intelRedirectsMax} redirects`, undefined);
}

function authorise(headers: Headers, { feed: { name, auth }, token }: FetchRequest): void {
  if (auth === undefined) return;
  if (token === undefined || token === '') {
    throw new MayflyError('E_INTEL_AUTH', `feed ${name}: the environment variable ${auth.tokenEnv} is not set`);
  }
  if (!/^[\x20-\x7e]+$/.test(token)) {
    throw new MayflyError('E_INTEL_AUTH', `feed ${name}: ${auth.tokenEnv} has characters that no header may have`);
  }
  const basic = (): string => `Basic ${Buffer.from(`${auth.username}:${token}`).toString('base64')}`;
  if (auth.kind === 'header') headers.set(auth.header, token);
  else headers.set('authorization', auth.kind === 'basic' ? basic() : `Bearer ${token}`);
}

function redirected(from: URL, target: string, request: FetchRequest): URL {
  const to = URL.canParse(target, from.href) ? new URL(target, from) : undefined;
  const downgrade = from.protocol === 'https:' && to?.protocol !== 'https:';
  const usable = to !== undefined && (to.protocol === 'https:' || to.protocol === 'http:');
  if (!usable || downgrade) throw failed(request, `redirected to ${printableLine(target, 100)}`, undefined);
  return to;
}

function refused(request: FetchRequest, { status, headers }: Response): MayflyError {
  const {
    feed: { name, auth },
  } = request;
  if (status === 401 || status === 403) {
    const whose =
      auth === undefined ? 'without credentials' : `with the token in ${auth.tokenEnv}: it may have expired`;
    return new MayflyError('E_INTEL_AUTH', `feed ${name}: HTTP ${status} ${whose}`);
  }
  const transient = status === 429 || status >= 500;
  const after = Number(headers.get('retry-after'));
  const cause = transient ? new Transient(Number.isFinite(after) ? after * 1000 : 0) : undefined;
  return new MayflyError('E_INTEL_FETCH', `feed ${name}: HTTP ${status}`, { cause });
}

/** Marks a failure that may pass, with the wait that the server asked for, ms. */
export class Transient extends Error {
  readonly waitMillis: number;

  constructor(waitMillis: number, options?: ErrorOptions) {
    super('it may pass', options);
    this.waitMillis = waitMillis;
  }
}

function failed({ feed: { name } }: FetchRequest, reason: string, cause: unknown): MayflyError {
  return new MayflyError('E_INTEL_FETCH', `feed ${name}: ${reason}`, { cause: new Transient(0, { cause }) });
}

function reasonOf(thrown: unknown): string {
  const cause = thrown instanceof Error && thrown.cause instanceof Error ? thrown.cause : thrown;
  return printableLine(cause instanceof Error ? cause.message : String(cause), 200);
}

function tooLarge({ name }: Feed, what: string, bytesMax: number): MayflyError {
  return new MayflyError('E_INTEL_TOO_LARGE', `feed ${name}: ${what}; at most ${bytesMax} are read`);
}

async function* bounded(chunks: AsyncIterable<Uint8Array>, bytesMax: number, feed: Feed): AsyncGenerator<Buffer> {
  let bytes = 0;
  try {
    for await (const chunk of chunks) {
      bytes += chunk.length;
      if (bytes > bytesMax) {
        throw tooLarge(feed, `more than ${bytesMax} bytes`, bytesMax);
      }
      yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    }
  } catch (thrown) {
    if (thrown instanceof MayflyError) throw thrown;
    const cause = new Transient(0, { cause: thrown });
    throw new MayflyError('E_INTEL_FETCH', `feed ${feed.name}: cut off: ${reasonOf(thrown)}`, { cause });
  }
}
