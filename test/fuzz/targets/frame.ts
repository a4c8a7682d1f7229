/** The frame decoder: refuses or decodes; never throws otherwise, never invents a byte, never depends on the chunks. */
import assert from 'node:assert/strict';
import { encodeFrame, FrameDecoder, ProtocolError } from '../../../src/bridge/frame.ts';
import type { Side } from '../../../src/bridge/frame.ts';
import { limits } from '../../../src/core/limits.ts';
import { cases } from '../../golden/cases.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

const seeds = cases.filter(({ bytes }) => bytes.length < 8192);

/** First byte: who sends, and how finely the bytes are cut. Then 8 bytes of nonce, then the frames. */
const PROLOGUE = 9;

export const frame: FuzzTarget = {
  smokeIterations: 4000,
  make(random) {
    const { from, nonce, bytes } = random.pick(seeds);
    const prologue = Buffer.alloc(PROLOGUE);
    prologue.writeUInt8((from === 'guest' ? 0 : 1) | (random.below(64) << 1));
    prologue.writeBigUInt64LE(nonce, 1);
    return Buffer.concat([prologue, random.chance(80) ? mutate(random, bytes, 4) : bytes]);
  },
  check(input) {
    if (input.length < PROLOGUE) return;
    const from: Side = (input.readUInt8(0) & 1) === 0 ? 'guest' : 'host';
    const nonce = input.readBigUInt64LE(1);
    const bytes = input.subarray(PROLOGUE);
    const whole = decode(from, nonce, bytes, bytes.length);
    assert.deepEqual(decode(from, nonce, bytes, 1 + (input.readUInt8(0) >>> 1)), whole);
    assert.ok(bytes.subarray(0, whole.encoded.length).equals(whole.encoded), 'the frames are not those of the input');
  },
};

function decode(from: Side, nonce: bigint, bytes: Buffer, size: number): { encoded: Buffer; end: string } {
  const decoder = new FrameDecoder({ from, nonce });
  const frames: Buffer[] = [];
  try {
    for (let at = 0; at < bytes.length; at += size) {
      for (const each of decoder.push(bytes.subarray(at, at + size))) {
        assert.ok(each.payload.length <= limits.framePayloadBytesMax);
        frames.push(encodeFrame(each));
      }
    }
    return { encoded: Buffer.concat(frames), end: decoder.midFrame ? 'more' : 'done' };
  } catch (thrown) {
    if (!(thrown instanceof ProtocolError)) throw thrown;
    return { encoded: Buffer.concat(frames), end: thrown.violation };
  }
}
