/**
 * Goal: feeds are pulled as their servers really answer, and whatever a feed or its server does, the last good copy
 * stays and somebody is told. Method: HTTP servers on loopback (lists with ETag, a TAXII 2.1 collection in pages, a
 * MISP folder) and a real MAYFLY_HOME/intel in a temporary folder.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { after, before, beforeEach, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createDisk } from '../../../src/core/disk.ts';
import { limits } from '../../../src/core/limits.ts';
import type { Clock } from '../../../src/core/time.ts';
import { Intel } from '../../../src/intel/intel.ts';
import type { Synced } from '../../../src/intel/sync.ts';
import { NOW } from './rig.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

let folder = '';
let server: Server;
let base = '';
let requests: IncomingMessage[] = [];
const routes = new Map<string, Answer>();
let wallSeconds = NOW;
let waits: number[] = [];

const clock: Clock = {
  now: () => performance.now(),
  wallNanos: () => BigInt(wallSeconds) * 1_000_000_000n,
  // Back-off is recorded, not waited for.
  after(millis, fire) {
    waits.push(millis);
    const timer = setTimeout(fire, Math.min(millis, millis > 5000 ? millis : 1));
    return () => clearTimeout(timer);
  },
};

before(async () => {
  server = createServer((request, response) => {
    requests.push(request);
    const path = new URL(request.url ?? '/', 'http://x').pathname;
    const answer = routes.get(path);
    if (answer === undefined) response.writeHead(404).end();
    else answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
  rmSync(folder, { recursive: true, force: true });
});
beforeEach(() => {
  if (folder !== '') rmSync(folder, { recursive: true, force: true });
  folder = mkdtempSync(join(tmpdir(), 'mayfly-intel-'));
  routes.clear();
  [requests, waits, wallSeconds] = [[], [], NOW];
});

function open(config: string, environment: Readonly<Record<string, string>> = {}): Intel {
  writeFileSync(join(folder, 'feeds.yaml'), config);
  const random = { bytes: (size: number) => randomBytes(size) };
  return new Intel({ folder, disk: createDisk(), clock, random, environment: (name) => environment[name] });
}

async function sync(
  intel: Intel,
  more: { accept?: boolean; only?: string[]; signal?: AbortSignal } = {},
): Promise<Synced[]> {
  return await intel.sync({
    only: more.only ?? [],
    accept: more.accept ?? false,
    signal: more.signal ?? new AbortController().signal,
  });
}

async function one(intel: Intel, more: { accept?: boolean } = {}): Promise<Synced> {
  const [synced] = await sync(intel, { ...more, only: ['f'] });
  assert.ok(synced !== undefined);
  return synced;
}

const listed = async (intel: Intel, value: string): Promise<number> => (await intel.lookup(value)).hits.length;
const send =
  (text: string, headers: Record<string, string> = {}): Answer =>
  (_, response) =>
    response.writeHead(200, headers).end(text);
const numbered = (count: number, prefix = 'h'): string =>
  Array.from({ length: count }, (_, at) => `${prefix}${at}.example`).join('\n');
const listFeed = (more = ''): string => `feeds:\n  - name: f\n    format: lines\n    url: ${base}/list\n${more}`;

test('a list: fetched, compressed or not, kept, and asked for again only if it changed', async () => {
  routes.set('/list', (request, response) => {
    if (request.headers['if-none-match'] === '"v1"') response.writeHead(304).end();
    else
      response
        .writeHead(200, { etag: '"v1"', 'content-encoding': 'gzip' })
        .end(gzipSync('192.0.2.0/24\nbad.example\n'));
  });
  const intel = open(listFeed());
  assert.equal((await one(intel)).result, 'updated');
  assert.equal(await listed(intel, '192.0.2.77'), 1);
  assert.equal(await listed(intel, 'www.bad.example'), 1);
  wallSeconds += 100;
  const again = await one(intel);
  assert.deepEqual([again.result, again.state.freshAt, again.state.count], ['unchanged', wallSeconds, 2]);
  // Another process finds the same on disk.
  assert.equal(await listed(open(listFeed()), 'bad.example'), 1);
});

test('a damaged copy is said, and pulled again whatever the server says about changes', async () => {
  routes.set('/list', (request, response) => {
    if (request.headers['if-none-match'] !== undefined) response.writeHead(304).end();
    else response.writeHead(200, { etag: '"v1"' }).end('192.0.2.1\n');
  });
  const intel = open(listFeed());
  const { state } = await one(intel);
  writeFileSync(join(folder, 'feeds/f', state.file), 'ip\t192.0.2.2\t50\tlow\t0\t0\t\t\n');
  assert.equal((await intel.status())[0]?.health, 'failing');
  assert.equal((await one(intel)).result, 'updated');
  assert.equal((await intel.status())[0]?.health, 'fresh');
  assert.deepEqual(readdirSync(join(folder, 'feeds/f')).sort(), [state.file, 'state.json'].sort());
});

test('a failing server is tried again with growing pauses; the last good copy stays and ages into stale', async () => {
  const intel = open(listFeed('    maxAge: 1h\n'));
  routes.set('/list', send('bad.example\n'));
  await one(intel);
  routes.set('/list', (_, response) => response.writeHead(503, { 'retry-after': '2' }).end());
  const { result, state } = await one(intel);
  assert.deepEqual(
    [result, state.problem?.code, requests.length - 1],
    ['failed', 'E_INTEL_FETCH', limits.intelFetchTriesMax],
  );
  assert.deepEqual(
    waits.filter((millis) => millis < 10_000),
    [2000, 2000, 4000],
  );
  assert.equal(await listed(intel, 'bad.example'), 1);
  assert.equal((await intel.status())[0]?.health, 'failing');
  wallSeconds += 3601;
  assert.equal((await intel.status())[0]?.health, 'stale');
  await intel.reload();
  const { assessment } = await intel.assess({ value: 'http://bad.example/', bytes: 30 });
  assert.deepEqual([assessment.degraded, assessment.score > 0], [[{ feed: 'f', health: 'stale' }], true]);
});

test('poisoned copies are quarantined, each with its finding, and accepted without the rows found', async () => {
  const cases: readonly (readonly [string, string])[] = [
    ['0.0.0.0/0', 'large part'],
    ['10.1.2.3', 'private'],
    ['::/0', 'large part'],
    ['google.com', 'top domain'],
    ['co.uk', 'public suffix'],
    ['shop.example.com', 'protected'],
    ['198.51.100.0/24', 'protected'],
    ['com', ''],
  ];
  for (const [poison, finding] of cases) {
    const intel = open(
      `${listFeed('    kind: ')}${/\d/.test(poison) || poison.includes(':') ? 'ip' : 'domain'}\n` +
        'protect: [a.shop.example.com, 198.51.100.7]\n',
    );
    const good = poison.match(/\d|:/) ? '192.0.2.1' : 'good.example';
    routes.set('/list', send(`${good}\n`));
    await one(intel);
    routes.set('/list', send(`${good}\n${poison}\n`));
    const { result, state } = await one(intel);
    // A line that is no domain at all never gets as far.
    if (finding === '') {
      assert.equal(result, 'updated');
      continue;
    }
    assert.equal(result, 'quarantined', poison);
    assert.match(state.quarantine?.findings[0]?.text ?? '', new RegExp(finding));
    assert.equal((await intel.status())[0]?.health, 'quarantined');
    assert.equal(await listed(intel, good), 1);
    assert.equal((await one(intel, { accept: true })).result, 'updated');
    assert.equal((await intel.lookup(poison)).hits.length, 0, poison);
    rmSync(join(folder, 'feeds'), { recursive: true });
  }
});

test('sudden growth and sudden loss are quarantined; what the operator tolerates is dropped and counted', async () => {
  const intel = open(listFeed('    tolerate: [private]\n'));
  routes.set('/list', send(`${numbered(1200)}\n10.0.0.1\n`));
  const first = await one(intel);
  assert.deepEqual(
    [first.result, first.state.count, first.state.notes],
    ['updated', 1200, ['1 × rows dropped under `tolerate`']],
  );
  routes.set('/list', send(numbered(7000)));
  assert.equal((await one(intel)).state.quarantine?.findings[0]?.kind, 'growth');
  routes.set('/list', send(numbered(100)));
  assert.equal((await one(intel)).state.quarantine?.findings[0]?.kind, 'shrink');
  assert.equal((await one(intel, { accept: true })).state.count, 100);
  routes.set('/list', send('# nothing\n'));
  assert.equal((await one(intel)).result, 'quarantined');
});

test('TAXII 2.1: pages, then only what was added; revocations, replacements, an expired token', async () => {
  const config =
    `feeds:\n  - name: f\n    format: taxii\n    url: ${base}/api/collections/1/\n` +
    '    auth: {kind: basic, username: reader, tokenEnv: TAXII_TOKEN}\n';
  const indicatorOf = (id: number, value: string, more = {}): object => ({
    type: 'indicator',
    spec_version: '2.1',
    id: `indicator--${id}`,
    pattern: `[domain-name:value = '${value}']`,
    pattern_type: 'stix',
    ...more,
  });
  let added: object[] = [];
  routes.set('/api/collections/1/objects/', (request, response) => {
    const wanted = `Basic ${Buffer.from('reader:s3cret').toString('base64')}`;
    if (request.headers.authorization !== wanted) return response.writeHead(401).end();
    assert.equal(request.headers.accept, 'application/taxii+json;version=2.1');
    const { searchParams } = new URL(request.url ?? '', base);
    const page = (objects: object[], last: string, next?: string): void => {
      response.writeHead(200, {
        'content-type': 'application/taxii+json;version=2.1',
        'x-taxii-date-added-last': last,
      });
      response.end(JSON.stringify({ objects, ...(next === undefined ? {} : { more: true, next }) }));
    };
    if (searchParams.get('added_after') === '2026-01-02T00:00:00.000Z') return page(added, '2026-01-03T00:00:00.000Z');
    if (searchParams.get('next') === 'p2')
      return page([indicatorOf(2, 'two.example'), indicatorOf(3, 'three.example')], '2026-01-02T00:00:00.000Z');
    return page([indicatorOf(1, 'one.example')], '2026-01-01T00:00:00.000Z', 'p2');
  });
  const intel = open(config, { TAXII_TOKEN: 's3cret' });
  const first = await one(intel);
  assert.deepEqual(
    [first.result, first.state.count, first.state.addedAfter],
    ['updated', 3, '2026-01-02T00:00:00.000Z'],
  );
  added = [indicatorOf(1, 'one.example', { revoked: true }), indicatorOf(2, 'two-b.example')];
  assert.equal((await one(intel)).state.count, 2);
  const counts = await Promise.all(
    ['one.example', 'two.example', 'two-b.example', 'three.example'].map((name) => listed(intel, name)),
  );
  assert.deepEqual(counts, [0, 0, 1, 1]);
  for (const [environment, words] of [
    [{ TAXII_TOKEN: 'old' }, 'expired'],
    [{}, 'not set'],
  ] as const) {
    const { result, state } = await one(open(config, environment));
    assert.deepEqual([result, state.problem?.code, state.count], ['failed', 'E_INTEL_AUTH', 2]);
    assert.match(state.problem?.message ?? '', new RegExp(words));
    assert.ok(!JSON.stringify(state).includes('s3cret'));
  }
  routes.set('/api/collections/1/objects/', send('{"more":true,"next":"same","objects":[]}'));
  assert.equal((await one(intel)).state.problem?.code, 'E_INTEL_FORMAT');
});

test('a MISP folder, a STIX bundle and a file on this machine', async () => {
  const uuid = '11111111-2222-4333-8444-555555555555';
  routes.set('/misp/manifest.json', send(JSON.stringify({ [uuid]: { info: 'x' }, '../../etc/passwd': {} })));
  routes.set(
    `/misp/${uuid}.json`,
    send(JSON.stringify({ Event: { Attribute: [{ type: 'md5', value: 'a'.repeat(32), to_ids: true }] } })),
  );
  routes.set(
    '/b.json',
    send(
      JSON.stringify({
        type: 'bundle',
        objects: [{ type: 'indicator', pattern: "[url:value = 'http://a.example/b']" }],
      }),
    ),
  );
  writeFileSync(join(folder, 'hosts'), '0.0.0.0 ads.example\n');
  const intel = open(`feeds:
  - {name: misp, format: misp-feed, url: "${base}/misp/"}
  - {name: stix, format: stix, url: "${base}/b.json"}
  - {name: hosts, format: hosts, path: hosts}
`);
  assert.deepEqual(
    (await sync(intel)).map(({ result, state }) => `${result} ${state.count}`),
    ['updated 1', 'updated 1', 'updated 1'],
  );
  assert.deepEqual(
    (await sync(intel, { only: ['hosts'] })).map(({ result }) => result),
    ['unchanged'],
  );
  assert.equal(await listed(intel, 'A'.repeat(32)), 1);
  assert.equal(await listed(intel, 'http://a.example:80/b#x'), 1);
  const all: string[] = [];
  for await (const { kind, value, source } of intel.list([])) all.push(`${source} ${kind} ${value}`);
  assert.equal(all.length, 3);
});

test('what is not in its format, not what its checksum says, or elsewhere now', async () => {
  const codeOf = async (config: string, answer: Answer): Promise<string | undefined> => {
    routes.set('/list', answer);
    const { result, state } = await one(open(config));
    return result === 'failed' ? state.problem?.code : result;
  };
  const as = (format: string): string => `feeds:\n  - {name: f, format: ${format}, url: "${base}/list"}\n`;
  assert.equal(await codeOf(as('stix'), send('{"type":"bundle","objects":[')), 'E_INTEL_FORMAT');
  assert.equal(await codeOf(as('stix'), send(`${'['.repeat(10_000)}`)), 'E_INTEL_FORMAT');
  assert.equal(await codeOf(as('misp'), send('{"__proto__":{"Attribute":[]}}')), 'E_INTEL_FORMAT');
  assert.equal(await codeOf(as('lines'), send('<html>\n<body>please log in\n</body>\n')), 'E_INTEL_FORMAT');
  assert.equal(await codeOf(listFeed(`    sha256: "${'0'.repeat(64)}"\n`), send('bad.example\n')), 'E_INTEL_SIGNATURE');
  assert.equal(
    await codeOf(as('lines'), (_, response) => response.writeHead(302, { location: '/list' }).end()),
    'E_INTEL_FETCH',
  );
  assert.equal(
    await codeOf(as('lines'), (_, response) => response.writeHead(302, { location: 'file:///etc/passwd' }).end()),
    'E_INTEL_FETCH',
  );
  assert.equal(
    await codeOf(as('lines'), (_, response) => void response.writeHead(200).write('a', () => response.destroy())),
    'E_INTEL_FETCH',
  );
});

test('credentials do not follow a redirect to another origin', async () => {
  const other = createServer((request, response) => {
    requests.push(request);
    response.end('bad.example\n');
  });
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  const location = `http://127.0.0.1:${(other.address() as AddressInfo).port}/`;
  routes.set('/list', (_, response) => response.writeHead(302, { location }).end());
  try {
    const intel = open(listFeed('    auth: {kind: header, header: X-Key, tokenEnv: KEY}\n'), { KEY: 'abc' });
    assert.equal((await one(intel)).result, 'updated');
    assert.deepEqual(
      requests.map(({ headers }) => headers['x-key']),
      ['abc', undefined],
    );
  } finally {
    other.closeAllConnections();
    other.close();
  }
});

test('a feed without an end is cut off at its bound, and what was read of it is not used', async () => {
  const block = `[${'"x",'.repeat(250_000)}`;
  let sent = 0;
  routes.set('/list', (_, response) => {
    const more = (): void => {
      sent += block.length;
      if (!response.destroyed) response.write(block, more);
    };
    response.writeHead(200);
    more();
  });
  const { state } = await one(open(`feeds:\n  - {name: f, format: stix, url: "${base}/list"}\n`));
  assert.equal(state.problem?.code, 'E_INTEL_TOO_LARGE');
  assert.ok(sent < limits.intelDocumentBytesMax + 32 * 1024 * 1024, `${sent} bytes were sent`);
  assert.equal(requests.length, 1, 'it is not tried again');
});

test('without feeds, and for a feed that there is not, sync says so', async () => {
  await assert.rejects(sync(open('')), { code: 'E_INTEL_CONFIG' });
  await assert.rejects(sync(open(listFeed()), { only: ['other'] }), { code: 'E_USAGE' });
});

test('an interrupted pull leaves the last good copy', async () => {
  const intel = open(listFeed());
  routes.set('/list', send('bad.example\n'));
  await one(intel);
  const abort = new AbortController();
  routes.set('/list', (_, response) => {
    response.writeHead(200).write('worse.example\n');
    abort.abort();
  });
  await assert.rejects(sync(intel, { signal: abort.signal }), { code: 'E_INTERRUPTED' });
  assert.equal(await listed(open(listFeed()), 'bad.example'), 1);
});
