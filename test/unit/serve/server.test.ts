/**
 * Goal: the HTTP interface does what /openapi.json says, for the right callers, with every answer on the medium before
 * it is given. Method: the whole service but its machines; curl and the CloudEvents library as clients.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { CloudEvent, emitterFor, httpTransport, Mode } from 'cloudevents';
import { inFolder } from '../../vm/rig.ts';
import { caller, covered } from './http.ts';
import type { Call } from './http.ts';
import { openServe } from './rig.ts';
import type { RigOptions, ServeRig } from './rig.ts';

const JSON_TYPE = { 'content-type': 'application/json' };
const SEND = '/v1/functions/hello/events';

let rig: ServeRig;
let call: Call;
let key = '';
let admin = '';
let release = (): void => {};
let over: Promise<void>;

before(async () => {
  const ready = Promise.withResolvers<void>();
  over = inFolder(async (home) => {
    rig = await openServe(home);
    await rig.deploy('hello');
    [key, admin] = [await rig.key('acme', 'invoke'), await rig.key('acme', 'admin')];
    call = await caller(rig);
    ready.resolve();
    await new Promise<void>((resolve) => (release = resolve));
    await rig.close();
  });
  await ready.promise;
});
after(async () => {
  release();
  await over;
});

async function inRig(
  options: RigOptions,
  work: (own: ServeRig, ask: Call, ownKey: string) => Promise<void>,
): Promise<void> {
  await inFolder(async (home) => {
    const own = await openServe(home, options);
    try {
      await own.deploy('hello');
      await work(own, await caller(own), await own.key('acme', 'invoke'));
    } finally {
      await own.close();
    }
  });
}

test('the answer to an event is the validated output, verbatim', async () => {
  const body = '{"big":12345678901234567890}';
  const { status, text, headers } = await call('POST', SEND, { key, headers: JSON_TYPE, body });
  assert.deepEqual([status, text, headers.get('content-type')], [200, body, 'application/json']);
  const id = String(headers.get('mayfly-event'));
  const event = await call('GET', `/v1/events/${id}`, { key });
  assert.match(event.text, /"output":\{"big":12345678901234567890\}\}$/);
  assert.deepEqual(
    [event.json.state, event.json.attempts, event.json.run],
    ['succeeded', 1, headers.get('mayfly-run')],
  );
});

test('respond-async: accepted at once, and the result by polling', async () => {
  const sent = await call('POST', SEND, {
    key,
    headers: { ...JSON_TYPE, prefer: 'respond-async' },
    body: '{"millis":100}',
  });
  assert.equal(sent.status, 202);
  assert.equal(sent.headers.get('location'), sent.json.links[0]);
  assert.match((await call('GET', sent.json.links[0], { key })).json.state, /queued|running/);
  assert.equal((await call('GET', `${sent.json.links[0]}?wait=10`, { key })).json.state, 'succeeded');
  const patient = await call('POST', SEND, {
    key,
    headers: { ...JSON_TYPE, prefer: 'wait=1' },
    body: '{"millis":3000}',
  });
  assert.equal(patient.status, 202, 'the wait is over before the run is');
});

test('a stream tells each change of state, and ends with the result', async () => {
  const sent = await call('POST', SEND, {
    key,
    headers: { ...JSON_TYPE, prefer: 'respond-async' },
    body: '{"millis":200}',
  });
  const { text, headers } = await call('GET', `${sent.json.links[0]}/stream`, { key });
  assert.equal(headers.get('content-type'), 'text/event-stream');
  const states = [...text.matchAll(/^data: (.*)$/gm)].map(
    ([, data = '']) => (JSON.parse(data) as { state: string }).state,
  );
  assert.equal(states.at(-1), 'succeeded');
  assert.deepEqual(states, [...new Set(states)], 'no state twice');
  assert.match((await call('GET', `${sent.json.links[0]}/stream`, { key })).text, /"state":"succeeded"/);
});

test('failures are problems: the status says whose, the code says what, and a dead letter is kept', async () => {
  const cases = [
    ['throw', 502, 'E_FUNCTION_THREW'],
    ['late', 504, 'E_FUNCTION_TIMEOUT'],
    ['refuse', 400, 'E_IMAGE_UNKNOWN'],
  ];
  for (const [wish, status, code] of cases) {
    const {
      status: got,
      json,
      headers,
    } = await call('POST', SEND, { key, headers: JSON_TYPE, body: `{"do":"${wish}"}` });
    assert.deepEqual([got, json.code, json.status], [status, code, status]);
    assert.match(String(headers.get('content-type')), /^application\/problem\+json/);
    assert.equal((await call('GET', `/v1/events/${json.event}`, { key })).json.failure.code, code);
  }
  const list = await call('GET', '/v1/dead-letters?limit=2', { key: admin });
  assert.equal(list.json.events.length, 2);
  const rest = await call('GET', `/v1/dead-letters?before=${list.json.next}`, { key: admin });
  const codes = [...list.json.events, ...rest.json.events].map(
    ({ failure }: { failure: { code: string } }) => failure.code,
  );
  for (const [, , code] of cases) assert.ok(codes.includes(String(code)));
  const [{ id }] = list.json.events;
  assert.equal((await call('POST', `/v1/dead-letters/${id}/retry`, { key: admin })).status, 204);
  assert.equal((await call('GET', `/v1/events/${id}?wait=10`, { key })).json.state, 'failed', 'it fails again');
  assert.equal((await call('DELETE', `/v1/dead-letters/${id}`, { key: admin })).status, 204);
  assert.equal((await call('GET', `/v1/events/${id}`, { key })).status, 404);
  assert.equal((await call('DELETE', `/v1/dead-letters/${id}`, { key: admin })).status, 404);
});

test('a host that fails is tried again with back-off, and answered with 503 in the end', async () => {
  await inRig({}, async (own, ask, ownKey) => {
    await own.deploy('hello', 'retry: {attempts: 3, backoff: 50ms}\n');
    const { status, json, headers } = await ask('POST', SEND, {
      key: ownKey,
      headers: JSON_TYPE,
      body: '{"do":"host"}',
    });
    assert.deepEqual([status, json.code], [503, 'E_CLONE_FAILED']);
    assert.ok(headers.get('retry-after'));
    assert.equal((await ask('GET', `/v1/events/${json.event}`, { key: ownKey })).json.attempts, 3);
    assert.equal(own.runner.runs.length, 3);
  });
});

test('raw output is bytes', async () => {
  await inRig({}, async (own, ask, ownKey) => {
    const { functions } = own;
    await own.deploy('hello');
    const version = await functions.load('acme', 'hello');
    Object.assign(version, { workload: { kind: 'executable', argv: ['/x'], raw: true, entries: [] } });
    const { text, headers } = await ask('POST', SEND, { key: ownKey, headers: JSON_TYPE, body: '{"do":"raw"}' });
    assert.deepEqual([headers.get('content-type'), text], ['application/octet-stream', '\u0000bytes']);
    const event = await ask('GET', `/v1/events/${headers.get('mayfly-event')}`, { key: ownKey });
    assert.equal(event.json.outputBase64, Buffer.from('\u0000bytes').toString('base64'));
  });
});

test('curl and the CloudEvents library are understood', async () => {
  const curl = promisify(execFile);
  const { stdout } = await curl('curl', [
    '-sS', '--max-time', '20', '-H', `Authorization: Bearer ${key}`, '--json', '{"from":"curl"}', `${rig.url}${SEND}`,
  ]);
  assert.equal(stdout, '{"from":"curl"}');
  for (const mode of [Mode.BINARY, Mode.STRUCTURED]) {
    const emit = emitterFor(httpTransport(`${rig.url}${SEND}`), { mode });
    const id = `from-the-library-${mode}`;
    const answer = (await emit(new CloudEvent({ id, source: '/test', type: 't', data: { n: mode } }), {
      headers: { authorization: `Bearer ${key}` },
    })) as { body: string };
    assert.deepEqual(JSON.parse(answer.body), { n: mode });
    assert.ok(rig.runner.runs.some((run) => run.id === id));
  }
});

test('a batch is accepted as a whole, and each of it answered for', async () => {
  const event = (id: number): string =>
    `{"specversion":"1.0","id":"${id}","source":"/s","type":"t","data":{"n":${id}}}`;
  const headers = { 'content-type': 'application/cloudevents-batch+json', 'idempotency-key': 'batch' };
  const body = `[${[1, 2, 3].map(event).join()}]`;
  const { status, json } = await call('POST', SEND, { key, headers, body });
  assert.deepEqual([status, json.ids.length], [202, 3]);
  for (const [index, link] of json.links.entries()) {
    assert.deepEqual((await call('GET', `${link}?wait=10`, { key })).json.output, { n: index + 1 });
  }
  const again = await call('POST', SEND, { key, headers, body });
  assert.deepEqual([again.json.ids, again.headers.get('idempotent-replayed')], [json.ids, 'true']);
  const broken = await call('POST', SEND, {
    key,
    headers: { ...headers, 'idempotency-key': 'b2' },
    body: `[${event(1)},{}]`,
  });
  assert.equal(broken.status, 400);
});

test('quotas and a full queue: 429 with Retry-After, and what was accepted is not touched', async () => {
  await inRig({ settings: { concurrency: 1, queue: 3 } }, async (own, ask, ownKey) => {
    const send = (): ReturnType<Call> =>
      ask('POST', SEND, { key: ownKey, headers: { ...JSON_TYPE, prefer: 'respond-async' }, body: '{"millis":300}' });
    const answers = await Promise.all(Array.from({ length: 12 }, send));
    const accepted = answers.filter(({ status }) => status === 202);
    const refused = answers.filter(({ status }) => status === 429);
    assert.equal(accepted.length + refused.length, 12);
    assert.ok(accepted.length >= 3 && accepted.length <= 5, String(accepted.length));
    for (const { headers, json } of refused) {
      assert.ok(Number(headers.get('retry-after')) >= 1);
      assert.equal(json.code, 'E_OVERLOADED');
    }
    for (const { json } of accepted) {
      assert.equal((await ask('GET', `${json.links[0]}?wait=20`, { key: ownKey })).json.state, 'succeeded');
    }
    await own.tenants.put('acme', { eventsPerSecond: 1 });
    const limited = await Promise.all(Array.from({ length: 3 }, send));
    assert.ok(limited.every(({ status }) => status === 202 || status === 429));
  });
});

test('a tenant with a thousand events does not keep another one waiting', async () => {
  await inRig({ settings: { concurrency: 1 } }, async (own, ask, ownKey) => {
    await own.deploy('hello', '', 'small');
    const small = await own.key('small', 'invoke');
    const async = { ...JSON_TYPE, prefer: 'respond-async' };
    await Promise.all(
      Array.from({ length: 40 }, () => ask('POST', SEND, { key: ownKey, headers: async, body: '{"millis":50}' })),
    );
    const one = await ask('POST', SEND, { key: small, headers: JSON_TYPE, body: '{"mine":1}' });
    assert.equal(one.status, 200);
    const at = own.runner.runs.findIndex(({ tenant }) => tenant === 'small');
    assert.ok(at <= 10, `it was number ${at}`);
  });
});

test('concurrency of a function is kept', async () => {
  await inRig({ settings: { concurrency: 8 } }, async (own, ask, ownKey) => {
    await own.deploy('hello', 'concurrency: 2\n');
    await Promise.all(
      Array.from({ length: 8 }, () => ask('POST', SEND, { key: ownKey, headers: JSON_TYPE, body: '{"millis":40}' })),
    );
    assert.equal(own.runner.most, 2);
  });
});

test('a stop takes nothing new, lets end what runs, and keeps what waits for the next start', async () => {
  await inFolder(async (home) => {
    const first = await openServe(home, { settings: { concurrency: 1, drainMillis: 400 } });
    await first.deploy('hello');
    const own = await first.key('acme', 'invoke');
    const ask = await caller(first);
    const send = (body: string): ReturnType<Call> =>
      ask('POST', SEND, { key: own, headers: { ...JSON_TYPE, prefer: 'respond-async' }, body });
    const links: string[] = [];
    for (const body of ['{"do":"hang"}', '{"waits":1}']) links.push((await send(body)).json.links[0]);
    first.service.drain();
    assert.deepEqual([(await send('{}')).status, (await ask('GET', '/readyz')).json.status], [503, 'draining']);
    assert.equal((await ask('GET', '/healthz')).status, 200);
    await first.close();
    assert.ok(first.runner.closed);
    const second = await openServe(home, { settings: { concurrency: 2 } });
    const askAgain = await caller(second);
    assert.deepEqual((await askAgain('GET', `${links[1]}?wait=20`, { key: own })).json.output, { waits: 1 });
    assert.match(
      (await askAgain('GET', String(links[0]), { key: own })).json.state,
      /queued|running/,
      'taken up again',
    );
    await second.close();
  });
});

test('metrics count, and the log has ids and codes but nothing that callers or keys say', async () => {
  const secret = 'a-secret-of-the-caller';
  await call('POST', SEND, {
    key,
    headers: { ...JSON_TYPE, 'x-secret': secret },
    body: `{"do":"throw","s":"${secret}"}`,
  });
  assert.deepEqual((await call('GET', '/readyz')).json, { status: 'ok' });
  const { text } = await call('GET', '/metrics');
  assert.match(text, /^mayfly_events_ended_total\{tenant="acme",function="hello",code="OK"\} \d+$/m);
  assert.match(text, /^mayfly_event_seconds_bucket\{tenant="acme",function="hello",le="\+Inf"\} \d+$/m);
  assert.match(text, /^# TYPE mayfly_clones_waiting gauge$/m);
  for (const line of text.split('\n')) assert.match(line, /^(#.*|[a-z_]+(\{[^{}]*\})? [0-9.e+-]+|)$/, line);
  await new Promise((resolve) => setTimeout(resolve, 50));
  const log = rig.log.map(({ line }) => line).join('\n');
  assert.match(log, /"code":"E_FUNCTION_THREW"/);
  assert.match(log, /"run":"[0-9A-Z]{26}"/);
  for (const word of [secret, key, key.slice(-43), admin.slice(-43), 'played:']) assert.ok(!log.includes(word), word);
});

test('functions of the tenant, and nobody else\'s', async () => {
  await rig.deploy('other', '', 'stranger');
  const { json } = await call('GET', '/v1/functions', { key });
  assert.deepEqual(json.functions.map(({ name }: { name: string }) => name), ['hello']);
});

test('docs/openapi.json is what the service publishes, and most of it was held against answers here', async () => {
  const path = join(import.meta.dirname, '../../../docs/openapi.json');
  const published = (await call('GET', '/openapi.json')).json;
  const kept = JSON.parse(readFileSync(path, 'utf8'));
  assert.deepEqual(
    { ...published, info: { ...published.info, version: '' } },
    { ...kept, info: { ...kept.info, version: '' } },
  );
  const operations = Object.entries(published.paths as Record<string, object>).flatMap(([at, methods]) => {
    return Object.keys(methods).map((method) => `${method.toUpperCase()} ${at}`);
  });
  for (const operation of operations)
    assert.ok(
      [...covered].some((each) => each.startsWith(`${operation} 2`)),
      operation,
    );
});
