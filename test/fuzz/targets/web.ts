/**
 * What a server in a clone answers, as bytes on its connection, and an event's idea of a request. The exchange ends in
 * a value whatever the bytes are, holds no more than it was told, and what it takes for an answer becomes JSON or a
 * code; a request is refused with its code or can be sent.
 */
import assert from 'node:assert/strict';
import { Door } from '../../../src/bridge/door.ts';
import { exchange } from '../../../src/bridge/web.ts';
import { MayflyError } from '../../../src/core/errors.ts';
import type { CloudEvent, Event } from '../../../src/event/event.ts';
import { httpRequestOf } from '../../../src/event/http.ts';
import type { HttpRequest } from '../../../src/event/http.ts';
import { responseOutput } from '../../../src/validate/response.ts';
import { ManualClock } from '../../unit/bridge/rig.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

const BYTES_MAX = 2000;
const answers = [
  'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{"a":[1]}',
  'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-end: 1\r\n\r\n',
  'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nnot here',
  'HTTP/1.1 204 No Content\r\nconnection: keep-alive\r\n\r\n',
  'HTTP/1.0 200\r\n\r\n',
].map((text) => Buffer.from(text));
const requests = [
  '{"path":"/a?b=c","headers":{"accept":["a","b"]},"body":{"n":1}}', '{"path":"/","method":"PUT","bodyBase64":"AAEC"}',
].map((text) => Buffer.from(text));

export const web: FuzzTarget = {
  smokeIterations: 1_500,
  make: (random) => mutate(random, random.pick([...answers, ...answers, ...requests]), 3),
  async check(input) {
    checkRequest(input);
    const guest = { accept() {}, write: () => true, end() {}, reset() {}, used() {} };
    const door = new Door(guest);
    const request: HttpRequest = { method: 'GET', path: '/', headers: new Map(), body: Buffer.alloc(0) };
    const clock = new ManualClock();
    const answering = exchange({ door, port: 8080, request, clock, bytesMax: BYTES_MAX });
    door.opened();
    await new Promise((resolve) => setImmediate(resolve));
    for (let at = 0; at < input.length && !door.destroyed; at += 40) door.world.data(input.subarray(at, at + 40));
    if (!door.destroyed) door.world.end();
    const answer = await answering;
    assert.equal(clock.pending, 0);
    assert.ok(door.destroyed);
    if (!answer.ok) return;
    assert.ok(answer.body.length <= BYTES_MAX);
    const output = responseOutput(answer, false, BYTES_MAX);
    if (output.ok) assert.equal(typeof (JSON.parse(output.output.toString()) as { status: unknown }).status, 'number');
  },
};

function checkRequest(input: Buffer): void {
  let data: unknown;
  try {
    data = JSON.parse(input.toString());
  } catch {
    return;
  }
  const event = { cloudEvent: { data } as unknown as CloudEvent, bytes: input } as Event;
  try {
    const { path, headers } = httpRequestOf(event);
    assert.match(path, /^\/[\x21-\x7e]*$/);
    for (const value of [...headers.values()].flat()) assert.doesNotMatch(value, /[\r\n]/);
  } catch (thrown) {
    assert.ok(thrown instanceof MayflyError && thrown.code === 'E_EVENT_INVALID', String(thrown));
  }
}
