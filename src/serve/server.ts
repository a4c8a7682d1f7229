/**
 * HTTP in front of the service: bounded in every direction before a byte of a body is read. Who calls is decided on the
 * headers alone; compressed bodies are refused, so there is nothing to inflate; slow clients are cut off.
 */
import swagger from '@fastify/swagger';
import { fastify } from 'fastify';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Socket } from 'node:net';
import { MayflyError } from '../core/errors.ts';
import { limits } from '../core/limits.ts';
import { TokenBucket } from '../core/rate.ts';
import type { Clock } from '../core/time.ts';
import type { ApiKey, Role, Tenants } from '../tenant/tenants.ts';
import { verdictOf } from '../validate/verdict.ts';
import type { Log } from './contract.ts';
import { problemOf, retryAfterOf } from './problem.ts';
import { addRoutes } from './routes.ts';
import type { Service } from './service.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Any of these; absent: open to everybody. */
    readonly roles?: readonly Role[];
    /** For peers on this machine only, unless the operator says otherwise. */
    readonly local?: boolean;
  }
  interface FastifyRequest {
    caller: ApiKey | undefined;
    startedAt: number;
  }
}

export interface ServerOptions {
  readonly service: Service;
  readonly tenants: Tenants;
  readonly clock: Clock;
  readonly log: Log;
  readonly version: string;
  /** PEM. */
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer };
  /** /metrics is for everybody who can connect. */
  readonly openMetrics?: boolean;
}

export async function createServer(options: ServerOptions): Promise<FastifyInstance> {
  const { service, clock, log, version, tls } = options;
  const http = {
    headersTimeout: limits.requestMillisMax,
    connectionsCheckingInterval: limits.connectionLookMillis,
    maxHeaderSize: limits.requestHeaderBytesMax,
  };
  const server = fastify({
    ...(tls === undefined ? { http } : { https: { ...http, cert: tls.cert, key: tls.key, minVersion: 'TLSv1.2' } }),
    logger: false,
    bodyLimit: limits.eventBytesMax,
    requestTimeout: limits.requestMillisMax,
    keepAliveTimeout: limits.keepAliveMillisMax,
    maxRequestsPerSocket: 0,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    // Longer ones are the schemas' to refuse, in Mayfly's words.
    routerOptions: { maxParamLength: limits.requestHeaderBytesMax },
    clientErrorHandler,
  }) as unknown as FastifyInstance;
  server.server.maxConnections = limits.connectionsMax;

  await server.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Mayfly', version, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
        description: 'Every event in its own virtual machine. Errors are RFC 9457 problems with a stable `code`.',
      },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer', description: '`mayfly key create`' } } },
    },
  });

  // Bodies arrive as they are; the intake reads them.
  server.removeAllContentTypeParsers();
  server.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));

  server.decorateRequest('caller', undefined);
  server.decorateRequest('startedAt', 0);
  const failures = new Failures(clock);
  server.addHook('onRequest', async (request) => {
    request.startedAt = clock.now();
    const encoding = request.headers['content-encoding'];
    if (encoding !== undefined && encoding !== 'identity') {
      throw new MayflyError('E_ENCODING', `The body is encoded as ${encoding.slice(0, 40)}.`);
    }
    const { roles, local } = request.routeOptions.config;
    if (local === true && options.openMetrics !== true && !isLoopback(request.ip)) {
      throw new MayflyError('E_ROUTE_UNKNOWN', 'There is nothing here.');
    }
    if (roles !== undefined) request.caller = await authenticate(options, request, roles, failures);
  });
  server.addHook('onResponse', async (request, reply) => {
    const route = request.routeOptions.url ?? 'unknown';
    const millis = clock.now() - request.startedAt;
    service.metrics.request(route, reply.statusCode, millis);
    const { caller } = request;
    const who = caller === undefined ? {} : { tenant: caller.tenant, key: caller.id };
    log.info(
      { method: request.method, route, status: reply.statusCode, millis: Math.round(millis), ...who },
      'request',
    );
  });
  server.setNotFoundHandler(async () => {
    throw new MayflyError('E_ROUTE_UNKNOWN', 'There is nothing here.');
  });
  server.setErrorHandler((thrown: FastifyError, _request, reply) => {
    const error = mayflyErrorOf(thrown);
    if (error.code === 'E_INTERNAL') log.error({ code: error.code, stack: thrown.stack }, 'a request failed');
    service.metrics.refused(error.code);
    return sendProblem(reply, error, service.queueSeconds);
  });
  addRoutes(server, service, clock);
  return server;
}

async function authenticate(
  { tenants }: ServerOptions, request: FastifyRequest, roles: readonly Role[], failures: Failures,
): Promise<ApiKey> {
  const [scheme = '', token = ''] = (request.headers.authorization ?? '').split(' ');
  const key = scheme.toLowerCase() === 'bearer' ? await tenants.authenticate(token) : undefined;
  if (key === undefined) {
    if (!failures.may(request.ip)) {
      throw new MayflyError('E_RATE_LIMITED', 'Too many requests without a valid key come from this address.');
    }
    throw new MayflyError('E_UNAUTHENTICATED', 'The request carries no valid API key.');
  }
  if (key.roles.includes('admin') || key.roles.some((role) => roles.includes(role))) return key;
  throw new MayflyError('E_FORBIDDEN', `The key has no role that may do this: ${roles.join(', ')}.`);
}

/** Who guesses keys is slowed down; who has one is not. */
class Failures {
  readonly #clock: Clock;
  readonly #buckets = new Map<string, TokenBucket>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  may(address: string): boolean {
    const bucket = this.#buckets.get(address) ?? new TokenBucket(this.#clock, limits.authFailuresPerSecond);
    this.#buckets.delete(address);
    this.#buckets.set(address, bucket);
    for (const oldest of [...this.#buckets.keys()].slice(0, -limits.authAddressesMax)) this.#buckets.delete(oldest);
    return bucket.take();
  }
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.');
}

function sendProblem(
  reply: FastifyReply, error: MayflyError, queueSeconds: number,
): FastifyReply {
  const problem = problemOf(verdictOf(error));
  const retryAfter = retryAfterOf(error.code, queueSeconds);
  if (retryAfter !== undefined) reply.header('retry-after', String(retryAfter));
  if (error.code === 'E_UNAUTHENTICATED') reply.header('www-authenticate', 'Bearer realm="mayfly"');
  return reply.code(problem.status).type('application/problem+json').send(JSON.stringify(problem));
}

/** What fastify refuses, in Mayfly's words; of what is a bug in Mayfly nothing is told to strangers. */
function mayflyErrorOf(thrown: FastifyError): MayflyError {
  if (thrown instanceof MayflyError) return thrown;
  const { code, statusCode = 500, validation } = thrown;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return new MayflyError('E_EVENT_TOO_LARGE', `The body has more than ${limits.eventBytesMax} bytes.`);
  }
  if (validation !== undefined) return new MayflyError('E_REQUEST_INVALID', thrown.message);
  if (statusCode >= 400 && statusCode < 500) return new MayflyError('E_REQUEST_INVALID', thrown.message);
  return new MayflyError('E_INTERNAL', 'The request could not be carried out.', { cause: thrown });
}

/** Requests that are none: a parser that gave up, a client that was too slow. There is no request to answer through. */
function clientErrorHandler(error: Error & { readonly code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  const late = error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
  const found = late
    ? new MayflyError('E_REQUEST_TIMEOUT', `The request was not complete after ${limits.requestMillisMax} ms.`)
    : new MayflyError('E_REQUEST_INVALID', 'The request is not HTTP, or its headers are too large.');
  const body = JSON.stringify(problemOf(verdictOf(found)));
  const [status, words] = late ? [408, 'Request Timeout'] : [400, 'Bad Request'];
  socket.end(`HTTP/1.1 ${status} ${words}\r\nContent-Type: application/problem+json\r\nConnection: close\r\n`
    + `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
}
