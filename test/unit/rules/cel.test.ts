/**
 * Goal: an expression means what CEL says, nothing unknown passes the load, and nothing hostile stalls or crashes.
 * Method: @bufbuild/cel's own evaluator is the oracle, expression by expression; then what is refused; then bombs.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { celEnv, isCelError, parse, plan } from '@bufbuild/cel';
import fc from 'fast-check';
import { limits } from '../../../src/core/limits.ts';
import type { JsonValue } from '../../../src/event/event.ts';
import { compileExpression } from '../../../src/rules/cel/compile.ts';
import { CelProblem } from '../../../src/rules/cel/node.ts';
import { CelFailure } from '../../../src/rules/cel/value.ts';
import { contextSchema, contextValues } from '../../../src/rules/context.ts';

const data = {
  size: 1500,
  ratio: 0.5,
  name: 'Report.PDF',
  tags: ['a', 'b'],
  nested: { deep: { flag: true } },
  nothing: null,
  empty: [],
  items: [
    { id: 1, url: 'https://example.com/a' },
    { id: 2, url: 'https://example.org/b' },
  ],
};
const schema = contextSchema();
const names = Object.keys(schema);

function valuesWith(payload: JsonValue): readonly unknown[] {
  return contextValues({
    event: {
      cloudEvent: {
        specversion: '1.0',
        id: '7',
        source: '/s',
        type: 'com.example.upload',
        data: payload,
        partition: 'p1',
      },
      bytes: Buffer.alloc(300),
    },
    source: { ip: '192.0.2.7', tenant: 'acme' },
    function: { name: '/function/h.mjs', image: 'node', kind: 'runtime' },
    acceptedNanos: 1_764_000_000_000_000_000n,
    threat: {
      score: 45,
      level: 'elevated',
      indicators: [
        { kind: 'ip', value: '192.0.2.7', source: 'feed', confidence: 80, severity: 'high', labels: ['c2'] },
      ],
    },
  });
}

const values = valuesWith(data);

/** Integers of the context, which are plain numbers here and bigint there; JSON numbers are doubles in both. */
function forOracle(): Record<string, never> {
  const ints = new Set(['bytes', 'year', 'month', 'day', 'weekday', 'hour', 'minute', 'epochSeconds', 'confidence']);
  const convert = (value: unknown, key: string, inData: boolean): unknown => {
    if (typeof value === 'number') return !inData && (ints.has(key) || key === 'score') ? BigInt(value) : value;
    if (Array.isArray(value)) return value.map((item) => convert(item, key, inData));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [name, convert(item, name, inData || name === 'data')]),
    );
  };
  return Object.fromEntries(names.map((name, index) => [name, convert(values[index], name, false)])) as Record<
    string,
    never
  >;
}

const env = celEnv({});
const oracleContext = forOracle();

function oracle(text: string): boolean | 'failure' {
  const value = plan(env, parse(text))(oracleContext);
  return isCelError(value) || typeof value !== 'boolean' ? 'failure' : value;
}

function mine(text: string, over = values): boolean | 'failure' {
  const { outcome } = compileExpression(text, schema).evaluate(over, limits.ruleStepsMax);
  return outcome instanceof CelFailure ? 'failure' : outcome;
}

const expressions = [
  'event.type == "com.example.upload"',
  'event.type != "x"',
  'event.data.size > 1000',
  'event.data.size == 1500',
  'event.data.size + 1.5 > 1501.0',
  'event.data.ratio * 2.0 == 1.0',
  '1 + 2 * 3 == 7',
  '7 / 2 == 3',
  '-7 / 2 == -3',
  '-7 % 3 == -1',
  '7.0 / 2.0 == 3.5',
  '1 / 0 == 1',
  '1 % 0 == 1',
  'score > 40 && level == "elevated"',
  'score / 0 > 1 || true',
  'true || score / 0 > 1',
  'score / 0 > 1 && false',
  'false && score / 0 > 1',
  'score / 0 > 1 && true',
  '!(score > 40)',
  'has(event.data.size)',
  'has(event.data.missing)',
  'has(event.data.missing.deep)',
  'event.data.missing == 1',
  'event.data.nothing == null',
  'event.data.name.startsWith("Rep")',
  'event.data.name.endsWith(".PDF")',
  'event.data.name.contains("ort")',
  'event.data.name.matches("^R.*F$")',
  'event.data.name.matches("(?i)report")',
  'event.data.size.startsWith("1")',
  '"a" in event.data.tags',
  '"c" in event.data.tags',
  'event.data.size in [1, 1500]',
  '"size" in event.data',
  'event.data.tags[0] == "a"',
  'event.data.tags[5] == "a"',
  'event.data["name"] == "Report.PDF"',
  'event.data.items.exists(i, i.id == 2.0)',
  'event.data.items.all(i, i.url.startsWith("https://"))',
  'event.data.items.exists(i, i.missing == 1) ',
  'event.data.items.exists(i, i.id == 1.0 || i.missing == 1)',
  'event.data.items.all(i, i.id > 1.0)',
  'event.data.items.exists_one(i, i.id == 1.0)',
  'event.data.empty.all(i, i.x == 1)',
  'event.data.items.map(i, i.id) == [1.0, 2.0]',
  'event.data.items.filter(i, i.id > 1.0).size() == 1',
  'event.data.items.map(i, i.id > 1.0, i.url)[0] == "https://example.org/b"',
  'size(event.data.tags) == 2',
  'event.data.name.size() == 10',
  '"größe".size() == 5',
  'size(event.data) == 8',
  'event.data.nested.deep.flag',
  'event.data.nested.deep.flag ? score > 1 : score > 100',
  'event.data.size ? true : false',
  'event.data.tags == ["a", "b"]',
  'event.data.tags == ["b", "a"]',
  'event.data.nested == event.data.nested',
  'event.bytes == 300',
  'time.year == 2025',
  'indicators.exists(i, i.kind == "ip" && i.confidence > 50)',
  'indicators.all(i, "c2" in i.labels)',
  'indicators.size() == 1',
  'event.data.exists(k, k == "size")',
  'string(score) == "45"',
  'int("12") == 12',
  'double("1.5") == 1.5',
  'int(2.9) == 2',
  '"a" + "b" == "ab"',
  'event.data.name + "x" == "Report.PDFx"',
  'event.data.name < "S"',
  'event.type > "com"',
  'event.extensions.partition == "p1"',
  'event.extensions["none"] == "p1"',
  '-score < 0',
  'event.data.name == event.type',
  'event.data.items.exists(i, event.data.tags.exists(t, t == "b" && i.id == 2.0))',
  'event.data.name > 3.0',
];

test('every expression of the list means what @bufbuild/cel says', () => {
  for (const text of expressions) assert.equal(mine(text), oracle(text), text);
});

const comparison = fc.constantFrom(...expressions.filter((text) => !text.includes('?') && !text.startsWith('time')));
const combined: fc.Arbitrary<string> = fc.letrec<{ node: string }>((tie) => ({
  node: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    comparison,
    fc.tuple(tie('node'), tie('node')).map(([a, b]) => `(${a}) && (${b})`),
    fc.tuple(tie('node'), tie('node')).map(([a, b]) => `(${a}) || (${b})`),
    tie('node').map((a) => `!(${a})`),
  ),
})).node;

test('property: combinations, failures included, mean what @bufbuild/cel says', () => {
  fc.assert(
    fc.property(
      combined.filter((text) => text.length < 1000),
      (text) => {
        assert.equal(mine(text), oracle(text), text);
      },
    ),
    { numRuns: 300 },
  );
});

test('a member that is null is there, as the language definition says and the oracle does not', () => {
  assert.deepEqual([mine('has(event.data.nothing)'), oracle('has(event.data.nothing)')], [true, false]);
});

test('addresses: networks of both families, and what is not known is in none', () => {
  assert.equal(mine('source.ip.inCidr("192.0.2.0/24")'), true);
  assert.equal(mine('source.ip.inCidr("198.51.100.0/24")'), false);
  assert.equal(mine('source.ip.inCidr("2001:db8::/32")'), false);
  assert.equal(mine('source.asn.inCidr("192.0.2.0/24")'), false);
  assert.equal(mine('event.type.inCidr("192.0.2.0/24")'), 'failure');
});

test('what is unknown, of the wrong type or unbounded is refused, with what is meant', () => {
  const refused: readonly (readonly [string, RegExp])[] = [
    ['event.tpye == "x"', /event has no tpye.*did you mean type/],
    ['evnt.type == "x"', /no evnt.*did you mean event/],
    ['event.data.x.foo()', /no function foo/],
    ['event.type == 1', /string never equals int/],
    ['event.type', /the whole is string/],
    ['score > "1"', /does not compare/],
    ['level > "high"', /levels as texts/],
    ['level == "worst"', /no level/],
    ['event.type.matches(event.id)', /literal text/],
    ['event.type.matches("(")', /not valid RE2/],
    ['event.type.matches("a{1001}")', /not valid RE2/],
    ['source.ip.inCidr("10.0.0.0/33")', /no network/],
    ['source.ip.inCidr("10.0.0.0")', /no network/],
    ['event.data.a + 1 > 1.0', /double/],
    ['!event.type', /true or false/],
    ['{"a": 1}.a == 1', /cannot be written/],
    ['b"x" == b"x"', /cannot be written/],
    ['1u == 1u', /cannot be written/],
    ['9223372036854775807 > 1', /2\^53/],
    ['event.type &&', /expecting/],
    ['', /./],
    ['[1, "a"].size() > 0', /one type/],
    ['event.data.a.exists(event, event == 1)', /hides/],
    ['score.size() > 1', /does not count/],
    ['event.data.constructor() == 1', /no function/],
    ['event.type.x == 1', /no fields/],
    ['[1].exists(a, [1].exists(b, [1].exists(c, true)))', /loops nest/],
    ['(event.type == "x" ? 1 : "a") == 1', /one type/],
  ];
  for (const [text, message] of refused) {
    assert.throws(
      () => compileExpression(text, schema),
      (thrown) => {
        assert.ok(thrown instanceof CelProblem, `${text}: ${thrown}`);
        assert.match(thrown.message, message, text);
        return true;
      },
      text,
    );
  }
});

test('names of JavaScript are no fields', () => {
  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    assert.equal(mine(`event.data.${name} == 1`), 'failure');
    assert.equal(mine(`has(event.data.${name})`), false);
    assert.equal(mine(`"${name}" in event.data`), false);
  }
  const payload = JSON.parse('{"__proto__": {"admin": true}}') as JsonValue;
  assert.equal(mine('event.data.__proto__.admin', valuesWith(payload)), true);
  assert.equal(mine('has(event.data.admin)', valuesWith(payload)), false);
});

/** CPU time, since other processes of the machine take wall time. */
function cpuMillis(from: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(from);
  return (user + system) / 1000;
}

test('bombs end at once: in the parser, in loops, in strings, in patterns', () => {
  const list = Array.from({ length: 200_000 }, (_, index) => index);
  const text = 'a'.repeat(5_000_000);
  const big = valuesWith({ list, text, wide: Object.fromEntries(list.map((index) => [`k${index}`, 1])) });
  const bombs = [
    'event.data.list.exists(a, event.data.list.exists(b, a + b < 0.0))',
    'event.data.list.all(a, event.data.list == event.data.list)',
    'event.data.list.all(a, event.data.text.contains("b") || true)',
    'event.data.wide.all(a, event.data.wide.all(b, true))',
    'event.data.text.matches("(a*)*b")',
    `${'(event.data.text + '.repeat(50)}""${')'.repeat(50)} == "x"`,
    'event.data.list.map(a, event.data.list).map(b, b).size() > 0',
    'event.data.list.all(a, size(event.data.text) > 0)',
    'event.data.list.all(a, a in event.data.list)',
  ];
  for (const bomb of bombs) {
    const from = process.cpuUsage();
    assert.equal(mine(bomb, big), 'failure', bomb);
    assert.ok(cpuMillis(from) < 800, `${bomb} took ${cpuMillis(from)} ms`);
  }
  const shapes = [
    (n: number) => `${'('.repeat(n)}1${')'.repeat(n)}`,
    (n: number) => '('.repeat(n),
    (n: number) => '['.repeat(n),
    (n: number) => `${'!'.repeat(n)}true`,
    (n: number) => `${'1+'.repeat(n)}1 == 1`,
    (n: number) => 'a.map(x,'.repeat(n),
    (n: number) => `a${'.b'.repeat(n)}`,
    (n: number) => `a${'[0'.repeat(n)}`,
    (n: number) => 'true?'.repeat(n),
    (n: number) => '"\\'.repeat(n),
  ];
  for (const shape of shapes) {
    for (const n of [50, 120, 600, 2040, 100_000]) {
      const from = process.cpuUsage();
      try {
        compileExpression(shape(n), schema);
      } catch (thrown) {
        assert.ok(thrown instanceof CelProblem, `${shape(3)}: ${thrown}`);
      }
      assert.ok(cpuMillis(from) < 800, `${shape(3)} ${n} took ${cpuMillis(from)} ms`);
    }
  }
});

test('property: any text compiles or is a CelProblem', () => {
  const words = fc.constantFrom(
    'event',
    '.type',
    '.data',
    '.x',
    '==',
    '&&',
    '(',
    ')',
    '[',
    ']',
    '"a"',
    '1',
    'has(',
    '.exists(i,',
    'in',
    '!',
    '?',
    ':',
    ' ',
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(words, { maxLength: 20 }).map((parts) => parts.join('')),
      ),
      (text) => {
        try {
          compileExpression(text, schema).evaluate(values, 1000);
        } catch (thrown) {
          assert.ok(thrown instanceof CelProblem, `${text}: ${thrown}`);
        }
      },
    ),
    { numRuns: 1000 },
  );
});
