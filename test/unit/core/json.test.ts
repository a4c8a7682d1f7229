/** Goal: text from strangers has one meaning or none, and a value that is hashed has one text. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { canonicalJson, parseStrict, printableLine, printableText } from '../../../src/core/json.ts';

const bounds = { bytesMax: 1_000_000, depthMax: 8 };
const parse = (text: string) => parseStrict(Buffer.from(text), bounds);
const kindOf = (text: string | Buffer): string => {
  const parsed = parseStrict(Buffer.from(text), bounds);
  return parsed.ok ? 'ok' : parsed.problem.kind;
};

test('what JSON.parse accepts within the bounds is accepted with the same value', () => {
  fc.assert(fc.property(fc.json({ maxDepth: 4 }), (text) => {
    const parsed = parse(text);
    // fast-check's objects never repeat a key, so nothing here may be refused.
    assert.ok(parsed.ok);
    assert.deepEqual(parsed.value, JSON.parse(text));
  }));
});

test('depth is counted before the parser sees it, and never inside strings', () => {
  assert.equal(kindOf('['.repeat(8) + ']'.repeat(8)), 'ok');
  assert.equal(kindOf('['.repeat(9) + ']'.repeat(9)), 'depth');
  assert.equal(kindOf('{"a":'.repeat(9) + '1' + '}'.repeat(9)), 'depth');
  assert.equal(kindOf('['.repeat(400_000)), 'depth');
  assert.equal(kindOf(JSON.stringify('['.repeat(100))), 'ok');
  assert.equal(kindOf(JSON.stringify('\\"[[[[[[[[[[[[')), 'ok');
});

test('a key that occurs twice is named, however it is written', () => {
  assert.equal(kindOf('{"a":1,"a":2}'), 'duplicate');
  assert.equal(kindOf('{"a":1,"\\u0061":2}'), 'duplicate');
  assert.equal(kindOf('[{"x":{"a" : 1,\n"b":2, "a":3}}]'), 'duplicate');
  assert.equal(kindOf('[{"a":1},{"a":1}]'), 'ok');
  assert.equal(kindOf('{"a":{"a":"a"},"b":["a","a"]}'), 'ok');
  const parsed = parse('{"dup":1,"dup":1}');
  assert.deepEqual(parsed, { ok: false, problem: { kind: 'duplicate', key: 'dup' } });
});

test('__proto__ and constructor are data', () => {
  const parsed = parse('{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}');
  assert.ok(parsed.ok);
  assert.ok(Object.hasOwn(parsed.value as object, '__proto__'));
  assert.equal(({} as Record<string, unknown>)['polluted'], undefined);
});

test('only UTF-8, no byte order mark, no more bytes than allowed', () => {
  assert.equal(kindOf(Buffer.from([0x22, 0xff, 0x22])), 'utf8');
  assert.equal(kindOf(Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])), 'utf8');
  assert.equal(kindOf('\ufeff{}'), 'syntax');
  assert.equal(kindOf(Buffer.alloc(1_000_001, 0x20)), 'size');
  assert.equal(kindOf(''), 'syntax');
  assert.equal(kindOf('{"a":1'), 'syntax');
});

test('any bytes end in a value or a problem, never in an exception', () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
    parseStrict(Buffer.from(bytes), bounds);
  }));
  const jsonish = fc.array(fc.constantFrom('{', '}', '[', ']', '"', ':', ',', '\\', 'a', '1', ' '), { maxLength: 40 });
  fc.assert(fc.property(jsonish, (parts) => {
    const text = parts.join('');
    if (parse(text).ok) JSON.parse(text);
  }), { numRuns: 2000 });
});

test('members say where each value of the outermost object stands', () => {
  const objects = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }));
  fc.assert(fc.property(objects, fc.constantFrom(0, 2), (value, indent) => {
    const text = JSON.stringify(value, null, indent);
    const parsed = parse(text);
    assert.ok(parsed.ok);
    assert.equal(parsed.members.size, Object.keys(value).length);
    for (const [key, [start, end]] of parsed.members) {
      assert.deepEqual(JSON.parse(text.slice(start, end)), JSON.parse(JSON.stringify(value[key])));
    }
  }));
});

test('canonical JSON: RFC 8785 examples, and a fixed point of parsing', () => {
  assert.equal(
    canonicalJson({ '\u20ac': 1, '\r': 2, '\ufb33': 3, '1': 4, '\u{1f600}': 5, '\u0080': 6, '\u00f6': 7 }),
    '{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\u{1f600}":5,"\ufb33":3}',
  );
  assert.equal(
    canonicalJson([333333333.33333329, 1e30, 4.5, 2e-3, 0.000000000000000000000000001, -0]),
    '[333333333.3333333,1e+30,4.5,0.002,1e-27,0]',
  );
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    const text = canonicalJson(value);
    assert.equal(canonicalJson(JSON.parse(text)), text);
  }));
});

test('canonical JSON refuses what has no JSON text', () => {
  for (const value of [undefined, 1n, Number.NaN, Infinity, '\ud800', { a: undefined }, () => 1, Symbol('s')]) {
    assert.throws(() => canonicalJson(value), TypeError);
  }
});

test('printable text has no control characters and a bound', () => {
  const hostile = '\u001b[31mred\u0007\u009b2J\u202egnp.exe\r\nnext\tcell';
  assert.equal(printableText(hostile, 100), '[31mred2Jgnp.exe\nnext\tcell');
  assert.equal(printableLine(hostile, 100), '[31mred2Jgnp.exe next cell');
  const units = fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 300 });
  fc.assert(fc.property(units, fc.integer({ min: 1, max: 200 }), (codes, max) => {
    const line = printableLine(String.fromCharCode(...codes), max);
    assert.ok(line.length <= max);
    assert.doesNotMatch(line, /[\u0000-\u001f\u007f-\u009f]/);
    assert.ok(line.isWellFormed());
  }));
});
