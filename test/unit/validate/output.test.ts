/** Goal: every way in which a function can end has its own verdict, and nothing hostile comes out of one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { digestOf } from '../../../src/core/json.ts';
import { limits } from '../../../src/core/limits.ts';
import type { Workload } from '../../../src/event/workload.ts';
import { generateProfile } from '../../../src/profile/generate.ts';
import type { Execution } from '../../../src/validate/execution.ts';
import { validateOutput } from '../../../src/validate/output.ts';
import type { Validation } from '../../../src/validate/output.ts';
import type { FailedVerdict } from '../../../src/validate/verdict.ts';

const profile = generateProfile({
  request: { image: { name: 'node', digest: 'sha256:0' }, limits: { outputBytes: 1000 }, minimumIsolation: 'tcg' },
  codeBytes: 0,
});
const MiB = 1024 * 1024;
const calm = { exitCode: 0, signal: 0, cpuMicros: 1, memoryPeakBytes: 90 * MiB, oomKills: 0, pidsMaxHits: 0 };
const runtime: Workload = { kind: 'runtime', handler: '/function/h.mjs', entries: [] };
const executable: Workload = { kind: 'executable', argv: ['/function/run'], raw: false, entries: [] };

interface Change {
  readonly usage?: Partial<Execution['usage']>;
  readonly stderr?: string;
  readonly truncated?: boolean;
}

function judge(workload: Workload, output: string | Buffer, change: Change = {}): Validation {
  const execution: Execution = {
    output: Buffer.from(output),
    usage: { ...calm, ...change.usage },
    truncated: { output: change.truncated ?? false, stdout: false, stderr: false },
    stderrTail: Buffer.from(change.stderr ?? ''),
  };
  return validateOutput({ execution, profile, workload });
}

function refusal(workload: Workload, output: string | Buffer, change: Change = {}): FailedVerdict {
  const { verdict, output: given } = judge(workload, output, change);
  assert.equal(given, undefined, 'no output beside a failure');
  if (verdict.kind === 'accepted') assert.fail('accepted');
  return verdict;
}

const threw = (phase: string, error: Record<string, unknown>): string => JSON.stringify({ ok: false, phase, error });

test('a result comes out verbatim, with its digest', () => {
  for (const value of ['null', '{"a":[1,2]}', '12345678901234567890', '"\\ud83d\\ude00"', '{"__proto__":1}', 'true']) {
    const { verdict, output, digest } = judge(runtime, `{"ok":true,"value":${value}}`);
    assert.equal(verdict.kind, 'accepted');
    assert.equal(output?.toString(), value);
    assert.deepEqual(digest, { digest: digestOf(value), bytes: value.length });
  }
});

test('property: any JSON value passes through unchanged', () => {
  fc.assert(fc.property(fc.json(), (text) => {
    fc.pre(Buffer.byteLength(text) <= 1000);
    assert.equal(judge(runtime, `{ "value" : ${text} , "ok":true}`).output?.toString(), text);
  }));
});

test('property: no bytes of a guest make validation throw or accept what is not an envelope', () => {
  const parts = fc.constantFrom('{', '}', '"ok"', ':', 'true', 'false', ',', '"value"', '"error"', '[', '1', '"');
  fc.assert(fc.property(fc.array(parts, { maxLength: 14 }), (text) => {
    const { verdict, output } = judge(runtime, text.join(''));
    assert.equal(verdict.kind === 'accepted', output !== undefined);
    if (output !== undefined) JSON.parse(output.toString());
  }), { numRuns: 3000 });
  fc.assert(fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
    assert.notEqual(judge(runtime, Buffer.from(bytes)).verdict.kind, 'accepted');
  }));
});

test('each phase of a runtime has its code', () => {
  const stack = 'TypeError: x\n    at h (/function/h.mjs:3:1)';
  const error = { name: 'TypeError', message: 'x is not a function', stack };
  assert.equal(refusal(runtime, threw('load', error)).code, 'E_FUNCTION_LOAD');
  const call = refusal(runtime, threw('call', error));
  assert.equal(call.code, 'E_FUNCTION_THREW');
  assert.match(call.message, /TypeError: x is not a function/);
  assert.match(call.detail ?? '', /h\.mjs:3:1/);
  assert.equal(refusal(runtime, threw('result', error)).code, 'E_OUTPUT_INVALID');
  assert.equal(refusal(runtime, threw('renew', error)).code, 'E_CLONE_NOT_UNIQUE');
  assert.equal(refusal(runtime, threw('unheard-of', error)).code, 'E_OUTPUT_INVALID');
});

test('a remedy fits what happened: an unsettled promise, NaN, stray bytes', () => {
  const unsettled = { name: 'Error', code: 'ERR_UNSETTLED', message: 'Nothing is left to settle it.', stack: '' };
  const never = refusal(runtime, threw('call', unsettled));
  assert.deepEqual([never.code, never.message], ['E_FUNCTION_THREW', 'Nothing is left to settle it.']);
  assert.match(never.remedy, /never called/);
  const number = { name: 'RangeError', message: 'NaN cannot be a result: JSON has no such number' };
  assert.match(refusal(runtime, threw('result', number)).remedy, /null or a string in place of NaN/);
  for (const stray of ['x{"ok":true,"value":1}', '{"ok":true,"value":1}x', '[]', Buffer.from([0xff])]) {
    const verdict = refusal(runtime, stray);
    assert.equal(verdict.code, 'E_OUTPUT_INVALID');
    assert.match(verdict.remedy, /descriptor 4/);
  }
});

test('a module that was not shipped has a remedy that says so', () => {
  for (const error of [{ name: 'Error', code: 'ERR_MODULE_NOT_FOUND' }, { name: 'ModuleNotFoundError' }]) {
    assert.match(refusal(runtime, threw('load', error)).remedy, /only the handler file was shipped/);
  }
  assert.doesNotMatch(refusal(runtime, threw('load', { name: 'SyntaxError' })).remedy, /shipped/);
});

test('what a customer’s error says is capped and cannot drive a terminal', () => {
  const verdict = refusal(runtime, JSON.stringify({
    ok: false, phase: 'call',
    error: {
      name: '\u001b[2J', message: `\u0007\u202e${'m'.repeat(300)}\nsecond line`,
      stack: `s\r\n\u001b]0;x\u0007${'s'.repeat(400)}`,
    },
  }));
  const shown = verdict.message + (verdict.detail ?? '').replaceAll('\n', '');
  assert.doesNotMatch(shown, /[\u0000-\u001f\u007f-\u009f\u202e]/);
  assert.doesNotMatch(verdict.message, /\n/);
  const odd = refusal(runtime, threw('call', { name: 7, message: { a: 1 }, stack: null }));
  assert.match(odd.message, /threw Error/);
  assert.equal(refusal(runtime, '{"ok":false,"phase":"call"}').code, 'E_FUNCTION_THREW');
});

test('memory: said so, with limit and peak, whoever noticed first', () => {
  const kernel = refusal(runtime, '', { usage: { signal: 9, oomKills: 1, memoryPeakBytes: 256 * MiB } });
  assert.equal(kernel.code, 'E_FUNCTION_MEMORY');
  assert.match(kernel.message, /256 MiB of memory \(peak 256 MiB\)/);
  const half = refusal(runtime, '{"ok":true,"val', { usage: { signal: 9, oomKills: 1 } });
  assert.equal(half.code, 'E_FUNCTION_MEMORY');
  const said = 'FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory';
  for (const usage of [{ signal: 6 }, { signal: 5 }, { exitCode: 134 }, { exitCode: 133 }]) {
    assert.equal(refusal(runtime, '', { usage, stderr: said }).code, 'E_FUNCTION_MEMORY');
  }
  assert.equal(refusal(runtime, '', { usage: { signal: 6 }, stderr: 'assertion failed' }).code, 'E_FUNCTION_EXIT');
  assert.equal(refusal(runtime, '', { usage: { exitCode: 1 }, stderr: said }).code, 'E_FUNCTION_EXIT');
  assert.equal(refusal(runtime, threw('call', { name: 'MemoryError' })).code, 'E_FUNCTION_MEMORY');
});

test('a function that ends without a result is told how it ended', () => {
  assert.match(refusal(runtime, '', { usage: { signal: 11 } }).message, /SIGSEGV/);
  assert.match(refusal(runtime, '', { usage: { exitCode: 3 } }).message, /status 3/);
  assert.match(refusal(runtime, '').message, /without a result/);
  assert.match(refusal(runtime, '', { usage: { exitCode: 1, pidsMaxHits: 4 } }).message, /128 processes was hit 4/);
  assert.equal(refusal(runtime, '', { usage: { exitCode: 1 }, stderr: 'why\u001b[0m' }).detail, 'why[0m');
});

test('too large or too deep is withheld, and its digest is kept', () => {
  const large = `{"ok":true,"value":"${'x'.repeat(999)}"}`;
  const { verdict, digest } = judge(runtime, large);
  assert.ok(verdict.kind === 'withheld' && verdict.code === 'E_OUTPUT_TOO_LARGE');
  assert.equal(digest?.bytes, 1001);
  assert.equal(judge(runtime, `{"ok":true,"value":"${'x'.repeat(998)}"}`).verdict.kind, 'accepted');
  assert.equal(refusal(runtime, '{"ok":true', { truncated: true }).code, 'E_OUTPUT_TOO_LARGE');
  const deep = (levels: number): string => `{"ok":true,"value":${'['.repeat(levels)}${']'.repeat(levels)}}`;
  assert.equal(judge(runtime, deep(limits.outputDepthMax)).verdict.kind, 'accepted');
  assert.equal(refusal(runtime, deep(limits.outputDepthMax + 1)).code, 'E_OUTPUT_TOO_LARGE');
});

test('an envelope that is anything but an envelope is withheld', () => {
  for (const text of [
    '{"ok":true}', '{"ok":true,"value":1,"extra":2}', '{"ok":1,"value":1}', '[]', 'null', '7', '{"value":1}',
    '{"ok":true,"value":1,"value":2}', '{"ok":true,"ok":false,"value":1}', '{"ok":true,"value":1}{"ok":true,"value":2}',
  ]) {
    assert.equal(refusal(runtime, text).code, 'E_OUTPUT_INVALID', text);
  }
});

test('an executable: status 0 and JSON on stdout, or any bytes when raw', () => {
  assert.equal(judge(executable, ' {"a":1}\n').output?.toString(), '{"a":1}');
  assert.equal(refusal(executable, 'hello\n').code, 'E_OUTPUT_INVALID');
  assert.match(refusal(executable, 'hello\n').remedy, /--raw/);
  assert.match(refusal(executable, '').message, /printed nothing/);
  assert.equal(refusal(executable, '{}', { usage: { exitCode: 2 } }).code, 'E_FUNCTION_EXIT');
  assert.equal(refusal(executable, '', { usage: { signal: 9, oomKills: 1 } }).code, 'E_FUNCTION_MEMORY');
  assert.equal(refusal(executable, '"', { truncated: true }).code, 'E_OUTPUT_TOO_LARGE');
  const bytes = Buffer.from([0, 0xff, 0x1b]);
  assert.deepEqual(judge({ ...executable, raw: true }, bytes).output, bytes);
  assert.deepEqual(judge({ ...executable, raw: true }, '').output, Buffer.alloc(0));
});
