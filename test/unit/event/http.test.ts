/** Events as requests to a server: what is taken over, what is made anew, and what is refused. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CloudEvent, Event } from '../../../src/event/event.ts';
import { httpRequestOf } from '../../../src/event/http.ts';

const of = (data: unknown): ReturnType<typeof httpRequestOf> =>
  httpRequestOf({ cloudEvent: { data } as unknown as CloudEvent, bytes: Buffer.from('the event') } as Event);

test('a request in the data is that request; headers of its old connection are left behind', () => {
  const { method, path, headers, body } = of({
    method: 'POST', path: '/a?b=c', body: 'x', headers: { Accept: 'a', Connection: 'close', 'Content-Length': '7' },
  });
  assert.deepEqual([method, path, [...headers], body.toString()], ['POST', '/a?b=c', [['accept', 'a']], 'x']);
  assert.deepEqual(of({ path: '/', bodyBase64: 'AAE=' }).body, Buffer.from([0, 1]));
});

test('a body that is no text is JSON and says so; any other event is posted as it is', () => {
  const json = of({ path: '/', body: [1] });
  assert.deepEqual([json.body.toString(), json.headers.get('content-type')], ['[1]', 'application/json']);
  for (const data of [{ n: 1 }, null, 'text', [1], undefined]) {
    const { method, path, body } = of(data);
    assert.deepEqual([method, path, body.toString()], ['POST', '/', 'the event']);
  }
});

for (const [name, data] of [
  ['a path without a slash', { path: 'a' }], ['a path with a blank', { path: '/a b' }],
  ['a path with a line break', { path: '/\r\nx: y' }], ['a path that is too long', { path: `/${'a'.repeat(8192)}` }],
  ['a method in small letters', { path: '/', method: 'get' }], ['CONNECT', { path: '/', method: 'CONNECT' }],
  ['a header with a line break', { path: '/', headers: { a: 'b\r\nc: d' } }],
  ['a header name with a colon', { path: '/', headers: { 'a:b': 'c' } }],
  ['a header that is a number', { path: '/', headers: { a: 1 } }],
  ['a header twice', { path: '/', headers: { a: '1', A: '2' } }],
  ['headers without end', { path: '/', headers: { a: 'b'.repeat(17_000) } }],
  ['headers that are a list', { path: '/', headers: ['a'] }], ['both bodies', { path: '/', body: '', bodyBase64: '' }],
  ['a body that is no base64', { path: '/', bodyBase64: '!' }], ['a field of something else', { path: '/', url: '/' }],
] as const) {
  test(`refused: ${name}`, () => {
    assert.throws(() => of(data), { code: 'E_EVENT_INVALID' });
  });
}
