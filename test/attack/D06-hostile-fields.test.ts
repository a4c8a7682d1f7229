/**
 * D6: `__proto__`, huge numbers, bad UTF-8, and messages made to be expensive. Nesting cannot be expressed in a
 * message; that of a function's JSON is validate's business.
 * Method: payloads written by hand inside good frames; every bad-field golden against a session.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameDecoder } from '../../src/bridge/frame.ts';
import { messages } from '../../src/bridge/message.ts';
import { limits } from '../../src/core/limits.ts';
import { cases } from '../golden/cases.ts';
import { adoptedRig, assertFailed, configuration, executingRig, facts, settle } from '../unit/bridge/rig.ts';

function field(tag: number, value: Buffer): Buffer {
  const header = Buffer.alloc(6);
  header.writeUInt16LE(tag, 0);
  header.writeUInt32LE(value.length, 2);
  return Buffer.concat([header, value]);
}

for (const { name, from, nonce, bytes } of cases) {
  if (from !== 'guest' || !name.startsWith('bad-field-')) continue;
  test(`${name} ends a session with its violation`, async () => {
    const rig = await executingRig();
    const [frame] = new FrameDecoder({ from, nonce: bytes.readBigUInt64LE(16) }).push(bytes);
    assert.ok(frame !== undefined && nonce >= 0n);
    rig.guest.send(frame.type, 0, frame.payload);
    const { violation = '' } = await assertFailed(rig, { code: 'E_GUEST_PROTOCOL' });
    assert.ok(name.startsWith(`bad-${violation}`), `${name}: ${violation}`);
  });
}

test('names of object properties stay values', async () => {
  const rig = await adoptedRig();
  const configuring = rig.session.configure(configuration, []);
  const fact = ['__proto__=polluted', 'constructor=x', 'toString=x', 'hasOwnProperty=x', ...facts];
  rig.guest.say('PROOF', { fact });
  assert.deepEqual(await configuring, fact);
  assert.equal(Reflect.get({}, 'polluted'), undefined);
});

test('the most expensive message is decoded in a moment, the next larger one is refused', async () => {
  const most = Buffer.concat(Array(limits.fieldsMax).fill(field(1, Buffer.from('é'.repeat(61)))));
  assert.ok(most.length > limits.framePayloadBytesMax - 200 && most.length <= limits.framePayloadBytesMax);
  const rig = await adoptedRig();
  const configuring = rig.session.configure(configuration, []);
  rig.guest.send(messages.PROOF.type, 0, most);
  assert.equal((await configuring).length, limits.fieldsMax);

  const empty = Buffer.concat(Array(10_000).fill(field(1, Buffer.alloc(0))));
  const flooded = await adoptedRig();
  void flooded.session.configure(configuration, []);
  flooded.guest.send(messages.PROOF.type, 0, empty);
  await assertFailed(flooded, { code: 'E_GUEST_PROTOCOL', violation: 'field-count' });
});

test('totals and credits at the edges of their integers', async () => {
  for (const total of [1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
    const rig = await executingRig();
    const payload = Buffer.alloc(9);
    payload.writeBigUInt64LE(total);
    rig.guest.send(0x11, 1, payload);
    await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'end-total' });
  }
  const rig = await executingRig();
  rig.guest.credit('stdin', 0xffff_ffff);
  await assertFailed(rig, { code: 'E_GUEST_PROTOCOL', violation: 'credit' });
});

test('text that was not UTF-8 in a log is the log\'s business: it arrives as it is', async () => {
  const seen: Buffer[] = [];
  const rig = await executingRig({ onStderr: (chunk) => seen.push(Buffer.from(chunk)) });
  const odd = Buffer.from([0xff, 0x00, 0xc0, 0xaf, 0x1b, 0x5b]);
  rig.guest.data('stderr', odd);
  await settle();
  assert.deepEqual(Buffer.concat(seen), odd);
});
