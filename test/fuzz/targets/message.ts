/** The message decoder: refuses or decodes; what it decodes means the same when it is encoded and decoded again. */
import assert from 'node:assert/strict';
import { FrameDecoder, ProtocolError } from '../../../src/bridge/frame.ts';
import { decodeMessage, encodeMessage, messages } from '../../../src/bridge/message.ts';
import type { AnyMessage } from '../../../src/bridge/message.ts';
import { cases } from '../../golden/cases.ts';
import { mutate } from '../random.ts';
import type { FuzzTarget } from '../target.ts';

const types = new Set<number>(Object.values(messages).map(({ type }) => type));

/** Control frames of the golden files, as type and payload. */
const seeds = cases.filter(({ name, bytes }) => !name.startsWith('bad-') && bytes.length < 8192)
  .flatMap(({ from, nonce, bytes }) => [...new FrameDecoder({ from, nonce }).push(bytes)])
  .filter(({ type }) => types.has(type))
  .map(({ type, payload }) => Buffer.concat([Buffer.from([type]), payload]));

export const message: FuzzTarget = {
  smokeIterations: 10_000,
  make(random) {
    const seed = random.pick(seeds);
    return random.chance(90) ? Buffer.concat([seed.subarray(0, 1), mutate(random, seed.subarray(1), 4)]) : seed;
  },
  check(input) {
    if (input.length === 0) return;
    let decoded: AnyMessage;
    try {
      decoded = decodeMessage(input.readUInt8(0), input.subarray(1));
    } catch (thrown) {
      if (thrown instanceof ProtocolError) return;
      throw thrown;
    }
    const encoded = encodeMessage(decoded.name, decoded.fields);
    assert.equal(encoded.length, input.length - 1, 'bytes were lost or invented');
    assert.deepEqual(decodeMessage(input.readUInt8(0), encoded), decoded);
  },
};
