/**
 * Goal: what goes to a terminal cannot drive it, what goes to a program is exact, and what is read is bounded.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import { readAtMost, readFileAtMost } from '../../../src/cli/input.ts';
import { paint } from '../../../src/cli/io.ts';
import { clean, TerminalText } from '../../../src/cli/log.ts';
import { formatProblem, formatTimeline, prettyJson } from '../../../src/cli/report.ts';
import { MayflyError } from '../../../src/core/errors.ts';

const plain = paint(false);
const never = new AbortController().signal;

test('F5: escape sequences, C1 controls and bidirectional overrides do not reach a terminal', () => {
  const hostile = '\u001b[31mred\u001b]0;title\u0007\u009b2J\u202eevil\u0000\n\tkept';
  assert.equal(clean(hostile), '[31mred]0;title2Jevil\n\tkept');
});

test('property: however a log is cut into chunks, its text is the same and has no control characters', () => {
  const text = fc.string({ unit: 'grapheme' }).map((chars) => `é\u001b${chars}\u001b[0m漢`);
  fc.assert(fc.property(text, fc.integer({ min: 1, max: 7 }), (whole, size) => {
    const bytes = Buffer.from(whole);
    const log = new TerminalText();
    let shown = '';
    for (let at = 0; at < bytes.length; at += size) shown += log.push(bytes.subarray(at, at + size));
    assert.equal(shown, clean(bytes.toString('utf8')));
    assert.doesNotMatch(shown, /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/);
  }));
});

test('JSON for people keeps its numbers', () => {
  const shown = prettyJson('{"a":12345678901234567890,"b":[1e2,-0.10]}');
  assert.equal(shown, '{\n  "a": 12345678901234567890,\n  "b": [\n    1e2,\n    -0.10\n  ]\n}');
  assert.equal(prettyJson('{"__proto__":1}'), '{\n  "__proto__": 1\n}');
});

test('an error says code, title, what happened, detail and remedy', () => {
  const options = { detail: 'X\n  at h.mjs:1', remedy: 'Fix it.' };
  const error = new MayflyError('E_FUNCTION_THREW', 'The handler threw X', options);
  assert.equal(formatProblem(error, plain),
    'error E_FUNCTION_THREW: The handler threw an exception\n  The handler threw X\n\n' +
    '  X\n    at h.mjs:1\n\n  remedy Fix it.\n');
  assert.match(formatProblem(error, paint(true)), /\u001b\[31m/);
});

test('a timeline has a line per step, its bars in order and within their width', () => {
  const timeline = [
    { stage: 'profile', at: 0, millis: 0.4, attempt: 1 }, { stage: 'clone', at: 1, millis: 49, attempt: 1 },
    { stage: 'clone', at: 50, millis: 50, attempt: 2 },
  ] as const;
  const lines = formatTimeline(timeline, plain).trimEnd().split('\n');
  assert.equal(lines.length, 4);
  assert.match(lines[2] ?? '', /clone \(2\) +50\.0 ms +█{18}$/);
  assert.match(lines[3] ?? '', /event to end +100 ms$/);
  assert.equal(formatTimeline([], plain), '  event to end      1.0 ms\n');
});

test('input is read up to its bound, also from a file without a size', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-input-'));
  try {
    const twenty = Readable.from([Buffer.alloc(10), Buffer.alloc(10)]);
    assert.equal((await readAtMost(twenty, { bytesMax: 15, signal: never })).length, 15);
    const file = join(folder, 'event.json');
    writeFileSync(file, '{}');
    assert.equal(String(await readFileAtMost(file, { bytesMax: 100, signal: never })), '{}');
    assert.equal((await readFileAtMost('/dev/zero', { bytesMax: 1000, signal: never })).length, 1000);
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const read = readFileAtMost(pipe, { bytesMax: 100, signal: never });
    await writeFile(pipe, '{"from":"a pipe"}');
    assert.equal(String(await read), '{"from":"a pipe"}');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test('Ctrl-C ends the wait for input that never comes', async () => {
  const abort = new AbortController();
  const read = readAtMost(new PassThrough(), { bytesMax: 100, signal: abort.signal });
  setImmediate(() => abort.abort());
  await assert.rejects(read, (thrown: unknown) => thrown instanceof MayflyError && thrown.code === 'E_INTERRUPTED');
});
