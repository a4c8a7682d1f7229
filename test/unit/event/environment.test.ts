/**
 * Goal: what a caller sets arrives as it was given, replaces a default of that name, and a mistake is named without its
 * value, which may be a secret.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { executableEnvironment } from '../../../src/bridge/environment.ts';
import { MayflyError } from '../../../src/core/errors.ts';
import type { ErrorCode } from '../../../src/core/errors.ts';
import { limits } from '../../../src/core/limits.ts';
import { parseEnvironment } from '../../../src/event/environment.ts';

function refused(given: readonly string[], code: ErrorCode, message: RegExp): void {
  assert.throws(() => parseEnvironment(given), (thrown) => {
    assert.ok(thrown instanceof MayflyError);
    assert.equal(thrown.code, code);
    assert.match(thrown.message, message);
    assert.doesNotMatch(thrown.message, /secret/);
    return true;
  });
}

test('a value may be empty and have = and line breaks; the last of one name counts', () => {
  const given = parseEnvironment(['A=1', '_b2=x=y\nz', 'EMPTY=', 'A=2', '__proto__=p']);
  assert.deepEqual([...given], [['A', '2'], ['_b2', 'x=y\nz'], ['EMPTY', ''], ['__proto__', 'p']]);
});

test('a mistake is named, never its value', () => {
  refused(['A'], 'E_USAGE', /--env A: it has no value/);
  refused(['1A=secret'], 'E_USAGE', /--env 1A: a name has letters/);
  refused(['=secret'], 'E_USAGE', /a name has letters/);
  refused(['A B=secret'], 'E_USAGE', /--env A B/);
  refused(['A=secret\0'], 'E_USAGE', /--env A/);
});

test('number and size are bounded', () => {
  const most = Array.from({ length: limits.envEntriesMax }, (_, index) => `A${index}=1`);
  assert.equal(parseEnvironment(most).size, limits.envEntriesMax);
  refused([...most, 'B=1'], 'E_LIMIT_INVALID', /65 variables, at most 64/);
  assert.equal(parseEnvironment([`A=${'x'.repeat(limits.envBytesMax - 2)}`]).size, 1);
  refused([`A=${'x'.repeat(limits.envBytesMax - 1)}`], 'E_LIMIT_INVALID', /at most 16384/);
});

test('an executable keeps the defaults that were not set', () => {
  const defaults = executableEnvironment();
  assert.deepEqual(defaults.map((line) => line.split('=')[0]), ['PATH', 'HOME', 'TMPDIR', 'LANG']);
  const lines = executableEnvironment(parseEnvironment(['PATH=/opt', 'X=1']));
  assert.deepEqual(lines, [...defaults.slice(1), 'PATH=/opt', 'X=1']);
});
