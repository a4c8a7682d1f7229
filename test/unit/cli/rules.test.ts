/**
 * Goal: `mayfly rules` and `mayfly profile` as people and scripts meet them, and the examples as the README shows them.
 * Method: the real program with an Io of this test, on the examples and on small files; no VM.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { App } from '../../../src/app.ts';
import type { Io } from '../../../src/cli/io.ts';
import { runProgram } from '../../../src/cli/program.ts';

const root = join(import.meta.dirname, '../../..');
const examples = ['database-trigger', 'image-upload', 'suspicious-attachment', 'webhook'];
const scratch = mkdtempSync(join(tmpdir(), 'mayfly-rules-'));
after(() => rmSync(scratch, { recursive: true }));

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function mayfly(...args: readonly string[]): Promise<Ended> {
  let [out, err] = ['', ''];
  const image = { name: 'node', digest: `sha256:${'1'.repeat(64)}`, runtime: { argv: [] }, manifest: {} };
  const app = {
    repository: async () => ({ images: { get: async () => image } }),
    threat: async () => undefined,
    selectImage: async () => ({ image: 'node', reasons: [{ field: 'image', because: 'default' }] }),
  };
  const io: Io = {
    out: (text) => {
      out += String(text);
    },
    err: (text) => {
      err += String(text);
    },
    outIsTerminal: false,
    errIsTerminal: false,
    colour: false,
    readInput: async () => Buffer.from('{}'),
    signal: new AbortController().signal,
    now: () => 0,
    wallNanos: () => 1_768_478_400_000_000_000n,
    openApp: async () => app as unknown as App,
    examples: join(root, 'examples'),
    version: '9.8.7',
  };
  return { code: await runProgram(io, args), out, err };
}

function written(name: string, text: string): string {
  const path = join(scratch, name);
  writeFileSync(path, text);
  return path;
}

test('examples: their rules load, their tests pass, their events are used', async () => {
  for (const name of examples) {
    const folder = join(root, 'examples', name);
    assert.equal((await mayfly('rules', 'check', folder)).code, 0, name);
    const { code, out } = await mayfly('rules', 'test', folder);
    assert.equal(code, 0, out);
    assert.match(out, /^(\d+) of \1 tests pass$/m);
    const text = readFileSync(join(folder, 'rules.yaml'), 'utf8');
    for (const event of readdirSync(join(folder, 'events')))
      assert.ok(text.includes(`events/${event}`), `${name}/${event}`);
  }
});

test('check: every problem with its line, exit 2; as JSON too', async () => {
  const path = written(
    'bad.yaml',
    'rulesVersion: 1\nrules:\n  - name: a\n    when: event.tpye == "x"\n    then: { score: 1 }\n',
  );
  const { code, err } = await mayfly('rules', 'check', path);
  assert.equal(code, 2);
  assert.match(err, /bad\.yaml:4: when: event has no tpye \(did you mean type\?\)/);
  const json = JSON.parse((await mayfly('rules', 'check', path, '--json')).out) as {
    ok: boolean;
    problems: { line: number }[];
  };
  assert.deepEqual([json.ok, json.problems.map(({ line }) => line)], [false, [4]]);
  assert.match((await mayfly('rules', 'check', join(scratch, 'none'))).err, /E_RULES_INVALID/);
  const used = await mayfly('profile', '--data', '{}', '--rules', path);
  assert.deepEqual([used.code, used.out], [2, '']);
});

test('test: a failing test says what is expected, what is, and why; exit 1', async () => {
  const path = written(
    'failing.yaml',
    `rulesVersion: 1
rules:
  - name: small
    when: true
    then: { lower: { limits.pids: 20 } }
tests:
  - name: wrong
    event: {}
    expect: { profile: { limits.pids: 30 }, level: high, rejected: x }
  - name: less wrong
    event: {}
    expect: { profile: { limits.pids: 30 }, level: high, reasons: [nobody] }
`,
  );
  const { code, out } = await mayfly('rules', 'test', path);
  assert.equal(code, 1);
  assert.match(out, /FAIL wrong\n +\S+:7: expected to be refused/);
  assert.match(out, /limits\.pids: expected 30, is 20 \(rule small \(\S+failing\.yaml:3\) allows at most 20\)/);
  assert.match(out, /expected level high: score 0 of 100, level low/);
  assert.match(out, /no reason mentions "nobody"/);
  assert.match(out, /^0 of 2 tests pass$/m);
});

test('diff: which events would get another profile, and why', async () => {
  const rules = (pids: number): string =>
    `rulesVersion: 1\nrules:\n  - { name: a, when: event.data.n > 5, then: { lower: { limits.pids: ${pids} } } }\n`;
  const [before, changed] = [written('old.yaml', rules(20)), written('new.yaml', rules(10))];
  const events = written('events.jsonl', '{"n": 1}\n{"n": 9}\nnot json\n');
  const { code, out, err } = await mayfly('rules', 'diff', before, changed, '--events', events);
  assert.equal(code, 1);
  assert.match(out, /events\.jsonl:2\n {2}limits\.pids: 20 → 10 \(rule a /);
  assert.match(out, /^1 of 3 events would get another profile; 1 are no events$/m);
  assert.match(err, /events\.jsonl:3: The event is not valid/);
  assert.equal((await mayfly('rules', 'diff', before, before, '--events', events)).code, 0);
});

test('profile: the three faces of it, what is known of the sender, and a refusal', async () => {
  const folder = join(root, 'examples/image-upload');
  const event = join(folder, 'events/large.json');
  const clean = JSON.parse((await mayfly('profile', '--event', event, '--rules', folder)).out) as {
    limits: { memoryBytes: number };
  };
  assert.equal(clean.limits.memoryBytes, 1024 ** 3);
  const listed = await mayfly('profile', '--event', event, '--rules', folder, '--score', '90', '--explain');
  assert.match(
    listed.out,
    /limits\.pids = 32\n│ {2}├─ default \(overruled\)\n│ {2}└─ level critical allows at most 32/,
  );
  const json = JSON.parse((await mayfly('profile', '--data', '{}', '--json')).out) as {
    digest: string;
    reasons: unknown[];
  };
  assert.match(json.digest, /^sha256:/);
  const refused = await mayfly('profile', '--event', join(folder, 'events/program.json'), '--rules', folder);
  assert.equal(refused.code, 2);
  assert.match(refused.err, /E_EVENT_REJECTED.*\n +rule program-as-picture .*a program was uploaded/);
  assert.match((await mayfly('profile', '--data', '{}', '--from', 'colour=red')).err, /E_USAGE/);
  assert.match((await mayfly('profile', '--data', '{}', '--score', '101')).err, /E_USAGE/);
});
