/** Answers of servers as results: what is shown, what is left out, and what is not usable. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { responseOutput } from '../../../src/validate/response.ts';
import type { ServerAnswer } from '../../../src/validate/execution.ts';

type Answered = Extract<ServerAnswer, { ok: true }>;

const answer = (headers: [string, string][], body: string | Buffer = '', status = 200): Answered =>
  ({ ok: true, status, headers, body: Buffer.from(body) });

function shown(given: Answered, raw = false, bytesMax = 10_000): string {
  const result = responseOutput(given, raw, bytesMax);
  return result.ok ? result.output.toString('latin1') : result.code;
}

test('status, headers and body become one object; raw is the body alone', () => {
  const cookies: [string, string][] = [['set-cookie', 'a'], ['set-cookie', 'b'], ['vary', 'x'], ['vary', 'y']];
  assert.equal(shown(answer([...cookies, ['connection', 'close'], ['__proto__', 'p']], 'text', 404)),
    '{"status":404,"headers":{"set-cookie":["a","b"],"vary":"x, y","__proto__":"p"},"body":"text"}');
  assert.equal(shown(answer([], Buffer.from([0xff]))), '{"status":200,"headers":{},"bodyBase64":"/w=="}');
  assert.equal(shown(answer([], Buffer.from([0xff])), true), '\u00ff');
});

for (const [name, given] of [
  ['a status that is none', answer([], '', 99)], ['an informational status', answer([], '', 100)],
  ['a status of nobody', answer([], '', 600)],
  ['two content types', answer([['content-type', 'a/b'], ['content-type', 'a/c']])],
  ['a content type that is none', answer([['content-type', 'text']])],
  ['JSON that is none', answer([['content-type', 'application/problem+json; charset=utf-8']], '{')],
] as const) {
  test(`not usable: ${name}`, () => assert.equal(shown(given), 'E_SERVER_RESPONSE'));
}

test('what grows beyond the limit as JSON is too large', () => {
  assert.equal(shown(answer([], '\u0001'.repeat(2000))), 'E_OUTPUT_TOO_LARGE');
  assert.equal(shown(answer([], '\u0001'.repeat(2000)), true).length, 2000);
});
