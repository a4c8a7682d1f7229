/** Goal: what is let in is exactly CloudEvents 1.0 or plain JSON, and a refusal names what is wrong. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MayflyError } from '../../../src/core/errors.ts';
import type { RunId } from '../../../src/core/ids.ts';
import { limits } from '../../../src/core/limits.ts';
import { acceptEvent } from '../../../src/event/accept.ts';
import type { Event } from '../../../src/event/event.ts';

const runId = '01JDQ0000000000000000000AB' as RunId;
const clock = { wallNanos: () => 1_732_446_000_000_000_000n };
const accept = (text: string | Buffer): Event => acceptEvent({ bytes: Buffer.from(text), runId, clock });

function refusal(text: string | Buffer): MayflyError {
  try {
    accept(text);
  } catch (thrown) {
    assert.ok(thrown instanceof MayflyError);
    return thrown;
  }
  assert.fail(`accepted: ${text.toString('utf8').slice(0, 100)}`);
}

const valid = { specversion: '1.0', id: '1', source: '/s', type: 't' };

test('a CloudEvent is delivered byte for byte', () => {
  const text = '{ "specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":12345678901234567890},"myext":7 }';
  const event = accept(text);
  assert.equal(event.bytes.toString(), text);
  assert.equal(event.cloudEvent['myext'], 7);
  assert.match(event.digest, /^sha256:[0-9a-f]{64}$/);
});

test('any other JSON value becomes the data of one, verbatim', () => {
  for (const text of ['null', '7', '"x"', '[1,2]', '{"a":1}', '12345678901234567890', ' {"__proto__":1} ']) {
    const event = accept(text);
    const delivered = JSON.parse(event.bytes.toString()) as Record<string, unknown>;
    assert.deepEqual(delivered, {
      specversion: '1.0', id: runId, source: '/mayfly/run', type: 'mayfly.run', time: '2024-11-24T11:00:00.000Z',
      datacontenttype: 'application/json', data: JSON.parse(text),
    });
    assert.ok(event.bytes.toString().endsWith(`"data":${text}}`));
  }
});

test('property: every JSON value is accepted and arrives as it was', () => {
  fc.assert(fc.property(fc.json(), (text) => {
    const delivered = JSON.parse(accept(text).bytes.toString()) as { data: unknown };
    assert.deepEqual(delivered.data, JSON.parse(text));
  }));
});

test('each rule of CloudEvents 1.0, by the name of its attribute', () => {
  const cases: readonly (readonly [Record<string, unknown>, string])[] = [
    [{ specversion: '0.3' }, 'specversion'], [{ specversion: 1 }, 'specversion'],
    [{ id: undefined }, 'id'], [{ id: '' }, 'id'], [{ id: 7 }, 'id'], [{ id: null }, 'id'],
    [{ source: undefined }, 'source'], [{ type: '' }, 'type'],
    [{ time: 'yesterday' }, 'time'], [{ time: '2024-13-01T00:00:00Z' }, 'time'], [{ time: '2024-01-01' }, 'time'],
    [{ subject: '' }, 'subject'], [{ datacontenttype: 'json' }, 'datacontenttype'], [{ dataschema: 5 }, 'dataschema'],
    [{ data: 1, data_base64: 'AA==' }, 'data_base64'], [{ data_base64: 'A' }, 'data_base64'],
    [{ data_base64: 'A*==' }, 'data_base64'], [{ data_base64: 5 }, 'data_base64'],
    [{ Upper: 'x' }, 'Upper'], [{ 'with-dash': 'x' }, 'with-dash'], [{ ext: {} }, 'ext'], [{ ext: 1.5 }, 'ext'],
  ];
  for (const [change, name] of cases) {
    const error = refusal(JSON.stringify({ ...valid, ...change }));
    assert.equal(error.code, 'E_EVENT_INVALID');
    assert.match(error.message, new RegExp(name), JSON.stringify(change));
  }
});

test('what CloudEvents 1.0 allows', () => {
  for (const change of [
    { time: '2024-11-24T11:00:00Z' }, { time: '2024-11-24t11:00:00.123456789+01:00' }, { time: null },
    { datacontenttype: 'text/plain; charset=utf-8' }, { data_base64: 'aGk=' }, { data: null, data_base64: '' },
    { data: 'text' }, { data: { deep: [1] } }, { ext1: true, ext2: -3, ext3: null },
  ]) {
    accept(JSON.stringify({ ...valid, ...change }));
  }
});

test('large base64 data does not overflow the matcher', () => {
  accept(JSON.stringify({ ...valid, data_base64: 'QUJD'.repeat(1_000_000) }));
});

test('bad bytes: not UTF-8, not JSON, keys twice', () => {
  assert.match(refusal(Buffer.from([0xff])).message, /UTF-8/);
  assert.match(refusal('{').message, /not JSON/);
  assert.match(refusal('').message, /not JSON/);
  assert.match(refusal('{"user":1,"user":2}').message, /"user"/);
  assert.doesNotMatch(refusal('{\u001b[31m').message, /\u001b/);
});

test('size and depth are limits with their own code', () => {
  assert.equal(refusal(Buffer.alloc(limits.eventBytesMax + 1, 0x20)).code, 'E_EVENT_TOO_LARGE');
  // The caller's text fits, the event made of it does not.
  assert.equal(refusal(`"${'x'.repeat(limits.eventBytesMax - 2)}"`).code, 'E_EVENT_TOO_LARGE');
  assert.equal(refusal('['.repeat(5_000_000)).code, 'E_EVENT_TOO_LARGE');
  assert.equal(refusal('['.repeat(129) + ']'.repeat(129)).code, 'E_EVENT_TOO_LARGE');
  accept('['.repeat(128) + ']'.repeat(128));
});
