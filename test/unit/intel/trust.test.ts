/**
 * Goal: a feed is what its publisher has signed, no older and no larger than it may be, and is pulled in its time.
 * Method: as in sync.test.ts; signatures of the real minisign.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { after, before, beforeEach, test } from 'node:test';
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

test('a feed of 2 GB is refused before it is read, from a file and from a server', async () => {
  writeFileSync(join(folder, 'big'), '');
  truncateSync(join(folder, 'big'), 2 * 1024 ** 3);
  routes.set('/list', (_, response) => response.writeHead(200, { 'content-length': 2 * 1024 ** 3 }).flushHeaders());
  const from = performance.now();
  for (const where of ['path: big', `url: "${base}/list"`]) {
    const { state } = await one(open(`feeds:\n  - {name: f, format: lines, ${where}}\n`));
    assert.equal(state.problem?.code, 'E_INTEL_TOO_LARGE', where);
    assert.match(state.problem?.message ?? '', /2147483648 bytes.*at most 536870912/);
  }
  assert.ok(performance.now() - from < 5000);
});

test('a copy of some size becomes an index in a thread of its own, with the same answers', async () => {
  routes.set('/list', send(`${numbered(limits.intelThreadRowsMin)}\n192.0.2.0/24\n`));
  const intel = open(listFeed());
  assert.equal((await one(intel)).state.count, limits.intelThreadRowsMin + 1);
  assert.deepEqual(
    await Promise.all(['h0.example', 'www.h4999.example', '192.0.2.9', '192.0.3.1'].map((v) => listed(intel, v))),
    [1, 1, 1, 0],
  );
});

/** Made by minisign 0.11: `minisign -S -m list.txt -t …`. */
const SIGNED = {
  key: 'RWQ4LGlGMU6S/yCzRetyfbzVFsdDRrR6G2NDdntYegBLvJKvZ8zXPGKw',
  list: '203.0.113.7\nbad.example\n',
  signature: `untrusted comment: signature from minisign secret key
RUQ4LGlGMU6S/w77IcgDrZiq6dAIGsdGlCrxYZSWAkzODQWOvB/yCf7xAKT2oY3E+vO02C0UetrYIt7F1fhFte4AqPijAJrgvgo=
trusted comment: timestamp:1795000000\tfile:list.txt\thashed
h05NFiQLJ62X6Gio7UVIV3pSOZJqT9dvzUCLox3jujaujpv3fDe/jlVanQUKfljv+Nt7EdWrV5uzm/zF6siMDA==
`,
};

test('a signed feed: what minisign has signed is taken, anything else refused, and the good copy stays', async () => {
  const config = listFeed(`    minisign: ${SIGNED.key}\n`);
  routes.set('/list', send(SIGNED.list));
  routes.set('/list.minisig', send(SIGNED.signature));
  const intel = open(config);
  const first = await one(intel);
  assert.deepEqual([first.result, first.state.signedAt], ['updated', 1_795_000_000]);
  const lines = SIGNED.signature.split('\n');
  const changed = (at: number, from: string, to: string): string =>
    lines.map((line, index) => (index === at ? line.replace(from, to) : line)).join('\n');
  const attempts: readonly (readonly [list: string, signature: string, said: RegExp])[] = [
    [`${SIGNED.list}google.example\n`, SIGNED.signature, /not over this content/],
    [SIGNED.list, changed(2, '1795000000', '1895000000'), /its comment was changed/],
    [SIGNED.list, changed(1, 'RUQ4', 'RUQ5'), /another key/],
    [SIGNED.list, changed(1, 'RUQ', 'RWQ'), /old form/],
    [SIGNED.list, '<html>', /no minisign file/],
    [SIGNED.list, `${SIGNED.signature}${'x'.repeat(5000)}`, /at most 4096/],
  ];
  for (const [list, signature, said] of attempts) {
    routes.set('/list', send(list));
    routes.set('/list.minisig', send(signature));
    const { result, state } = await one(intel);
    assert.deepEqual([result, state.count], ['failed', 2]);
    assert.match(`${state.problem?.code} ${state.problem?.message}`, said);
    assert.equal(await listed(intel, 'bad.example'), 1);
  }
  routes.delete('/list.minisig');
  assert.equal((await one(intel)).state.problem?.code, 'E_INTEL_FETCH');
});

test('an old signed copy does not come back', async () => {
  const config = listFeed(`    minisign: ${SIGNED.key}\n`);
  routes.set('/list', send(SIGNED.list));
  routes.set('/list.minisig', send(SIGNED.signature));
  const { state } = await one(open(config));
  // As if a later copy had been taken meanwhile.
  const later = { ...state, signedAt: state.signedAt + 1, etag: '' };
  writeFileSync(join(folder, 'feeds/f/state.json'), JSON.stringify(later));
  const again = await one(open(config));
  assert.deepEqual([again.result, again.state.problem?.code], ['failed', 'E_INTEL_SIGNATURE']);
  assert.match(again.state.problem?.message ?? '', /older than the copy in use/);
});

test('on a schedule: each feed in its time, a failing one ever less often, a changed one at once', async () => {
  let down = false;
  routes.set('/list', (_, response) => (down ? response.writeHead(404).end() : response.end('bad.example\n')));
  writeFileSync(join(folder, 'own.txt'), 'worse.example\n');
  const config = `${listFeed('    every: 10m\n')}  - {name: own, format: lines, path: own.txt, every: 1d}\n`;
  const intel = open(config);
  const due = async (): Promise<string[]> =>
    (await intel.sync({ only: [], due: true, accept: false, signal: new AbortController().signal })).map(
      ({ name, result }) => `${name} ${result}`,
    );
  assert.deepEqual(await due(), ['f updated', 'own updated']);
  assert.deepEqual(await due(), []);
  wallSeconds += 599;
  assert.deepEqual(await due(), []);
  wallSeconds += 1;
  assert.deepEqual(await due(), ['f updated']);
  down = true;
  wallSeconds += 600;
  assert.deepEqual(await due(), ['f failed']);
  const pauses: number[] = [];
  for (let failure = 0; failure < 5; failure++) {
    const from = wallSeconds;
    while ((await due()).length === 0) wallSeconds += 60;
    pauses.push(wallSeconds - from);
  }
  assert.deepEqual(pauses, [60, 120, 240, 480, 960]);
  writeFileSync(join(folder, 'feeds.yaml'), config.replace('name: own,', 'name: own, confidence: 9,'));
  assert.deepEqual(await due(), ['own updated']);
});

test('watch pulls until it is told to stop, and a configuration that breaks meanwhile does not end it', async () => {
  routes.set('/list', send('bad.example\n'));
  const intel = open(listFeed());
  const stop = new AbortController();
  const told: string[] = [];
  const watching = intel.watch({
    signal: stop.signal,
    done: ({ name, result }) => {
      told.push(`${name} ${result}`);
      writeFileSync(join(folder, 'feeds.yaml'), 'feeds: [');
    },
    failed: ({ code }) => {
      told.push(code);
      stop.abort();
    },
  });
  await watching;
  assert.deepEqual(told, ['f updated', 'E_INTEL_CONFIG']);
});
