/** The addresses of the HTTP interface: each says its shapes, who may call it, and what it asks of the service. */
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema } from 'fastify';
import { Type } from 'typebox';
import { MayflyError } from '../core/errors.ts';
import { newRunId } from '../core/ids.ts';
import type { RunId } from '../core/ids.ts';
import { limits } from '../core/limits.ts';
import { isoTime } from '../core/time.ts';
import type { Clock } from '../core/time.ts';
import type { ApiKey } from '../tenant/tenants.ts';
import { takeEvents } from './intake.ts';
import { problemOf, retryAfterOf } from './problem.ts';
import {
  AcceptedBody, EventBody, EventId, EventList, FunctionList, FunctionName, HealthBody, ProblemBody,
} from './schemas.ts';
import type { EventStatus } from './schemas.ts';
import type { Service } from './service.ts';
import type { StoredEvent } from './store/event.ts';

/** Randomness for ids that no other part sees: an event without one of its own is named before it is accepted. */
type NewId = () => RunId;

const problem = (description: string) => ({
  description, content: { 'application/problem+json': { schema: ProblemBody } },
});
const json = (description: string, schema: object) => ({ description, content: { 'application/json': { schema } } });
const ERRORS = { 401: problem('no valid key'), 403: problem('not allowed'), 429: problem('later, see Retry-After') };
const keyed = { security: [{ key: [] }] };
const idParams = Type.Object({ id: EventId });

export function addRoutes(server: FastifyInstance, service: Service, clock: Clock): void {
  const newId: NewId = () => newRunId(clock, service.random);
  addEventRoutes(server, service, clock, newId);
  addDeadLetterRoutes(server, service);
  addOperatorRoutes(server, service);
}

function addEventRoutes(server: FastifyInstance, service: Service, clock: Clock, newId: NewId): void {
  const headers = Type.Object({
    prefer: Type.Optional(Type.String({ maxLength: 200, description: '`respond-async`, or `wait=SECONDS`' })),
    'idempotency-key': Type.Optional(Type.String({ minLength: 1, maxLength: limits.idempotencyKeyUnitsMax })),
  });
  server.route<{ Params: { name: string } }>({
    method: 'POST',
    url: '/v1/functions/:name/events',
    config: { roles: ['invoke'] },
    schema: {
      operationId: 'sendEvent',
      summary: 'Send an event: CloudEvents (binary, structured, batch), JSON, or any body',
      ...keyed,
      params: Type.Object({ name: FunctionName }),
      headers,
      body: { content: { '*/*': { schema: {} }, 'application/cloudevents+json': { schema: {} } } },
      response: {
        200: { description: 'The validated output of the function', content: { '*/*': { schema: {} } } },
        202: json('Accepted; the result will be at these addresses', AcceptedBody),
        400: problem('not an event'), 404: problem('no such function'), 408: problem('it came too slowly'),
        409: problem('another request with this idempotency key'), 413: problem('too large'),
        415: problem('compressed'), 500: problem('Mayfly failed'), 502: problem('the function failed'),
        503: problem('not now'), 504: problem('the function took too long'), ...ERRORS,
      },
    } as FastifySchema,
    handler: async (request, reply) => {
      const { tenant, id: principal } = callerOf(request);
      const { name } = request.params;
      const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
      const { events, batch } = takeEvents({
        headers: request.headers, body, source: `/v1/functions/${name}`, newId, wallNanos: () => clock.wallNanos(),
      });
      const key = request.headers['idempotency-key'];
      const { ids, replayed } = await service.submit({
        tenant, function: name, origin: { ip: request.ip, principal }, events, body: signed(request, body),
        key: typeof key === 'string' ? key : null,
      });
      if (replayed) reply.header('idempotent-replayed', 'true');
      const [id = ''] = ids;
      const wait = batch ? 0 : waitOf(request.headers['prefer']);
      if (wait > 0) {
        const event = await service.settled(id, wait, goneSignal(reply));
        if (event?.state === 'succeeded' || event?.state === 'failed') return answer(reply, service, event);
      }
      return reply.code(202).header('location', `/v1/events/${id}`).type('application/json')
        .send(JSON.stringify({ ids, links: ids.map((each) => `/v1/events/${each}`) }));
    },
  });

  server.route<{ Params: { id: string }; Querystring: { wait?: number } }>({
    method: 'GET',
    url: '/v1/events/:id',
    config: { roles: ['invoke', 'investigate'] },
    schema: {
      operationId: 'getEvent',
      summary: 'Where an event stands, and its output',
      ...keyed,
      params: idParams,
      querystring: Type.Object({
        wait: Type.Optional(Type.Integer({ minimum: 0, maximum: limits.answerMillisMax / 1000 })),
      }),
      response: {
        200: json('The event', EventBody),
        400: problem('not an id'),
        404: problem('no such event'),
        ...ERRORS,
      },
    },
    handler: async (request, reply) => {
      const { id } = findOwn(service, request);
      const event = await service.settled(id, (request.query.wait ?? 0) * 1000, goneSignal(reply));
      if (event === undefined) throw new MayflyError('E_EVENT_UNKNOWN', `There is no event ${id}.`);
      return reply.type('application/json').send(statusText(service, event));
    },
  });

  server.route<{ Params: { id: string } }>({
    method: 'GET',
    url: '/v1/events/:id/stream',
    config: { roles: ['invoke', 'investigate'] },
    schema: {
      operationId: 'streamEvent',
      summary: 'Each change of state as a server-sent event `state`, until the event is at an end',
      ...keyed,
      params: idParams,
      response: {
        200: { description: 'A stream of events', content: { 'text/event-stream': { schema: Type.String() } } },
        400: problem('not an id'), 404: problem('no such event'), ...ERRORS,
      },
    },
    handler: async (request, reply) => stream(service, clock, findOwn(service, request), reply),
  });

  server.route({
    method: 'GET',
    url: '/v1/functions',
    config: { roles: ['invoke', 'deploy', 'investigate'] },
    schema: {
      operationId: 'listFunctions', summary: 'Functions of the tenant', ...keyed,
      response: { 200: json('Functions and the versions in use', FunctionList), ...ERRORS },
    },
    handler: async (request, reply) => {
      const functions = await service.functionsOf(callerOf(request).tenant);
      return reply.type('application/json').send(JSON.stringify({ functions }));
    },
  });
}

function addDeadLetterRoutes(server: FastifyInstance, service: Service): void {
  server.route<{ Querystring: { limit?: number; before?: string } }>({
    method: 'GET',
    url: '/v1/dead-letters',
    config: { roles: ['investigate'] },
    schema: {
      operationId: 'listDeadLetters', summary: 'Events that have ended without a result, newest first', ...keyed,
      querystring: Type.Object({
        limit: Type.Optional(Type.Integer({ minimum: 1, maximum: limits.eventsListedMax })),
        before: Type.Optional(EventId),
      }),
      response: { 200: json('Dead letters', EventList), 400: problem('not a page'), ...ERRORS },
    },
    handler: async (request, reply) => {
      const { limit = limits.eventsListedMax, before } = request.query;
      const { tenant } = callerOf(request);
      const found = service.deadLetters({ tenant, most: limit, ...(before === undefined ? {} : { before }) });
      const events = found.map((event) => statusOfEvent(event));
      const next = found.length === limit ? (found.at(-1)?.id ?? null) : null;
      return reply.type('application/json').send(JSON.stringify({ events, next }));
    },
  });
  for (const [method, url, operationId, summary] of [
    ['POST', '/v1/dead-letters/:id/retry', 'retryDeadLetter', 'Run it again, with the version that is in use now'],
    ['DELETE', '/v1/dead-letters/:id', 'purgeDeadLetter', 'Forget it and its payload'],
  ] as const) {
    server.route<{ Params: { id: string } }>({
      method, url,
      config: { roles: ['admin'] },
      schema: {
        operationId, summary, ...keyed, params: idParams,
        response: {
          204: { description: 'Done', type: 'null' }, 400: problem('not an id'), 404: problem('no such dead letter'),
          503: problem('not now'), ...ERRORS,
        },
      },
      handler: async (request, reply) => {
        const { tenant } = callerOf(request);
        await (method === 'POST' ? service.retry(tenant, request.params.id) : service.purge(tenant, request.params.id));
        return reply.code(204).send();
      },
    });
  }
}

function addOperatorRoutes(server: FastifyInstance, service: Service): void {
  const health = (url: string, operationId: string, summary: string, isWell: () => boolean): void => {
    server.route({
      method: 'GET', url,
      schema: {
        operationId, summary, response: { 200: json('Well', HealthBody), 503: json('Not well', HealthBody) },
      },
      handler: async (_request, reply) =>
        reply.code(isWell() ? 200 : 503).type('application/json').send(JSON.stringify({ status: service.state })),
    });
  };
  health('/healthz', 'health', 'The process answers', () => true);
  health('/readyz', 'ready', 'Events are accepted', () => service.state === 'ok');
  server.route({
    method: 'GET', url: '/metrics', config: { local: true },
    schema: {
      operationId: 'metrics', summary: 'Numbers for Prometheus; for this machine only, by default',
      response: {
        200: { description: 'Numbers', content: { 'text/plain': { schema: Type.String() } } },
        404: problem('not for you'),
      },
    },
    handler: async (_request, reply) => reply.type('text/plain; version=0.0.4').send(service.metrics.render()),
  });
  server.route({
    method: 'GET', url: '/openapi.json',
    schema: { operationId: 'openapi', summary: 'This description', response: { 200: json('OpenAPI 3.1', {}) } },
    handler: async (_request, reply) => reply.type('application/json').send(JSON.stringify(server.swagger())),
  });
}

// ---- answers --------------------------------------------------------------------------------------------------------

function answer(reply: FastifyReply, service: Service, event: StoredEvent): FastifyReply {
  reply
    .header('mayfly-event', event.id)
    .header('mayfly-run', event.run ?? '')
    .header('location', `/v1/events/${event.id}`);
  if (event.evidence !== null) reply.header('mayfly-evidence', event.evidence);
  if (event.state === 'succeeded') {
    reply.header('x-content-type-options', 'nosniff');
    return reply.type(event.raw ? 'application/octet-stream' : 'application/json').send(service.output(event.id));
  }
  const { failure } = event;
  if (failure === null) throw new Error(`the event ${event.id} failed without a reason`);
  const body = problemOf(failure, { event: event.id, run: event.run });
  const retryAfter = retryAfterOf(failure.code, service.queueSeconds);
  if (retryAfter !== undefined) reply.header('retry-after', String(retryAfter));
  return reply.code(body.status).type('application/problem+json').send(JSON.stringify(body));
}

function statusOfEvent(event: StoredEvent): EventStatus {
  const { id, function: name, version, state, attempts, run, acceptedMillis, endedMillis, evidence, failure } = event;
  const at = (millis: number): string => isoTime(BigInt(millis) * 1_000_000n);
  return {
    id, function: name, version, state, attempts, run, acceptedAt: at(acceptedMillis),
    endedAt: endedMillis === null ? null : at(endedMillis), evidence, failure,
  };
}

/** The output verbatim: parsed and printed again, numbers beyond a double's precision would change. */
function statusText(service: Service, event: StoredEvent): string {
  const text = JSON.stringify(statusOfEvent(event));
  if (event.state !== 'succeeded') return text;
  const output = service.output(event.id);
  const member = event.raw ? `"outputBase64":"${output.toString('base64')}"` : `"output":${output.toString('utf8')}`;
  return `${text.slice(0, -1)},${member}}`;
}

function stream(service: Service, clock: Clock, event: StoredEvent, reply: FastifyReply): void {
  const { id, tenant } = event;
  let beat = (): void => {};
  let last = '';
  const unwatch = service.watch(id, () => send());
  reply.hijack();
  const { raw } = reply;
  const end = (): void => {
    unwatch();
    beat();
    raw.end();
  };
  const rest = (): void => {
    beat = clock.after(limits.streamBeatMillis, () => {
      raw.write(': still here\n\n');
      rest();
    });
  };
  const send = (): void => {
    let now: StoredEvent;
    try {
      now = service.find(tenant, id);
    } catch {
      return end();
    }
    const text = statusText(service, now).replace(/[\r\n]/g, ' ');
    if (text !== last) raw.write(`event: state\ndata: ${text}\n\n`);
    last = text;
    if (now.state === 'succeeded' || now.state === 'failed' || service.state === 'draining') end();
  };
  raw.on('close', end);
  raw.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store', 'x-accel-buffering': 'no' });
  rest();
  send();
}

// ---- requests -------------------------------------------------------------------------------------------------------

function callerOf({ caller }: FastifyRequest): ApiKey {
  if (caller === undefined) throw new Error('this route has no roles, so nobody was asked for a key');
  return caller;
}

/** With `invoke` alone a key sees what it has sent itself. */
function findOwn(service: Service, request: FastifyRequest<{ Params: { id: string } }>): StoredEvent {
  const { tenant, id: principal, roles } = callerOf(request);
  const all = roles.includes('investigate') || roles.includes('admin');
  return service.find(tenant, request.params.id, all ? undefined : principal);
}

/** Milliseconds; 0: answer at once. */
function waitOf(prefer: unknown): number {
  const words = String(prefer ?? '').toLowerCase().split(/[,;]/).map((word) => word.trim());
  if (words.includes('respond-async')) return 0;
  const seconds = words.map((word) => /^wait=(\d{1,6})$/.exec(word)?.[1]).find((found) => found !== undefined);
  return seconds === undefined ? limits.answerMillisMax : Math.min(Number(seconds) * 1000, limits.answerMillisMax);
}

/** What makes two requests the same one: the body and how it is to be read. */
function signed({ headers }: FastifyRequest, body: Buffer): Buffer {
  const names = Object.keys(headers).filter((name) => name.startsWith('ce-') || name === 'content-type').sort();
  return Buffer.concat([Buffer.from(JSON.stringify(names.map((name) => [name, headers[name]]))), body]);
}

function goneSignal(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once('close', () => gone.abort());
  return gone.signal;
}
