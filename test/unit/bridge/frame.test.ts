/**
 * Goal: the frame codec is exact, independent of how bytes are cut, and allocates nothing for a frame it will refuse.
 * Method: one frame written by hand; properties over random frames and cuts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeFrame, FrameDecoder, frameTypes, ProtocolError, streams } from '../../../src/bridge/frame.ts';
import type { Frame } from '../../../src/bridge/frame.ts';
import { limits } from '../../../src/core/limits.ts';

const nonce = 0x1122_3344_5566_7788n;

const handwritten = Buffer.from(
  '4d59' + '01' + '10' + '03000000' + '00000000' + '01000000' + '8877665544332211' + '616263', 'hex',
);

test('a frame is laid out as docs/FORMATS.md says', () => {
  const frame = { type: frameTypes.DATA, sequence: 0, stream: 1, nonce, payload: Buffer.from('abc') };
  assert.deepEqual(encodeFrame(frame), handwritten);
  assert.deepEqual([...new FrameDecoder({ from: 'guest', nonce }).push(handwritten)], [frame]);
});

test('encodeFrame refuses what does not fit: that is a bug of the caller', () => {
  const frame = { type: frameTypes.DATA, sequence: 0, stream: 1, nonce, payload: Buffer.alloc(1) };
  assert.throws(() => encodeFrame({ ...frame, payload: Buffer.alloc(limits.framePayloadBytesMax + 1) }), RangeError);
  assert.throws(() => encodeFrame({ ...frame, sequence: 2 ** 32 }), RangeError);
  assert.throws(() => encodeFrame({ ...frame, nonce: -1n }), RangeError);
});

const guestFrames = fc.array(
  fc.oneof(
    fc.record({
      type: fc.constant(frameTypes.DATA),
      stream: fc.constantFrom(streams.stdout, streams.stderr, streams.output),
      payload: fc.uint8Array({ minLength: 1, maxLength: 300 }),
    }),
    fc.record({
      type: fc.constantFrom(frameTypes.HELLO, frameTypes.PROOF, frameTypes.EXIT, frameTypes.FAULT),
      stream: fc.constant(0),
      payload: fc.uint8Array({ maxLength: 100 }),
    }),
    fc.record({
      type: fc.constant(frameTypes.CREDIT),
      stream: fc.constantFrom(streams.stdin, streams.code),
      payload: fc.uint8Array({ minLength: 4, maxLength: 4 }),
    }),
  ),
  { maxLength: 12 },
).map((parts) => parts.map((part, sequence): Frame =>
  ({ ...part, payload: Buffer.from(part.payload), sequence, nonce })));

function decode(bytes: Buffer, cuts: readonly number[]): { frames: Frame[]; violation: string | undefined } {
  const decoder = new FrameDecoder({ from: 'guest', nonce });
  const frames: Frame[] = [];
  try {
    let at = 0;
    for (const cut of [...cuts, bytes.length]) {
      const end = Math.max(at, Math.min(cut, bytes.length));
      frames.push(...decoder.push(bytes.subarray(at, end)));
      at = end;
    }
    return { frames, violation: undefined };
  } catch (thrown) {
    assert.ok(thrown instanceof ProtocolError);
    return { frames, violation: thrown.violation };
  }
}

const someCuts = fc.array(fc.nat(3000), { maxLength: 40 }).map((cuts) => cuts.sort((a, b) => a - b));

test('decoding what was encoded gives the same frames, however the bytes are cut', () => {
  fc.assert(fc.property(guestFrames, someCuts, (frames, cuts) => {
    assert.deepEqual(decode(Buffer.concat(frames.map(encodeFrame)), cuts), { frames, violation: undefined });
  }));
});

test('damaged bytes are refused with the same violation, however they are cut', () => {
  const damage = fc.integer({ min: 1, max: 255 });
  fc.assert(fc.property(guestFrames, fc.nat(), damage, someCuts, (frames, where, flip, cuts) => {
    const bytes = Buffer.concat(frames.map(encodeFrame));
    if (bytes.length > 0) bytes.writeUInt8((bytes.readUInt8(where % bytes.length) ^ flip) & 0xff, where % bytes.length);
    const whole = decode(bytes, []);
    const cut = decode(bytes, cuts);
    assert.equal(cut.violation, whole.violation);
    // Frames before the damage are delivered in both; a generator that throws has still yielded them.
    assert.ok(whole.violation !== undefined || cut.frames.length === whole.frames.length);
  }));
});

test('a split at every single byte decodes the same', () => {
  const frames = [1, 2, 3].map((stream, sequence): Frame =>
    ({ type: frameTypes.DATA, sequence, stream, nonce, payload: Buffer.from(`payload ${stream}`) }));
  const bytes = Buffer.concat(frames.map(encodeFrame));
  for (let at = 0; at <= bytes.length; at++) assert.deepEqual(decode(bytes, [at]).frames, frames, `cut at ${at}`);
  assert.deepEqual(decode(bytes, Array.from(bytes.keys())).frames, frames, 'byte by byte');
});

test('frames of a chunk are not overwritten by the next chunk', () => {
  const decoder = new FrameDecoder({ from: 'guest', nonce });
  const frame = (sequence: number, text: string): Buffer =>
    encodeFrame({ type: frameTypes.DATA, sequence, stream: 1, nonce, payload: Buffer.from(text) });
  const split = frame(0, 'first');
  const [one] = [...decoder.push(split.subarray(0, 26)), ...decoder.push(split.subarray(26))];
  const next = frame(1, 'other');
  const [two] = [...decoder.push(next.subarray(0, 27)), ...decoder.push(next.subarray(27))];
  assert.equal(one?.payload.toString(), 'first');
  assert.equal(two?.payload.toString(), 'other');
});

test('a decoder that has refused stays refused, with the same violation', () => {
  const decoder = new FrameDecoder({ from: 'guest', nonce });
  const good = encodeFrame({ type: frameTypes.DATA, sequence: 0, stream: 1, nonce, payload: Buffer.from('x') });
  const bad = Buffer.from(good);
  bad.writeUInt8(9, 2);
  for (const bytes of [bad, good, Buffer.alloc(0)]) {
    assert.throws(() => [...decoder.push(bytes)], { name: 'ProtocolError', violation: 'version' });
  }
});

test('midFrame tells whether a frame has begun and not ended', () => {
  const decoder = new FrameDecoder({ from: 'guest', nonce });
  assert.equal(decoder.midFrame, false);
  for (let at = 0; at < handwritten.length; at++) {
    const frames = [...decoder.push(handwritten.subarray(at, at + 1))];
    assert.equal(decoder.midFrame, at < handwritten.length - 1, `after byte ${at}`);
    assert.equal(frames.length, at < handwritten.length - 1 ? 0 : 1);
  }
});

test('the guest\'s decoder takes the nonce from ADOPT and counts from 0 again, once', () => {
  const host = (type: number, sequence: number, own: bigint): Buffer =>
    encodeFrame({ type, sequence, stream: 0, nonce: own, payload: Buffer.alloc(0) });
  const decoder = new FrameDecoder({ from: 'host', nonce: 0n });
  const life = [host(frameTypes.PREPARE, 0, 0n), host(frameTypes.ADOPT, 0, nonce), host(frameTypes.START, 1, nonce)];
  assert.equal([...decoder.push(Buffer.concat(life))].length, 3);
  assert.throws(() => [...decoder.push(host(frameTypes.ADOPT, 0, nonce + 1n))], { violation: 'sequence' });
});
