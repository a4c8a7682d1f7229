/**
 * The HTTP request that an event becomes for a server in a clone. An event whose data has a `path` is that request; any
 * other one is posted to `/` as it is, in the structured mode of CloudEvents' HTTP binding. Pure.
 */
import { validateHeaderName, validateHeaderValue } from 'node:http';
import { MayflyError } from '../core/errors.ts';
import { isObject } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import type { Event } from './event.ts';

export interface HttpRequest {
  readonly method: string;
  /** With its query, as in `/a?b=c`. */
  readonly path: string;
  /** In lower case. */
  readonly headers: ReadonlyMap<string, string | readonly string[]>;
  readonly body: Buffer;
}

/** Headers of one connection or of how a body is framed: those of the request's own journey say nothing here. */
const OF_THE_CONNECTION: ReadonlySet<string> = new Set([
  'connection', 'content-length', 'expect', 'keep-alive', 'proxy-connection', 'te', 'trailer', 'transfer-encoding',
  'upgrade',
]);

const FIELDS: ReadonlySet<string> = new Set(['method', 'path', 'headers', 'body', 'bodyBase64']);

/** Throws E_EVENT_INVALID when the data looks like a request and is none. */
export function httpRequestOf({ cloudEvent, bytes }: Event): HttpRequest {
  const { data } = cloudEvent;
  if (!isObject(data) || !('path' in data)) {
    const headers = new Map([['content-type', 'application/cloudevents+json; charset=UTF-8']]);
    return { method: 'POST', path: '/', headers, body: bytes };
  }
  const stray = Object.keys(data).find((name) => !FIELDS.has(name));
  if (stray !== undefined) throw invalid(`it has ${JSON.stringify(stray.slice(0, 60))}, which is no part of a request`);
  const { method = 'GET', path } = data;
  if (typeof method !== 'string' || !/^[A-Z]{1,20}$/.test(method) || method === 'CONNECT') {
    throw invalid('method must be one in capital letters, and not CONNECT');
  }
  if (typeof path !== 'string' || !/^\/[\x21-\x7e]*$/.test(path) || path.length > limits.httpPathUnitsMax) {
    throw invalid(`path must begin with / and have at most ${limits.httpPathUnitsMax} printable characters of ASCII`);
  }
  const headers = headersOf(data['headers'] ?? {});
  const body = bodyOf(data);
  if (!Buffer.isBuffer(body)) {
    if (!headers.has('content-type')) headers.set('content-type', 'application/json');
    return { method, path, headers, body: Buffer.from(JSON.stringify(body.json)) };
  }
  return { method, path, headers, body };
}

function headersOf(given: unknown): Map<string, string | readonly string[]> {
  if (!isObject(given)) throw invalid('headers must be an object');
  const headers = new Map<string, string | readonly string[]>();
  let bytes = 0;
  for (const [name, value] of Object.entries(given)) {
    const values = (Array.isArray(value) ? value : [value]) as readonly unknown[];
    for (const each of values) bytes += name.length + checked(name, each).length + 4;
    const known = name.toLowerCase();
    if (headers.has(known)) throw invalid(`header ${known} is there twice; give it a list of values`);
    if (!OF_THE_CONNECTION.has(known)) headers.set(known, value as string | readonly string[]);
  }
  if (bytes > limits.httpHeaderBytesMax) throw invalid(`headers have more than ${limits.httpHeaderBytesMax} bytes`);
  return headers;
}

function checked(name: string, value: unknown): string {
  try {
    validateHeaderName(name);
    if (typeof value !== 'string') throw new TypeError('no text');
    validateHeaderValue(name, value);
    return value;
  } catch (cause) {
    throw invalid(`header ${JSON.stringify(name.slice(0, 60))} is none of HTTP, or its value`, cause);
  }
}

function bodyOf(data: { readonly [key: string]: unknown }): Buffer | { readonly json: unknown } {
  const { body, bodyBase64 } = data;
  if (bodyBase64 !== undefined) {
    const isText = typeof bodyBase64 === 'string' && /^[A-Za-z0-9+/]*={0,2}$/.test(bodyBase64);
    if (!isText || body !== undefined) throw invalid('bodyBase64 must be base64, and stand without body');
    return Buffer.from(bodyBase64, 'base64');
  }
  if (body === undefined) return Buffer.alloc(0);
  return typeof body === 'string' ? Buffer.from(body) : { json: body };
}

function invalid(what: string, cause?: unknown): MayflyError {
  return new MayflyError('E_EVENT_INVALID', `the data of the event is no HTTP request: ${what}`, {
    remedy: 'Write `{"method": "GET", "path": "/", "headers": {…}, "body": "…"}`; all but `path` may be absent.',
    ...(cause === undefined ? {} : { cause }),
  });
}
