/**
 * Goal: one meaning for every spelling of a host, special addresses out of reach unless their exact range is named,
 * deny before allow. Method: tables for what people and attackers write, properties for what must hold of any rules.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { explainConnection } from '../../../src/egress/explain.ts';
import { parseCidr, parseHost, specialRange } from '../../../src/egress/host.ts';
import { parseAllowList, parseNetworkFile } from '../../../src/egress/parse.ts';
import { decide, plainPath } from '../../../src/egress/policy.ts';
import type { Destination } from '../../../src/egress/policy.ts';
import type { NetworkPolicy } from '../../../src/profile/network.ts';

const policy = (value: unknown): NetworkPolicy => parseNetworkFile(JSON.stringify(value));

test('B7: every spelling of a host is one host', () => {
  const table: Readonly<Record<string, string | undefined>> = {
    'EXAMPLE.com.': 'example.com', 'Bücher.example': 'xn--bcher-kva.example', 'ｅxample．com': 'example.com',
    '_dmarc.example.com': '_dmarc.example.com', '127.1': '127.0.0.1', '0x7f.1': '127.0.0.1', '0177.0.0.1': '127.0.0.1',
    '2130706433': '127.0.0.1', '127.0.0.1.': '127.0.0.1',
    '::ffff:127.0.0.1': '127.0.0.1', '[::ffff:7f00:1]': '127.0.0.1',
    '[::1]': '::1', '0:0:0:0:0:0:0:1': '::1',
    'a\0b': undefined, 'example.com\0.allowed.test': undefined, 'a b': undefined, 'ex..com': undefined, '': undefined,
    '256.1.1.1': undefined, 'fe80::1%eth0': undefined, '-a.com': undefined, [`${'a'.repeat(64)}.com`]: undefined,
    'a/b': undefined, 'user@host': undefined, '[::1': undefined, '1.2.3.4:80': undefined, 'x.123': undefined,
  };
  for (const [text, wanted] of Object.entries(table)) {
    const host = parseHost(text);
    assert.equal(host?.kind === 'name' ? host.name : host?.address, wanted, JSON.stringify(text));
  }
});

test('property: a host that was read is read as itself', () => {
  fc.assert(fc.property(fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6(), fc.string()), (text) => {
    const host = parseHost(text);
    if (host !== undefined) assert.deepEqual(parseHost(host.kind === 'name' ? host.name : host.address), host);
  }));
});

test('ranges: canonical, and without bits beyond their prefix', () => {
  const table: Readonly<Record<string, string | undefined>> = {
    '10.0.0.0/8': '10.0.0.0/8', '::ffff:10.0.0.0/104': '10.0.0.0/8', '192.0.2.7': '192.0.2.7/32', '::1': '::1/128',
    '10.0.0.1/8': undefined, '1.2.3.4/33': undefined, '::/129': undefined, '1.2.3.4/': undefined, 'a/8': undefined,
    '10.0.0.0/8/8': undefined, '::ffff:10.0.0.0/90': undefined,
  };
  for (const [text, wanted] of Object.entries(table)) assert.equal(parseCidr(text), wanted, text);
});

const SPECIAL = [
  '127.0.0.1', '10.1.2.3', '172.16.0.1', '192.168.0.1', '169.254.169.254', '100.64.0.1', '224.0.0.1', '0.0.0.0',
  '255.255.255.255', '198.18.0.1', '192.0.0.192', '::', '::1', 'fd00:ec2::254', 'fe80::1', 'fec0::1', 'ff02::1',
  '::7f00:1',   '64:ff9b::7f00:1', '64:ff9b:1::7f00:1', '2002:7f00:1::', '2001::1', '2001:db8::1', '100::1', '4000::1',
];

test('B3: special addresses are denied before any allow', () => {
  const all = [{ allow: '0.0.0.0/0' }, { allow: '::/0' }, { allow: '*' }];
  const everything = [policy({ mode: 'audit' }), policy({ rules: all })];
  for (const address of SPECIAL) {
    assert.notEqual(specialRange(address), undefined, address);
    for (const rules of everything) {
      for (const name of [undefined, 'a.test']) {
        const decision = decide(rules, { name, address, port: 80 });
        assert.equal(decision.allowed, false, `${address}: ${decision.because}`);
      }
    }
  }
  for (const address of ['8.8.8.8', '2606:4700::1111']) assert.equal(specialRange(address), undefined, address);
});

test('a private range opens for exactly what its rule names', () => {
  const rules = policy({ rules: [{ allow: 'db.test:5432', cidr: '10.0.7.0/24', private: true }, { allow: '*.test' }] });
  const verdict = (name: string | undefined, address: string, port: number): boolean =>
    decide(rules, { name, address, port }).allowed;
  assert.equal(verdict('db.test', '10.0.7.9', 5432), true);
  assert.equal(verdict('db.test', '10.0.8.9', 5432), false);
  assert.equal(verdict('db.test', '10.0.7.9', 5433), false);
  assert.equal(verdict('other.test', '10.0.7.9', 5432), false);
  assert.equal(verdict(undefined, '10.0.7.9', 5432), false);
  assert.equal(verdict('db.test', '8.8.8.8', 80), true);
});

test('deny beats allow wherever it stands; wildcards mean what is below', () => {
  const rules = policy({
    rules: [{ allow: '*.example.com' }, { deny: 'admin.example.com' }, { deny: '*', ports: ['25'] }],
  });
  const verdict = (name: string, port: number): string => decide(rules, { name, address: '8.8.8.8', port }).because;
  assert.equal(verdict('a.b.example.com', 443), 'rule 1: allow *.example.com');
  assert.equal(verdict('admin.example.com', 443), 'rule 2: deny admin.example.com');
  assert.equal(verdict('a.example.com', 25), 'rule 3: deny *:25');
  assert.equal(verdict('example.com', 443), 'no rule allows it');
  assert.equal(verdict('badexample.com', 443), 'no rule allows it');
});

test('what is not known yet: allowed for the time being only if a rule may still allow it', () => {
  const rules = policy({
    rules: [{ allow: 'a.test:443', cidr: '8.8.8.0/24' }, { deny: 'b.test:22' }, { allow: 'b.test' }],
  });
  const early = (name: string): boolean => decide(rules, { name, address: undefined, port: undefined }).allowed;
  assert.deepEqual(['a.test', 'b.test', 'c.test'].map(early), [true, true, false]);
  assert.equal(decide(rules, { name: 'a.test', address: '9.9.9.9', port: 443 }).allowed, false);
});

const rule = fc.record({
  action: fc.constantFrom('allow', 'deny'),
  where: fc.constantFrom('a.test', '*.test', '*', '8.8.8.0/24', '0.0.0.0/0', 'b.example'),
  ports: fc.option(fc.constantFrom('80', '1-100', '443'), { nil: undefined }),
}).map(({ action, where, ports }) => ({ [action]: where, ...(ports === undefined ? {} : { ports }) }));
const destination: fc.Arbitrary<Destination> = fc.record({
  name: fc.constantFrom('a.test', 'x.test', 'b.example', undefined),
  address: fc.constantFrom('8.8.8.8', '9.9.9.9', '127.0.0.1'),
  port: fc.constantFrom(80, 443, 8080),
});

test('property: order means nothing, one more deny never allows, one more allow never denies', () => {
  const list = fc.array(rule, { maxLength: 6 });
  fc.assert(fc.property(list, destination, fc.constantFrom('rules', 'audit'), (rules, where, mode) => {
    const verdict = (tried: readonly unknown[]): boolean => decide(policy({ mode, rules: tried }), where).allowed;
    const before = verdict(rules);
    assert.equal(verdict(rules.toReversed()), before);
    assert.ok(!verdict([...rules, { deny: '*' }, { deny: '0.0.0.0/0' }]));
    if (before) assert.ok(verdict([...rules, { allow: 'c.example' }]));
    if (where.address === '127.0.0.1') assert.equal(before, false);
  }));
});

test('what is wrong with a policy is said', () => {
  const table: Readonly<Record<string, RegExp>> = {
    '{': /not JSON/, '[]': /must be an object/, '{"mode":"all"}': /mode must be/, '{"rule":[]}': /unknown field "rule"/,
    '{"rules":[{}]}': /rule 1 must have one of allow and deny/, '{"rules":[{"allow":"a","deny":"b"}]}': /one of/,
    '{"rules":[{"allow":"a b"}]}': /is no host/, '{"rules":[{"allow":"a.test:0"}]}': /no port/,
    '{"rules":[{"allow":"a.test:9-1"}]}': /no port/,
    '{"rules":[{"allow":"*.com"}]}': /everyone who has a name below com/,
    '{"rules":[{"allow":"*.co.uk"}]}': /below co\.uk/, '{"rules":[{"allow":"a.test","private":true}]}': /exact range/,
    '{"rules":[{"allow":"a.test","cidr":"10.0.0.1/8"}]}': /bits beyond/, '{"limits":{"bytes":-1}}': /whole number/,
    '{"rules":[{"allow":"a\\u0000.test"}]}': /is no host/,
    '{"rules":[{"allow":"a.test","protocol":"udp"}]}': /protocol must be/,
    '{"rules":[{"allow":"a.test","protocol":"tls","methods":"GET"}]}': /only HTTP has methods/,
    '{"rules":[{"allow":"a.test","methods":["get"]}]}': /no method "get"/,
    '{"rules":[{"allow":"a.test","methods":[]}]}': /list of 1 to 32/,
    '{"rules":[{"allow":"a.test","paths":["/a*b"]}]}': /no plain path/,
    '{"rules":[{"allow":"a.test","paths":["/a/../b"]}]}': /no plain path/,
    '{"rules":[{"allow":"a.test","paths":["a"]}]}': /no plain path/,
    '{"tls":{"ech":"maybe"}}': /tls\.ech must be/, '{"tls":{"sni":"deny"}}': /unknown field "sni"/,
  };
  for (const [text, message] of Object.entries(table)) {
    assert.throws(() => parseNetworkFile(text), { code: 'E_NETWORK_INVALID', message }, text);
  }
  const many = JSON.stringify({ rules: Array(257).fill({ allow: 'a.test' }) });
  assert.throws(() => parseNetworkFile(many), /more than 256/);
  assert.equal(parseNetworkFile('{"mode":"none","rules":[{"allow":"a.test"}]}').rules.length, 0);
});

test('what is spoken: rules about protocols, methods and paths wait until it is known', () => {
  const rules = policy({
    rules: [
      { allow: 'a.test', methods: ['GET', 'HEAD'], paths: ['/v1/*', '/health'] }, { allow: 'b.test', protocol: 'tls' },
      { deny: '*', methods: 'DELETE' },
    ],
  });
  const verdict = (name: string, more: Partial<Destination> = {}): boolean =>
    decide(rules, { name, address: '8.8.8.8', port: 443, ...more }).allowed;
  const asks = (name: string, method: string, path: string): boolean =>
    verdict(name, { protocol: 'http', request: { method, path } });
  assert.deepEqual([verdict('a.test'), verdict('b.test')], [true, true]);
  const spoken = (name: string): boolean[] =>
    (['tcp', 'tls', 'http'] as const).map((protocol) => verdict(name, { protocol }));
  assert.deepEqual([spoken('a.test'), spoken('b.test')], [[false, false, true], [false, true, false]]);
  assert.deepEqual([asks('a.test', 'GET', '/v1/x'), asks('a.test', 'GET', '/health')], [true, true]);
  for (const [method, path] of [['GET', '/v1'], ['POST', '/v1/x'], ['DELETE', '/v1/x']] as const) {
    assert.equal(asks('a.test', method, path), false, `${method} ${path}`);
  }
});

test('a path has one spelling, or none', () => {
  const table: Readonly<Record<string, string | undefined>> = {
    '/a?b=/../c': '/a', '/%61%7e': '/a~', '/%c3%a9': '/%C3%A9', '/a%20b': '/a%20b', '/': '/', '/a.b/..c': '/a.b/..c',
    '': undefined, 'a': undefined, '*': undefined, '/a/./b': undefined, '/..': undefined, '/a//b': undefined,
    '/%2E': undefined, '/a%2fb': undefined, '/a\\b': undefined, '/a%5Cb': undefined, '/a;b': undefined,
    '/a%zz': undefined, '/a%00': undefined, '/é': undefined, '/a b': undefined, '/a#b': undefined, '/%252e': undefined,
  };
  for (const [target, path] of Object.entries(table)) assert.equal(plainPath(target), path, target);
});

test('--allow and explain', () => {
  const rules = parseAllowList(['api.test:443,8000-8999', '192.0.2.0/24:5432', '*.x.test', '[2606:4700::]:53']);
  const explain = (url: string, address?: string): string => explainConnection(rules, url, address).because;
  assert.equal(explain('https://API.test./path?q#h'), 'rule 1: allow api.test:443,8000-8999');
  assert.equal(explain('http://api.test/'), 'no rule allows it');
  assert.equal(explain('http://api.test:8080/', '8.8.8.8'), 'rule 1: allow api.test:443,8000-8999');
  assert.match(explain('https://api.test/', '127.0.0.1'), /is loopback/);
  assert.match(explain('postgresql://user:secret@192.0.2.7/db'), /is reserved/);
  assert.equal(explain('tcp://[2606:4700::]:53'), 'rule 4: allow 2606:4700::/128:53');
  for (const url of ['x', 'foo://a.test/', 'https://a b/', 'http://a.test:0/', 'http:///']) {
    assert.throws(() => explain(url), { code: 'E_USAGE' }, url);
  }
});
