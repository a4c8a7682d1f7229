/**
 * Goal: what is known is found wherever it stands in an event, and becomes a score that only rises with more threat,
 * is the same every time, and is explained to the point. Method: properties over random indicators, and events made
 * to be bad.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonicalJson, digestOf } from '../../../src/core/json.ts';
import { limits } from '../../../src/core/limits.ts';
import { assess } from '../../../src/intel/assess.ts';
import { levelOf } from '../../../src/profile/levels.ts';
import { IndexBuilder } from '../../../src/intel/index.ts';
import type { Indicator } from '../../../src/intel/indicator.ts';
import { severities } from '../../../src/intel/indicator.ts';
import { observe } from '../../../src/intel/observe.ts';
import type { Observed } from '../../../src/intel/observe.ts';
import { estimateComplexity } from '../../../src/profile/complexity.ts';
import { FRESH, indicator, NOW, snapshotOf } from './rig.ts';

const look = async (value: unknown, sourceAddress?: string): Promise<Observed> =>
  await observe({
    value,
    bytes: JSON.stringify(value).length,
    ...(sourceAddress === undefined ? {} : { sourceAddress }),
  });
const seen = ({ observables }: Observed): string[] => observables.map(({ kind, value }) => `${kind} ${value}`);
const signsOf = ({ signs }: Observed): string[] => signs.map(({ name }) => name).sort();
const base64 = (content: Buffer | string): string => Buffer.from(content).toString('base64');

const values: readonly (readonly [Indicator['kind'], string])[] = [
  ['ip', '192.0.2.0/24'],
  ['ip', '192.0.2.7'],
  ['ip', '0.0.0.0/0'],
  ['ip', '2001:db8::/32'],
  ['domain', 'evil.example'],
  ['domain', 'a.evil.example'],
  ['url', 'http://a.evil.example/x'],
  ['email', 'x@evil.example'],
];
const anyIndicator = fc
  .record({
    at: fc.nat(values.length - 1),
    confidence: fc.nat(100),
    severity: fc.constantFrom(...severities),
    validFrom: fc.integer({ min: 0, max: NOW + 100_000_000 }),
    validUntil: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: NOW + 200_000_000 })),
  })
  .map(({ at, ...more }) => {
    const [kind, value] = values[at] ?? ['ip', '192.0.2.7'];
    return indicator({ kind, value, ...more });
  });
const anyFeeds = fc.array(fc.array(anyIndicator, { maxLength: 6 }), { minLength: 2, maxLength: 4 });
const EVENT = { a: '192.0.2.7', b: ['see http://a.evil.example/x, ask x@evil.example'], c: { d: '2001:db8::5' } };

test('property: another indicator never lowers the score', async () => {
  const observed = await look(EVENT);
  fc.assert(
    fc.property(anyFeeds, fc.nat(3), anyIndicator, (feeds, which, one) => {
      const before = assess({ observed, snapshot: snapshotOf(...feeds), nowSeconds: NOW }).score;
      const more = feeds.map((list, at) => (at === which % feeds.length ? [...list, one] : list));
      assert.ok(assess({ observed, snapshot: snapshotOf(...more), nowSeconds: NOW }).score >= before);
    }),
  );
});

test('property: points add up to the score, and the same arguments give the same digest, in any order', async () => {
  const observed = await look(EVENT);
  fc.assert(
    fc.property(anyFeeds, (feeds) => {
      const one = assess({ observed, snapshot: snapshotOf(...feeds), nowSeconds: NOW });
      const other = assess({
        observed,
        snapshot: snapshotOf(...feeds.map((list) => [...list].reverse())),
        nowSeconds: NOW,
      });
      assert.equal(
        one.reasons.reduce((sum, { points }) => sum + points, 0),
        one.score,
      );
      assert.ok(one.score >= 0 && one.score <= 100);
      assert.equal(
        digestOf(canonicalJson([one.score, one.level, one.reasons])),
        digestOf(canonicalJson([other.score, other.level, other.reasons])),
      );
    }),
  );
});

test('property: the index answers what a plain search through all ranges answers', () => {
  const octets = fc.tuple(fc.nat(3), fc.nat(3), fc.nat(3), fc.nat(3)).map((parts) => parts.join('.'));
  fc.assert(
    fc.property(fc.array(fc.tuple(octets, fc.nat(32)), { maxLength: 40 }), octets, (ranges, address) => {
      const builder = new IndexBuilder(3);
      for (const [at, prefix] of ranges)
        builder.add(0, { ...indicator({ kind: 'ip', value: `${at}/${prefix}` }), labels: '' });
      const bits = (text: string): string =>
        text
          .split('.')
          .map((part) => Number(part).toString(2).padStart(8, '0'))
          .join('');
      const wanted = new Set(
        ranges
          .filter(([at, prefix]) => bits(at).slice(0, prefix) === bits(address).slice(0, prefix))
          .map(([at, prefix]) => bits(at).slice(0, prefix)),
      );
      const hits = builder.build().lookup('ip', address);
      assert.equal(hits.length, wanted.size);
      const lengths = hits.map(({ value }) => Number(value.split('/')[1] ?? 32));
      assert.deepEqual(
        lengths,
        [...lengths].sort((a, b) => b - a),
        'longest first',
      );
    }),
  );
});

test('an indicator holds from its beginning until its end, says less with age, and a source counts once', async () => {
  const observed = await look({ ip: '192.0.2.7' });
  const score = (...feeds: Partial<Indicator>[][]): number =>
    assess({
      observed,
      nowSeconds: NOW,
      snapshot: snapshotOf(
        ...feeds.map((list) => list.map((more) => indicator({ kind: 'ip', value: '192.0.2.7', ...more }))),
      ),
    }).score;
  assert.equal(score([{}]), 64);
  assert.equal(score([{ validUntil: NOW }]), 0);
  assert.equal(score([{ validFrom: NOW + 1 }]), 0);
  assert.equal(score([{ validFrom: NOW - 30 * 86_400 }]), 32);
  assert.equal(score([{}, { value: '192.0.2.0/24' }]), 64, 'one source, one opinion');
  assert.equal(score([{}], [{ value: '192.0.2.0/24' }]), 87, 'noisy-or of two sources');
  assert.equal(score(...Array.from({ length: 64 }, () => [{ confidence: 100, severity: 'critical' as const }])), 100);
  assert.deepEqual([0, 19, 20, 40, 60, 80, 100].map(levelOf), [
    'low',
    'low',
    'guarded',
    'elevated',
    'high',
    'critical',
    'critical',
  ]);
});

test('an index that is full says what is not in it', () => {
  const builder = new IndexBuilder(1, 10, 3);
  for (const value of ['a.example', 'b.example', 'c.example', 'd.example', 'a.example']) {
    builder.add(0, { ...indicator({ kind: 'domain', value }), labels: '' });
  }
  const index = builder.build();
  assert.deepEqual([index.size, index.dropped, index.lookup('domain', 'd.example').length], [3, 2, 0]);
});

test('a feed that is not fresh is said', () => {
  const snapshot = snapshotOf([]);
  const feeds = [{ ...FRESH, name: 'old', health: 'stale' as const }];
  const observed = { observables: [], attachments: [], signs: [], depth: 1, nodes: 1, bytes: 2 };
  const { degraded } = assess({ observed, snapshot: { ...snapshot, feeds }, nowSeconds: NOW });
  assert.deepEqual(degraded, [{ feed: 'old', health: 'stale' }]);
});

test('observables are found wherever they stand, also inside base64 inside JSON inside base64', async () => {
  const inner = JSON.stringify({
    note: 'call home to http://C2.example:80/p and 203.0.113.5',
    padding: 'x'.repeat(40),
  });
  const outer = JSON.stringify({ file: { filename: 'a.json', content: base64(inner) }, more: 'x'.repeat(40) });
  const observed = await look(
    { data_base64: base64(outer), 'key.evil.example': 1, t: 'hxxp://b[.]example/q' },
    '::ffff:198.51.100.9',
  );
  for (const wanted of [
    'ip 198.51.100.9',
    'url http://c2.example/p',
    'domain c2.example',
    'ip 203.0.113.5',
    'domain key.evil.example',
    'url http://b.example/q',
  ])
    assert.ok(seen(observed).includes(wanted), `${wanted} in ${seen(observed)}`);
  assert.deepEqual(
    observed.attachments.map(({ where }) => where),
    ['data_base64', 'data_base64.file.content'],
  );
});

test('keys of prototypes are data: seen, scored, harmless', async () => {
  const observed = await look(JSON.parse('{"__proto__":{"polluted":"192.0.2.1"},"constructor":{"prototype":{"x":1}}}'));
  assert.equal(({} as Record<string, unknown>)['polluted'], undefined);
  assert.ok(seen(observed).includes('ip 192.0.2.1'));
  assert.deepEqual(signsOf(observed), ['prototype-key', 'prototype-key']);
});

test('an event of any depth and size ends, and what was not seen is said', async () => {
  let deep: unknown = 'http://deep.example/';
  for (let level = 0; level < 10_000; level++) deep = level % 2 === 0 ? { n: deep } : [deep];
  const big = { deep, text: 'a.b-c@d:e '.repeat(1_000_000) };
  const from = performance.now();
  const observed = await observe({ value: big, bytes: 10_000_000 });
  assert.ok(performance.now() - from < 20_000);
  assert.deepEqual(signsOf(observed), ['not-fully-seen', 'not-fully-seen', 'not-fully-seen']);
  assert.equal(observed.depth, limits.observeDepthMax + 1);
  const wide = await observe({ value: Array.from({ length: 300_000 }, (_, at) => at), bytes: 2_000_000 });
  assert.ok(wide.nodes <= limits.observeNodesMax + 1);
});

test('patterns do not slow down on texts made for it', async () => {
  for (const text of [
    'a'.repeat(1e6),
    'a.'.repeat(5e5),
    '1.'.repeat(5e5),
    ':'.repeat(1e6),
    'a@'.repeat(5e5),
    'a-'.repeat(5e5),
    'http://'.repeat(1e5),
    `${'a'.repeat(63)}.`.repeat(1e4),
    'a@a.'.repeat(2e5),
    '0'.repeat(1e6),
  ]) {
    const from = performance.now();
    await look({ text });
    assert.ok(performance.now() - from < 5000, text.slice(0, 20));
  }
});

test('content is judged by its bytes', async () => {
  const file = async (name: string, contentType: string, content: Buffer | string): Promise<string[]> =>
    signsOf(await look({ name, contentType, content: base64(content) }));
  const elf = Buffer.concat([Buffer.from('\x7fELF\x02\x01\x01'), Buffer.alloc(100), Buffer.from('Az')]);
  const png = Buffer.from(
    'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
    'base64',
  );
  assert.deepEqual(await file('a.png', 'image/png', png), []);
  assert.deepEqual(await file('report.pdf', 'application/pdf', elf), ['disguised-executable']);
  assert.deepEqual(await file('a.png', 'image/png', Buffer.concat([png, Buffer.from('<?php system($_GET[0]); ?>')])), [
    'script-in-image',
  ]);
  assert.deepEqual(await file('a.jpg', 'image/jpeg', png), ['type-mismatch']);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script>${'<!-- -->'.repeat(5)}</svg>`;
  assert.deepEqual(await file('a.svg', 'image/svg+xml', svg), ['script-in-image']);
  assert.deepEqual(
    await file('a.pdf', 'application/pdf', `%PDF-1.7\n1 0 obj<</OpenAction 2 0 R/JS(app.alert(1))>>${' '.repeat(40)}`),
    ['active-document'],
  );
  assert.deepEqual(
    await file('invoice.pdf.exe', '', `plain words, no program at all. ${'x'.repeat(40)} Z`),
    ['disguised-executable'].slice(1).concat('double-extension', 'executable'),
  );
});

test('archives are judged by their table of contents, real ones made by zip and tar', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-archive-'));
  try {
    const at = (name: string): string => join(folder, name);
    writeFileSync(at('run.exe'), 'x');
    writeFileSync(at('vbaProject.bin'), 'x');
    writeFileSync(at('zeros'), Buffer.alloc(60 * 1024 * 1024));
    const archive = async (program: string, ...args: string[]): Promise<string[]> => {
      execFileSync(program, args, { cwd: folder });
      const observed = await look({
        content: base64(readFileSync(at(args.find((arg) => /\.(zip|tar|gz)$/.test(arg)) ?? ''))),
      });
      return [...signsOf(observed), observed.attachments[0]?.type ?? ''];
    };
    assert.deepEqual(await archive('tar', 'cf', 'a.tar', 'run.exe'), [
      'archive-executable',
      'executable',
      'application/x-tar',
    ]);
    assert.deepEqual(await archive('tar', 'cPf', 'b.tar', '--transform=s,^,../../,', 'vbaProject.bin'), [
      'archive-path',
      'application/x-tar',
    ]);
    assert.deepEqual(await archive('python3', '-m', 'zipfile', '-c', 'c.zip', 'run.exe', 'vbaProject.bin'), [
      'archive-executable',
      'executable',
      'macro',
      'application/zip',
    ]);
    const bomb = [
      'import zipfile,sys',
      'z=zipfile.ZipFile("d.zip","w",zipfile.ZIP_DEFLATED)',
      'z.write("zeros")',
      'z.close()',
    ].join('\n');
    execFileSync('python3', ['-c', bomb], { cwd: folder });
    assert.deepEqual(signsOf(await look({ content: base64(readFileSync(at('d.zip'))) })), [
      'archive-bomb',
      'not-fully-seen',
    ]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('complexity is the same every time, grows with the event, and history replaces the guess', () => {
  const base = { bytes: 4096, depth: 4, nodes: 50, attachments: [], functionClass: 'web' } as const;
  fc.assert(
    fc.property(fc.nat(1e7), fc.nat(200), fc.nat(1e5), fc.nat(1e7), (bytes, depth, nodes, size) => {
      const attachments = [{ type: 'image/png', bytes: size, unpackedBytes: size }];
      const small = estimateComplexity({ ...base, bytes, depth, nodes, attachments });
      const large = estimateComplexity({
        ...base,
        bytes: bytes * 2,
        depth: depth + 9,
        nodes: nodes * 2,
        attachments: [...attachments, ...attachments],
      });
      assert.ok(large.value >= small.value && small.value >= 0 && large.value <= 100);
      assert.deepEqual(small, estimateComplexity({ ...base, bytes, depth, nodes, attachments }));
    }),
  );
  const history = { runs: 100, cpu: 0.2, memory: 0.9, wall: 0.1 };
  assert.deepEqual(estimateComplexity({ ...base, history: { ...history, runs: 3 } }), estimateComplexity(base));
  const { cpu, memory } = estimateComplexity({ ...base, history }).share;
  assert.ok(Math.abs(cpu - 0.3) < 1e-9 && memory === 1);
});
