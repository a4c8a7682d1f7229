/**
 * Goal: the public formats are read as they are written: STIX 2.1 patterns and bundles of the kinds of objects that the
 * OASIS examples have, MISP events, and plain lists; and nothing is read as more than it says.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseLine } from '../../../src/intel/blocklist.ts';
import { classify, normalise } from '../../../src/intel/indicator.ts';
import { parseMisp } from '../../../src/intel/misp.ts';
import { formatRecord, parseRecord } from '../../../src/intel/record.ts';
import { parsePattern } from '../../../src/intel/stix-pattern.ts';
import { parseStix } from '../../../src/intel/stix.ts';
import { defaults, indicator } from './rig.ts';

const SHA = 'aec070645fe53ee3b3763059376134f058cc337247c978add178b6ccdfb0019f';

const patterns: readonly (readonly [string, readonly string[]])[] = [
  ["[ipv4-addr:value = '198.51.100.3']", ['ip 198.51.100.3']],
  ["[ipv4-addr:value ISSUBSET '198.51.100.0/24']", ['ip 198.51.100.0/24']],
  ["[ipv6-addr:value = '2001:DB8::1']", ['ip 2001:db8::1']],
  ["[url:value = 'http://X4z9arb.example:80/4712/#top']", ['url http://x4z9arb.example/4712/']],
  ["[domain-name:value IN ('A.example', 'b.example.')]", ['domain a.example', 'domain b.example']],
  ["[email-message:from_ref.value = 'Jane@mail.example']", ['email jane@mail.example']],
  [`[file:hashes.'SHA-256' = '${SHA.toUpperCase()}']`, [`hash ${SHA}`]],
  [
    `[file:hashes.MD5 = '79054025255fb1a26e4bc422aef54eb4' AND file:name = 'x.exe']`,
    ['hash 79054025255fb1a26e4bc422aef54eb4'],
  ],
  [
    "[domain-name:value = 'a.example' OR ipv4-addr:value = '192.0.2.1'] OR [url:value = 'https://a.example/b']",
    ['domain a.example', 'ip 192.0.2.1', 'url https://a.example/b'],
  ],
  ["([domain-name:value = 'a.example']) WITHIN 300 SECONDS", ['domain a.example']],
  // What one event cannot decide says nothing.
  ["[domain-name:value = 'a.example' AND url:value = 'http://a.example/']", []],
  ["[ipv4-addr:value = '192.0.2.1'] FOLLOWEDBY [domain-name:value = 'a.example']", []],
  ["[ipv4-addr:value = '192.0.2.1'] REPEATS 5 TIMES WITHIN 60 SECONDS", []],
  ["[ipv4-addr:value NOT = '192.0.2.1']", []],
  ["[ipv4-addr:value != '192.0.2.1']", []],
  ["[file:name MATCHES '^a+$']", []],
  ["[ipv4-addr:value = '192.0.2.1'] START t'2026-01-01T00:00:00Z' STOP t'2026-02-01T00:00:00Z'", []],
  ["[windows-registry-key:values[*].name = 'x' OR domain-name:value = 'a.example']", ['domain a.example']],
];

test('STIX patterns: every alternative that is enough by itself, and no other', () => {
  for (const [pattern, expected] of patterns) {
    const parsed = parsePattern(pattern);
    assert.ok(parsed.ok, `${pattern}: ${parsed.ok ? '' : parsed.problem}`);
    assert.deepEqual(
      parsed.values.map(({ kind, value }) => `${kind} ${value}`),
      expected,
      pattern,
    );
    if (expected.length === 0) assert.notEqual(parsed.unsupported.length, 0, pattern);
  }
});

test('STIX patterns: malformed ones are refused, deep and long ones too', () => {
  const deep = `${'('.repeat(5000)}[a:b = 'c']${')'.repeat(5000)}`;
  const wide = `[${"domain-name:value = 'a.example' OR ".repeat(2000)}domain-name:value = 'a.example']`;
  for (const pattern of [
    '',
    '[',
    '[]',
    "[ipv4-addr:value = '1",
    'ipv4-addr:value',
    "[a:b = 'c'] x",
    "[a:b IN ('c',)]",
    '§',
    deep,
    wide,
  ]) {
    assert.ok(!parsePattern(pattern).ok, pattern.slice(0, 60));
  }
});

test('a STIX bundle: indicators are kept with what is known of them, everything else is counted', () => {
  const base = { spec_version: '2.1', created: '2026-01-01T00:00:00.000Z', modified: '2026-01-01T00:00:00.000Z' };
  const parsed = parseStix(
    {
      type: 'bundle',
      id: 'bundle--1',
      objects: [
        { ...base, type: 'identity', id: 'identity--1', name: 'ACME' },
        { ...base, type: 'malware', id: 'malware--1', name: 'Poison', is_family: true },
        {
          ...base,
          type: 'relationship',
          id: 'relationship--1',
          source_ref: 'indicator--1',
          target_ref: 'malware--1',
          relationship_type: 'indicates',
        },
        {
          ...base,
          type: 'indicator',
          id: 'indicator--1',
          pattern: "[domain-name:value = 'a.example']",
          pattern_type: 'stix',
          valid_from: '2026-01-01T00:00:00Z',
          valid_until: '2027-01-01T00:00:00Z',
          confidence: 85,
          labels: ['x,y'],
          indicator_types: ['malicious-activity'],
          kill_chain_phases: [{ kill_chain_name: 'k', phase_name: 'delivery' }],
        },
        { ...base, type: 'indicator', id: 'indicator--2', pattern: 'rule a { condition: true }', pattern_type: 'yara' },
        { ...base, type: 'indicator', id: 'indicator--3', pattern: '[', pattern_type: 'stix' },
        {
          ...base,
          type: 'indicator',
          id: 'indicator--4',
          pattern: "[ipv4-addr:value = '192.0.2.1']",
          indicator_types: ['benign'],
        },
        { ...base, type: 'indicator', id: 'indicator--5', revoked: true, pattern: "[ipv4-addr:value = '192.0.2.1']" },
        null,
        7,
      ],
    },
    defaults,
  );
  assert.deepEqual(parsed?.indicators, [
    {
      kind: 'domain',
      value: 'a.example',
      confidence: 85,
      severity: 'high',
      validFrom: 1_767_225_600,
      validUntil: 1_798_761_600,
      labels: ['feed', 'x,y', 'malicious-activity', 'kill-chain:delivery'],
      id: 'indicator--1',
    },
  ]);
  assert.deepEqual(parsed.revoked, ['indicator--5']);
  assert.equal(
    [...parsed.skipped.values()].reduce((sum, count) => sum + count, 0),
    8,
  );
  for (const wrong of [null, 7, [], { type: 'report' }, { objects: {} }])
    assert.equal(parseStix(wrong, defaults), undefined);
});

test('a MISP event: attributes for detection, composite ones by their parts, objects too', () => {
  const parsed = parseMisp(
    {
      Event: {
        uuid: 'u',
        threat_level_id: '1',
        Tag: [{ name: 'tlp:clear' }],
        Attribute: [
          {
            type: 'ip-dst|port',
            value: '192.0.2.9|443',
            to_ids: true,
            uuid: 'a1',
            timestamp: '1700000000',
            category: 'Network activity',
          },
          { type: 'domain|ip', value: 'C2.example|192.0.2.10', to_ids: true },
          { type: 'filename|sha256', value: `x.exe|${SHA}`, to_ids: true },
          { type: 'url', value: 'hxxp://c2[.]example/x', to_ids: true },
          { type: 'ip-src', value: '192.0.2.99', to_ids: false },
          { type: 'comment', value: 'a note', to_ids: true },
          { type: '__proto__', value: 'x', to_ids: true },
        ],
        Object: [{ name: 'email', Attribute: [{ type: 'email-src', value: 'A@mail.example', to_ids: true }] }],
      },
    },
    defaults,
  );
  const found = parsed?.indicators.map(({ kind, value, severity }) => `${kind} ${value} ${severity}`);
  assert.deepEqual(found, [
    'ip 192.0.2.9 critical',
    'domain c2.example critical',
    'ip 192.0.2.10 critical',
    `hash ${SHA} critical`,
    'url http://c2.example/x critical',
    'email a@mail.example critical',
  ]);
  assert.equal(parsed?.indicators[0]?.validFrom, 1_700_000_000);
  assert.equal(parseMisp({ response: [] }, defaults), undefined);
});

test('plain lists: lines, hosts files and CSV', () => {
  const values = (line: string, options: Parameters<typeof parseLine>[1]): string[] | undefined =>
    parseLine(line, options, defaults)?.map(({ kind, value }) => `${kind} ${value}`);
  const lines = { format: 'lines' } as const;
  assert.deepEqual(values('# comment', lines), []);
  assert.deepEqual(values('192.0.2.7/24 ; SBL1', lines), ['ip 192.0.2.0/24']);
  assert.deepEqual(values('192.0.2.7:8080', lines), ['ip 192.0.2.7']);
  assert.deepEqual(values('*.Bad.example', lines), ['domain bad.example']);
  assert.deepEqual(values('<html>', lines), undefined);
  const hosts = { format: 'hosts' } as const;
  assert.deepEqual(values('0.0.0.0 ads.example www.ads.example # x', hosts), [
    'domain ads.example',
    'domain www.ads.example',
  ]);
  assert.deepEqual(values('127.0.0.1 localhost', hosts), []);
  assert.deepEqual(values('nothing here', hosts), undefined);
  const csv = { format: 'csv', column: 2, timeColumn: 0 } as const;
  const [row] = parseLine('"2026-11-24 10:00:00 UTC","x, ""y""","http://a.example/b"', csv, defaults) ?? [];
  assert.deepEqual(
    [row?.kind, row?.value, row?.validFrom],
    ['url', 'http://a.example/b', Date.parse('2026-11-24T10:00:00Z') / 1000],
  );
  assert.deepEqual(values('a;b;192.0.2.1', { format: 'csv', separator: ';' }), ['ip 192.0.2.1']);
});

test('one value has one writing', () => {
  const same: readonly (readonly [Parameters<typeof normalise>[0], string, string])[] = [
    ['ip', '::ffff:192.0.2.1', '192.0.2.1'],
    ['ip', '2001:0DB8:0:0::1', '2001:db8::1'],
    ['ip', '2001:db8::ffff/32', '2001:db8::/32'],
    ['domain', 'BÜCHER.example', 'xn--bcher-kva.example'],
    ['domain', '.a.example.', 'a.example'],
    ['url', 'HTTP://user:pw@A.example.:80/x?y#z', 'http://a.example/x?y'],
    ['url', 'http://0x7f.1/', 'http://127.0.0.1/'],
  ];
  for (const [kind, text, value] of same) assert.equal(normalise(kind, text), value, text);
  for (const text of ['256.1.1.1', '1.2.3', '192.0.2.1/33', 'fe80::1%eth0', '::/129'])
    assert.equal(normalise('ip', text), undefined, text);
  for (const text of ['nodots', 'a..b', `${'a.'.repeat(200)}example`, '1.2.3.4', 'a b.example']) {
    assert.equal(normalise('domain', text), undefined, text);
  }
  assert.equal(classify('javascript:alert(1)'), undefined);
});

test('a record is read back as it was written, whatever is in its labels', () => {
  const one = indicator({ kind: 'domain', value: 'a.example', labels: ['a,b', 'c\td', 'e\nf', ''], id: 'x\ty' });
  const { labels, id, ...rest } = one;
  assert.deepEqual(parseRecord(formatRecord(one)), { ...rest, labels: 'a b,c d,e f', id: 'x y' });
  for (const line of ['', 'ip', 'x\ta\t1\tlow\t0\t0\t\t', 'ip\t1.1.1.1\t101\tlow\t0\t0\t\t'])
    assert.equal(parseRecord(line), undefined);
});
