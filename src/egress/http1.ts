/** HTTP/1.1 between a guest and its server: see http.ts. */
import { Agent, createServer, request as requestUpstream, ServerResponse } from 'node:http';
import type { ClientRequest, IncomingMessage, Server } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream';
import { limits } from '../core/limits.ts';
import { failure, isHop, messageOf, namedByConnection, refusal, refusalHeaders } from './http.ts';
import type { Asked, Exchange } from './http.ts';

/** Methods whose requests have no body unless they say so. */
const BODILESS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'DELETE', 'CONNECT']);

/** From now on both streams belong to it; when one is over, so is the other. */
export function serveHttp1(guest: Duplex, upstream: Duplex, exchange: Exchange): void {
  new Http1(guest, upstream, exchange).start();
}

class Http1 {
  readonly #guest: Duplex;
  readonly #upstream: Duplex;
  readonly #exchange: Exchange;
  readonly #agent: Agent;
  #busy = 0;
  #used = false;

  constructor(guest: Duplex, upstream: Duplex, exchange: Exchange) {
    this.#guest = guest;
    this.#upstream = upstream;
    this.#exchange = exchange;
    // Requests go one after another through the one connection that was judged; there is never a second one.
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1 });
    this.#agent.createConnection = (_options, made) => {
      if (!this.#used && !upstream.destroyed) {
        this.#used = true;
        return upstream.resume();
      }
      // Thrown, it would reach nobody.
      setImmediate(() => made?.(new Error('the server has closed the connection'), upstream));
      return undefined;
    };
  }

  start(): void {
    const { httpHeadBytesMax } = limits;
    const server: Server & { httpAllowHalfOpen?: boolean } = createServer({
      maxHeaderSize: httpHeadBytesMax, requireHostHeader: false, insecureHTTPParser: false,
      shouldUpgradeCallback: isWebSocket,
    });
    server.httpAllowHalfOpen = true;
    server.on('request', (request: IncomingMessage, response: ServerResponse) => this.#serve(request, response));
    server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => this.#serve(request, response));
    server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      this.#upgrade(request, socket, head);
    });
    server.on('connect', (request: IncomingMessage, socket: Duplex) => {
      this.#serve(request, detached(request, socket));
    });
    server.on('clientError', (error: Error) => this.#unreadable(error));
    const over = (): void => {
      this.#agent.destroy();
      this.#upstream.destroy();
    };
    this.#guest.on('close', over).on('error', () => {});
    this.#upstream.on('error', () => {}).on('end', () => this.#upstream.end()).on('close', () => {
      if (this.#busy === 0) this.#guest.end(() => this.#guest.destroy());
    });
    server.emit('connection', this.#guest);
  }

  // ---- a request ----------------------------------------------------------------------------------------------------

  #serve(request: IncomingMessage, response: ServerResponse): void {
    response.sendDate = false;
    response.on('error', () => {});
    // Each costs the host kilobytes, and no client that is in use sends more than one ahead.
    if (this.#busy >= limits.httpAheadMax) return void this.#guest.destroy();
    const asked = askedOf(request, this.#exchange);
    const { allowed, because } = this.#exchange.judge(asked);
    if (!allowed) return this.#deny(asked, response, because);
    const framing = framingOf(request);
    if (framing === undefined) return this.#deny(asked, response, 'a transfer coding that is not chunked');
    if (request.headers.expect !== undefined) response.writeContinue();
    this.#busy++;
    response.once('close', () => this.#settle());
    const outgoing = this.#ask(request, asked, framing);
    let answered = false;
    outgoing.on('response', (incoming) => {
      answered = true;
      const status = incoming.statusCode ?? 502;
      this.#exchange.done(asked, 'allowed', because, status);
      response.writeHead(status, incoming.statusMessage, keptHeaders(incoming));
      pipeline(incoming, response, (error) => {
        if (error !== null && error !== undefined) this.#guest.destroy();
      });
    });
    outgoing.on('error', (error) => {
      if (answered || this.#guest.destroyed) return;
      answered = true;
      this.#exchange.done(asked, 'failed', messageOf(error), 502);
      response.shouldKeepAlive = false;
      say(response, 502, failure(messageOf(error)));
    });
    response.once('close', () => void (response.writableFinished || outgoing.destroy()));
    pipeline(request, outgoing, () => {});
  }

  #settle(): void {
    this.#busy--;
    if (this.#busy === 0 && this.#upstream.destroyed) this.#guest.end();
  }

  #ask(request: IncomingMessage, asked: Asked, framing: readonly string[], connection = 'keep-alive'): ClientRequest {
    const { authority } = this.#exchange;
    const headers = ['Host', authority, ...keptHeaders(request), ...framing, 'Connection', connection];
    return requestUpstream({
      agent: this.#agent, method: asked.method, path: asked.target, headers, host: authority, setHost: false,
      maxHeaderSize: limits.httpHeadBytesMax, insecureHTTPParser: false,
    });
  }

  #deny(asked: Asked, response: ServerResponse, because: string): void {
    this.#exchange.done(asked, 'denied', because, 403);
    // What follows on this connection may be the body of what was refused.
    response.shouldKeepAlive = false;
    say(response, 403, refusal(because));
  }

  /** Bytes that are no HTTP. Whoever sent them gets one answer, and the connection ends. */
  #unreadable(error: Error): void {
    const because = `no valid HTTP: ${messageOf(error)}`;
    this.#exchange.done({ method: '?', authority: undefined, target: '?' }, 'denied', because, 400);
    if (!this.#guest.writable || this.#busy > 0) return void this.#guest.destroy();
    const text = refusal(because);
    const head = ['HTTP/1.1 400 Bad Request', 'Connection: close', 'Content-Type: text/plain'];
    const answer = [...head, `Content-Length: ${text.length}`, '', text].join('\r\n');
    this.#guest.end(answer, () => this.#guest.destroy());
  }

  // ---- websockets ---------------------------------------------------------------------------------------------------

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const response = detached(request, socket);
    const asked = askedOf(request, this.#exchange);
    const { allowed, because } = this.#exchange.judge(asked);
    if (!allowed || asked.method !== 'GET') return this.#deny(asked, response, because);
    const outgoing = this.#ask(request, asked, ['Upgrade', 'websocket'], 'Upgrade');
    outgoing.on('upgrade', (incoming, upstream, first) => {
      this.#exchange.done(asked, 'allowed', because, 101);
      const lines = pairs(keptHeaders(incoming)).map(([name, value]) => `${name}: ${value}\r\n`);
      const answer = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n';
      socket.write(`${answer}${lines.join('')}\r\n`);
      if (first.length > 0) socket.write(first);
      if (head.length > 0) upstream.write(head);
      pipeline(socket, upstream, socket, () => {
        socket.destroy();
        upstream.destroy();
      });
    });
    outgoing.on('response', (incoming) => {
      const status = incoming.statusCode ?? 502;
      this.#exchange.done(asked, 'allowed', because, status);
      response.writeHead(status, incoming.statusMessage, keptHeaders(incoming));
      pipeline(incoming, response, () => {});
    });
    outgoing.on('error', (error) => {
      this.#exchange.done(asked, 'failed', messageOf(error), null);
      socket.destroy();
    });
    outgoing.end();
  }
}

function say(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { ...refusalHeaders, 'content-length': Buffer.byteLength(text) }).end(text);
}

/** The one answer on a socket that Node has taken out of its server, because it may be no HTTP from here on. */
function detached(request: IncomingMessage, socket: Duplex): ServerResponse {
  const response = new ServerResponse(request);
  response.assignSocket(socket as never);
  response.sendDate = false;
  response.shouldKeepAlive = false;
  response.on('finish', () => ('destroySoon' in socket ? (socket as Socket).destroySoon() : socket.end()));
  return response;
}

function isWebSocket({ headers }: IncomingMessage): boolean {
  return headers.upgrade?.trim().toLowerCase() === 'websocket';
}

/** A target in absolute form names a host of its own: it must be the same one. */
function askedOf(request: IncomingMessage, { scheme }: Exchange): Asked {
  const { method = '', url = '' } = request;
  const hosts = pairs(request.rawHeaders).filter(([name]) => name.toLowerCase() === 'host').map(([, value]) => value);
  const [, proto, inTarget, rest = ''] = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(.*)$/is.exec(url) ?? [];
  const target = inTarget === undefined ? url : rest.startsWith('/') ? rest : `/${rest}`;
  const named = new Set([...hosts, ...(inTarget === undefined ? [] : [inTarget])].map((each) => each.toLowerCase()));
  const foreign = proto !== undefined && proto.toLowerCase() !== scheme;
  const authority = hosts.length > 1 || named.size !== 1 || foreign ? undefined : [...named][0];
  return { method, authority, target };
}

/** How the body is cut off from what follows: one way, written anew. Undefined for a coding that is not understood. */
function framingOf(request: IncomingMessage): readonly string[] | undefined {
  const coding = request.headers['transfer-encoding'];
  if (coding !== undefined) {
    return coding.trim().toLowerCase() === 'chunked' ? ['Transfer-Encoding', 'chunked'] : undefined;
  }
  const length = request.headers['content-length'];
  if (length !== undefined) return ['Content-Length', length];
  return BODILESS.has(request.method ?? '') ? [] : ['Content-Length', '0'];
}

/** Names and values in turn, as they came, without what is not for the other side. */
function keptHeaders({ rawHeaders, headers }: IncomingMessage): string[] {
  const isRequest = headers.host !== undefined;
  const named = namedByConnection(headers.connection);
  return pairs(rawHeaders).filter(([name]) => {
    const lower = name.toLowerCase();
    if (isHop(lower) || named.has(lower) || lower === 'host') return false;
    return !(isRequest && lower === 'content-length');
  }).flat();
}

function pairs(flat: readonly string[]): [string, string][] {
  return Array.from({ length: flat.length / 2 }, (_, index) => [flat[2 * index] ?? '', flat[2 * index + 1] ?? '']);
}
