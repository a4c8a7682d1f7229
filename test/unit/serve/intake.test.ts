/**
 * Goal: what a CloudEvents client sends is what the function gets, in every mode, and nothing else gets through.
 * Method: the CloudEvents project's own library as the oracle; properties; mistakes one by one.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CloudEvent, HTTP } from 'cloudevents';
import type { Message } from 'cloudevents';
import fc from 'fast-check';
import type { MayflyError } from '../../../src/core/errors.ts';
import type { RunId } from '../../../src/core/ids.ts';
import { splitBatch, takeEvents } from '../../../src/serve/intake.ts';
import type { Taken } from '../../../src/serve/intake.ts';

function take(headers: Record<string, string>, body: Buffer | string): Taken {
  return takeEvents({
    headers, body: Buffer.from(body), source: '/v1/functions/f', newId: () => '01M86TGAECYAE9HB802MYBC0ST' as RunId,
    wallNanos: () => 1_700_000_000_000_000_000n,
  });
}

function one(headers: Record<string, string>, body: Buffer | string): Record<string, unknown> {
  const { events, batch } = take(headers, body);
  assert.deepEqual([events.length, batch], [1, false]);
  return JSON.parse(String(events[0])) as Record<string, unknown>;
}

function sent(message: Message<unknown>): [headers: Record<string, string>, body: Buffer] {
  const headers = Object.entries(message.headers).map(([name, value]) => [name.toLowerCase(), String(value)]);
  const { body } = message;
  return [
    Object.fromEntries(headers) as Record<string, string>,
    Buffer.from(typeof body === 'string' ? body : (body as Buffer)),
  ];
}

test('property: an event of the CloudEvents library arrives as it was, binary and structured', () => {
  const event = fc.record({
    id: fc.stringMatching(/^[!-$&-~]{1,20}$/),
    source: fc.webUrl().filter((url) => !url.includes('%')),
    type: fc.constantFrom('a.b', 'x'),
    // The library does not encode what the standard wants encoded: what it sends plainly is plain here as well.
    subject: fc.option(fc.stringMatching(/^[a-z]([a-z ]{0,7}[a-z])?$/), { nil: undefined }),
    data: fc.oneof(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.integer())),
  });
  fc.assert(fc.property(event, ({ subject, ...rest }) => {
    const given = new CloudEvent({ ...rest, ...(subject === undefined ? {} : { subject }) });
    const expected = JSON.parse(JSON.stringify(given)) as Record<string, unknown>;
    for (const message of [HTTP.binary(given), HTTP.structured(given)]) {
      const got = one(...sent(message));
      // The library writes `application/json; charset=utf-8` into one mode and not into the other.
      const plain = (value: Record<string, unknown>): object => ({ ...value, datacontenttype: undefined });
      assert.deepEqual(plain(got), plain(expected));
    }
  }), { numRuns: 200 });
});

test('binary: bytes, text and percent-encoded attributes', () => {
  const ce = { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/s', 'ce-type': 't' };
  const bytes = one({ ...ce, 'content-type': 'image/png' }, Buffer.from([1, 2, 255]));
  assert.deepEqual([bytes['data_base64'], bytes['datacontenttype']], ['AQL/', 'image/png']);
  assert.equal(one({ ...ce, 'content-type': 'text/plain' }, 'hé')['data'], 'hé');
  assert.equal(
    one({ ...ce, 'content-type': 'text/plain; charset=latin1' }, Buffer.from([0xe9]))['data_base64'],
    '6Q==',
  );
  assert.equal(one({ ...ce, 'ce-subject': 'Euro%20%E2%82%AC%20%F0%9F%98%80' }, '')['subject'], 'Euro € 😀');
  assert.equal('data' in one(ce, ''), false);
});

test('plain: JSON, text, bytes and nothing become the data of an event that is made here', () => {
  const json = one({ 'content-type': 'application/json' }, '{"specversion":"9","big":12345678901234567890}');
  assert.deepEqual(
    [json['type'], json['source'], json['id']],
    ['mayfly.http', '/v1/functions/f', '01M86TGAECYAE9HB802MYBC0ST'],
  );
  const [text] = take({ 'content-type': 'application/json' }, '{"big":12345678901234567890}').events;
  assert.match(String(text), /"data":\{"big":12345678901234567890\}\}$/, 'as it was written');
  assert.deepEqual(one({ 'content-type': 'application/vnd.x+json' }, '[1]')['data'], [1]);
  assert.equal(one({}, 'x')['data_base64'], 'eA==');
  assert.equal('data' in one({}, ''), false);
});

test('batch: each as it was written', () => {
  const events = [
    '{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"],[{"}',
    '{"specversion":"1.0","id":"2","source":"/s","type":"t","data":12345678901234567890}',
  ];
  const { events: got, batch } = take(
    { 'content-type': 'application/cloudevents-batch+json' },
    `[ ${events.join(' ,\n')} ]`,
  );
  assert.deepEqual([got.map(String), batch], [events, true]);
});

test('property: a batch is split where JSON splits it', () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue({ maxDepth: 3 }), { minLength: 1, maxLength: 20 }), (values) => {
      const text = JSON.stringify(values);
      assert.deepEqual(
        splitBatch(Buffer.from(text)).map((each) => JSON.parse(String(each)) as unknown),
        JSON.parse(text),
      );
    }),
  );
});

const wrong: readonly (readonly [headers: Record<string, string>, body: string | Buffer, said: RegExp])[] = [
  [{ 'content-type': 'application/json' }, '{', /not JSON/],
  [{ 'content-type': 'application/json' }, '1,"id":"x"', /not JSON/],
  [{ 'content-type': 'application/json' }, '{"a":1,"a":2}', /occurs twice/],
  [{ 'content-type': 'application/json' }, '['.repeat(200), /nests deeper/],
  [{ 'content-type': 'application/json' }, Buffer.from([0x22, 0xff, 0x22]), /not UTF-8/],
  [{ 'content-type': 'text/plain' }, Buffer.from([0xff]), /not UTF-8/],
  [{ 'content-type': 'application/cloudevents+json' }, '{"n":1}', /no attribute `specversion`/],
  [{ 'content-type': 'application/cloudevents+json' }, '{"specversion":"1.0","id":"1","source":"/s"}', /`type`/],
  [{ 'content-type': 'application/cloudevents+avro' }, 'x', /no reader/],
  [{ 'content-type': 'application/cloudevents-batch+json' }, '{}', /must be a JSON array/],
  [{ 'content-type': 'application/cloudevents-batch+json' }, '[]', /at least one/],
  [{ 'content-type': 'application/cloudevents-batch+json' }, `[${Array(101).fill('1').join()}]`, /at most 100/],
  [{ 'ce-specversion': '0.3', 'ce-id': '1', 'ce-source': '/s', 'ce-type': 't' }, '', /must be "1.0"/],
  [{ 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/s' }, '', /`type`/],
  [{ 'ce-specversion': '1.0', 'ce-id': '%ff', 'ce-source': '/s', 'ce-type': 't' }, '', /percent-encoded/],
  [
    { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/s', 'ce-type': 't', 'ce-data': 'x' },
    '',
    /no header ce-data/,
  ],
  [
    { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/s', 'ce-type': 't', 'ce-my_x': 'x' },
    '',
    /lower-case letters/,
  ],
];

for (const [headers, body, said] of wrong) {
  test(`refused: ${String(said)}`, () => {
    assert.throws(() => take(headers, body), (thrown: MayflyError) => {
      assert.match(thrown.message, said);
      return thrown.code === 'E_EVENT_INVALID' || thrown.code === 'E_EVENT_TOO_LARGE';
    });
  });
}
