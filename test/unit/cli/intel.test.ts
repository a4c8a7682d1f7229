/**
 * Goal: `mayfly intel` and `mayfly profile` with feeds, as people and scripts meet them: exit codes, what is on stdout,
 * and the reasons of a profile. Method: the real program and the real App on a home of its own with small feeds; only
 * the repository of images is made up, because nothing runs.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { after, beforeEach, test } from 'node:test';
import { App } from '../../../src/app.ts';
import type { Io } from '../../../src/cli/io.ts';
import { runProgram } from '../../../src/cli/program.ts';
import { createDisk } from '../../../src/core/disk.ts';
import { createProcesses } from '../../../src/release/processes.ts';
import { NOW } from '../intel/rig.ts';

let home = '';
beforeEach(() => {
  if (home !== '') rmSync(home, { recursive: true });
  home = mkdtempSync(join(tmpdir(), 'mayfly-cli-intel-'));
  mkdirSync(join(home, 'intel'));
});
after(() => rmSync(home, { recursive: true, force: true }));

let wallSeconds = NOW;

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function mayfly(...args: readonly string[]): Promise<Ended> {
  let [out, err] = ['', ''];
  const clock = {
    now: () => performance.now(),
    wallNanos: () => BigInt(wallSeconds) * 1_000_000_000n,
    after(millis: number, fire: () => void) {
      const timer = setTimeout(fire, millis);
      return () => clearTimeout(timer);
    },
  };
  const app = new App({
    home, clock, random: { bytes: (size) => randomBytes(size) }, disk: createDisk(), processes: createProcesses(),
    euid: 0, pid: process.pid, environment: () => undefined,
  }, undefined);
  const image = { name: 'node', digest: `sha256:${'1'.repeat(64)}`, runtime: { argv: [] }, manifest: {} };
  Object.assign(app, {
    repository: async () => ({ images: { get: async () => image } }),
    selectImage: async () => ({ image: 'node', reasons: [{ field: 'image', because: 'default' }] }),
  });
  const io: Io = {
    out: (text) => void (out += String(text)),
    err: (text) => void (err += String(text)),
    outIsTerminal: false, errIsTerminal: false, colour: false,
    readInput: async () => Buffer.from('{}'),
    signal: new AbortController().signal,
    now: () => 0, wallNanos: () => clock.wallNanos(),
    openApp: async () => app,
    examples: home,
    version: '9.8.7',
  };
  return { code: await runProgram(io, args), out, err };
}

function feeds(text: string, files: Readonly<Record<string, string>> = {}): void {
  writeFileSync(join(home, 'intel/feeds.yaml'), text);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(home, 'intel', name), content);
}

const TWO = `feeds:
  - { name: ips, format: lines, path: ips.txt, confidence: 90, severity: critical, labels: [c2] }
  - { name: names, format: lines, path: names.txt, confidence: 60, severity: medium }
`;

async function synced(): Promise<void> {
  wallSeconds = NOW;
  feeds(TWO, { 'ips.txt': '203.0.113.0/28\n198.51.100.4\n', 'names.txt': 'bad.example\n' });
  const { code, err } = await mayfly('intel', 'sync');
  assert.deepEqual([code, err], [0, 'updated      ips: 2 indicators\nupdated      names: 1 indicators\n']);
}

test('sync, status, list and lookup', async () => {
  await synced();
  assert.deepEqual(await mayfly('intel', 'sync', 'ips'), { code: 0, out: '', err: 'unchanged    ips: 2 indicators\n' });
  const status = await mayfly('intel', 'status');
  assert.equal(status.code, 0);
  assert.match(status.out, /^ips +fresh +2 {2}2026-.*\nnames +fresh +1 {2}2026-/);
  const list = await mayfly('intel', 'list', '--json');
  assert.deepEqual(list.out.trim().split('\n').map((line) => (JSON.parse(line) as { value: string }).value),
    ['203.0.113.0/28', '198.51.100.4', 'bad.example']);
  assert.match((await mayfly('intel', 'list', '--limit', '1')).err, /there are more; --limit 1 are shown/);
  const found = await mayfly('intel', 'lookup', 'hxxp://www.bad[.]example/'.replace('hxxp://', '').replace('/', ''));
  assert.deepEqual([found.code, found.out], [0, 'domain bad.example  medium/60  names\n']);
  assert.deepEqual(await mayfly('intel', 'lookup', '203.0.113.16'),
    { code: 1, out: 'ip 203.0.113.16 is not listed\n', err: '' });
});

test('status ends with 3 when a feed is stale, and says so; a run then gets no more than before', async () => {
  await synced();
  wallSeconds = NOW + 3 * 86_400;
  const { code, out } = await mayfly('intel', 'status', '--json');
  assert.equal(code, 3);
  assert.deepEqual((JSON.parse(out) as { health: string }[]).map(({ health }) => health), ['stale', 'stale']);
  const { out: tree } = await mayfly('profile', '--data', '{}', '--explain');
  assert.match(tree, /score 0 of 100, level guarded\n.*at least level guarded: not everything is known\n/);
  assert.match(tree, /feed ips is stale/);
});

test('a poisoned copy: an alarm with what was found, exit 3; --accept needs a name', async () => {
  feeds(TWO, { 'ips.txt': '192.168.0.1\n', 'names.txt': 'bad.example\n' });
  const { code, err } = await mayfly('intel', 'sync');
  assert.equal(code, 3);
  assert.match(err, /ALARM +ips: E_INTEL_QUARANTINED.*there is no good copy\n +192\.168\.0\.1 is private or reserved/);
  const refused = await mayfly('intel', 'sync', '--accept');
  assert.equal(refused.code, 2);
  assert.match(refused.err, /--accept needs the name/);
});

const configs: readonly (readonly [text: string, said: RegExp])[] = [
  ['feeds: {}', /`feeds` must be a list/],
  ['feeds: [{ name: A, format: lines, path: x }]', /line 1: name "A"/],
  ['feeds: [{ name: a, format: nonsense, path: x }]', /format "nonsense": one of lines, hosts/],
  ['feeds: [{ name: a, format: lines, path: x, deny: perhaps }]', /deny must be true or false/],
  ['whenDegraded: panic', /whenDegraded "panic": one of low, guarded/],
  ['feeds: [', /line 1: /],
];

test('a configuration that cannot be used: what and where, exit 2, also for a profile', async () => {
  for (const [text, said] of configs) {
    feeds(text);
    for (const args of [['intel', 'status'], ['profile', '--data', '{}']]) {
      const { code, err } = await mayfly(...args);
      assert.equal(code, 2, `${text}: ${err}`);
      assert.match(err, /E_INTEL_CONFIG/);
      assert.match(err, said);
    }
  }
});

test('profile: three events, three profiles, and a tree that names the feed and its confidence', async () => {
  await synced();
  const allow = ['--allow', '*.example'];
  const clean = await mayfly('profile', '--data', '{"n":1}', '--from', 'ip=192.0.2.1', '--explain', ...allow);
  const source = await mayfly('profile', '--data', '{"n":1}', '--from', 'ip=203.0.113.5', '--explain', ...allow);
  const link = await mayfly('profile', '--data', '{"u":"http://x.bad.example/"}', '--explain', ...allow);
  assert.match(clean.out, /score 0 of 100, level low/);
  assert.match(clean.out, /forensics\.capture = never/);
  assert.match(source.out, /score 90 of 100, level critical/);
  assert.match(source.out, /\+90 ip 203\.0\.113\.5 \(listed as 203\.0\.113\.0\/28\) at source address: ips, critical/);
  assert.match(source.out, /limits\.pids = 32\n.*default \(overruled\)\n.*level critical allows at most 32/);
  assert.match(source.out, /forensics\.capture = always/);
  assert.match(link.out, /denied: bad\.example is listed by names \(medium, confidence 60\)/);
  const json = await mayfly('profile', '--data', '{"u":"http://x.bad.example/"}', '--json', ...allow);
  const { network } = JSON.parse(json.out) as { network: { rules: unknown[] } };
  assert.deepEqual(network.rules.slice(1),
    [{ action: 'deny', host: 'bad.example' }, { action: 'deny', host: '*.bad.example' }]);
});

test('rules see the score and the matched indicators', async () => {
  await synced();
  const rules = join(home, 'rules.yaml');
  writeFileSync(rules, `rulesVersion: 1
rules:
  - name: known-c2
    when: indicators.exists(i, i.source == "ips" && i.labels.exists(l, l == "c2")) && score >= 50
    then: { lower: { limits.wallMillis: 2s } }
`);
  const { out } = await mayfly('profile', '--data', '{}', '--from', 'ip=198.51.100.4', '--rules', rules, '--explain');
  assert.match(out, /rule known-c2 \(.*rules\.yaml:3\) allows at most 2 s/);
  const other = await mayfly('profile', '--data', '{}', '--from', 'ip=192.0.2.1', '--rules', rules, '--explain');
  assert.doesNotMatch(other.out, /known-c2/);
});

test('without feeds.yaml there is no intelligence and no word of it', async () => {
  const { code, out } = await mayfly('profile', '--data', '{}', '--from', 'ip=203.0.113.5', '--explain');
  assert.equal(code, 0);
  assert.match(out, /├─ threat\n│ {2}└─ score 0 of 100, level low\n├─ limits/);
});

test('score: the event explained, nothing runs', async () => {
  await synced();
  const path = join(home, 'e.json');
  writeFileSync(path, '{"u":"http://bad.example/"}');
  const { out } = await mayfly('intel', 'score', '--event', path, '--source', '198.51.100.4');
  assert.match(out, /^threat 9\d of 100: critical\n +\d+ {2}ip 198\.51\.100\.4 at source address: ips/);
  assert.match(out, /complexity \d+ of 100/);
  assert.equal((await mayfly('intel', 'score', '--event', join(home, 'none.json'))).code, 2);
});
