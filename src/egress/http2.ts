/** HTTP/2 between a guest and its server, stream by stream: see http.ts. */
import { connect, constants, createServer } from 'node:http2';
import type { ClientHttp2Session, IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream';
import { limits } from '../core/limits.ts';
import { failure, isHop, messageOf, refusal, refusalHeaders } from './http.ts';
import type { Asked, Exchange } from './http.ts';

const { HTTP2_HEADER_STATUS, NGHTTP2_CANCEL, NGHTTP2_FLAG_END_STREAM, NGHTTP2_INTERNAL_ERROR } = constants;

/** From now on both streams belong to it; when one is over, so is the other. */
export function serveHttp2(guest: Duplex, upstream: Duplex, exchange: Exchange): void {
  const { httpHeadBytesMax, httpSessionMiB, httpStreamsMax } = limits;
  const common = { maxSessionMemory: httpSessionMiB, maxHeaderListPairs: 128, maxOutstandingPings: 4 };
  const client = connect(`${exchange.scheme}://${exchange.authority}`, {
    ...common, settings: { enablePush: false }, createConnection: () => upstream,
  });
  const server = createServer({
    ...common, settings: { maxConcurrentStreams: httpStreamsMax, maxHeaderListSize: httpHeadBytesMax },
  });
  const over = (): void => {
    client.destroy();
    upstream.destroy();
    guest.destroy();
  };
  client.on('error', () => {}).on('close', over);
  server.on('sessionError', () => {}).on('session', (session) => void session.on('close', over));
  server.on('stream', (stream, headers, flags) => serveStream({ stream, headers, flags, client, exchange }));
  guest.on('close', over).on('error', () => {});
  upstream.on('error', () => {});
  server.emit('connection', guest);
}

interface Work {
  readonly stream: ServerHttp2Stream;
  readonly headers: IncomingHttpHeaders;
  readonly flags: number;
  readonly client: ClientHttp2Session;
  readonly exchange: Exchange;
}

function serveStream({ stream, headers, flags, client, exchange }: Work): void {
  stream.on('error', () => {});
  const asked = askedOf(headers, exchange);
  const { allowed, because } = exchange.judge(asked);
  if (!allowed) {
    exchange.done(asked, 'denied', because, 403);
    stream.respond({ ...refusalHeaders, [HTTP2_HEADER_STATUS]: 403 });
    return void stream.end(refusal(because));
  }
  const endStream = (flags & NGHTTP2_FLAG_END_STREAM) !== 0;
  const upstream = client.request({
    ':method': asked.method, ':scheme': exchange.scheme, ':authority': exchange.authority, ':path': asked.target,
    ...keptHeaders(headers),
  }, { endStream });
  let answered = false;
  let trailers: IncomingHttpHeaders = {};
  upstream.on('trailers', (given) => { trailers = given; });
  upstream.on('response', (given) => {
    answered = true;
    const status = Number(given[HTTP2_HEADER_STATUS] ?? 502);
    exchange.done(asked, 'allowed', because, status);
    if (stream.destroyed) return void upstream.close(NGHTTP2_CANCEL);
    stream.respond({ ...keptHeaders(given), [HTTP2_HEADER_STATUS]: status }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers(keptHeaders(trailers)));
    pipeline(upstream, stream, () => {});
  });
  upstream.on('error', (error) => {
    if (answered || stream.destroyed) return void stream.close(NGHTTP2_INTERNAL_ERROR);
    answered = true;
    exchange.done(asked, 'failed', messageOf(error), 502);
    stream.respond({ ...refusalHeaders, [HTTP2_HEADER_STATUS]: 502 });
    stream.end(failure(messageOf(error)));
  });
  stream.on('close', () => void (upstream.closed || upstream.close(NGHTTP2_CANCEL)));
  if (!endStream) pipeline(stream, upstream, () => {});
}

function askedOf(headers: IncomingHttpHeaders, { scheme }: Exchange): Asked {
  const { ':method': method = '', ':path': target = '', ':authority': authority, ':scheme': given, host } = headers;
  const named = new Set([authority, host].filter((each) => each !== undefined));
  const other = given !== scheme || headers[':protocol'] !== undefined;
  return { method, target, authority: named.size === 1 && !other ? [...named][0] : undefined };
}

function keptHeaders(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  const te = headers.te === 'trailers' ? { te: 'trailers' } : {};
  return {
    ...Object.fromEntries(Object.entries(headers).filter(([name]) => {
      return !name.startsWith(':') && name !== 'host' && !isHop(name);
    })),
    ...te,
  };
}
