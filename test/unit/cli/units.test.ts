/** Goal: durations and sizes mean what people mean by them, and nothing else is accepted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatBytes, formatMillis, parseDuration, parseSize } from '../../../src/cli/units.ts';
import { MayflyError } from '../../../src/core/errors.ts';

test('durations', () => {
  const examples = [['500ms', 500], ['30s', 30_000], ['2m', 120_000], ['1.5s', 1500], ['7', 7000], ['0', 0]] as const;
  for (const [text, millis] of examples) {
    assert.equal(parseDuration(text, '--timeout'), millis, text);
  }
});

test('sizes are powers of 1024', () => {
  const mebibyte = 1024 ** 2;
  const examples = [
    ['65536', 65536], ['256M', 256 * mebibyte], ['1G', 1024 * mebibyte], ['1.5k', 1536], ['2MiB', 2 * mebibyte],
  ];
  for (const [text, bytes] of examples as [string, number][]) {
    assert.equal(parseSize(text, '--memory'), bytes, text);
  }
});

test('anything else is an error that names the option and says how to write it', () => {
  for (const text of ['', ' ', '-1', 'soon', '1h', '1e3', '0x10', '1 s', 'NaN', 'Infinity', '1,5s', '٣s']) {
    for (const parse of [parseDuration, parseSize]) {
      assert.throws(() => parse(text, '--option'), (thrown: unknown) => {
        assert.ok(thrown instanceof MayflyError);
        assert.equal(thrown.code, 'E_USAGE');
        assert.match(thrown.message, /--option/);
        return /Write it as/.test(thrown.remedy);
      }, text);
    }
  }
});

test('property: whole numbers of every unit come back exactly', () => {
  fc.assert(fc.property(fc.nat({ max: 1_000_000 }), (value) => {
    assert.equal(parseDuration(`${value}ms`, 'x'), value);
    assert.equal(parseSize(`${value}K`, 'x'), value * 1024);
  }));
});

test('what people read', () => {
  assert.deepEqual([0, 1023, 1024, 1.5 * 1024 ** 2, 61 * 1024 ** 2, 2 * 1024 ** 3].map(formatBytes), [
    '0 B', '1023 B', '1.0 KiB', '1.5 MiB', '61 MiB', '2.0 GiB',
  ]);
  const shown = [0.04, 5.26, 99.94, 260.4, 12_345].map(formatMillis);
  assert.deepEqual(shown, ['0.0 ms', '5.3 ms', '99.9 ms', '260 ms', '12.3 s']);
});
